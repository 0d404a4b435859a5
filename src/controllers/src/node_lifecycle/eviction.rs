//! Takes pods off nodes whose taints they do not tolerate, or not for longer.
use client::k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use client::{DeleteOptions, EventType, Named, Next, ObjectKey, Patch};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Context, taints};
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

/// What the taints of its node mean for a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    GoesAt(Timestamp),
    Goes,
}

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(pod) = cx.pods.get(key) else { return Ok(Next::Wait) };
    let node = pods::node_name(&pod);
    if node.is_empty() || pod.is_deleting() {
        return Ok(Next::Wait);
    }
    let Some(node) = cx.nodes.get(&ObjectKey::cluster(node)) else { return Ok(Next::Wait) };
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let now = cx.clock.now();
    match fate(taints::evicting(&node), tolerations, now) {
        Fate::Stays => Ok(Next::Wait),
        Fate::GoesAt(at) if at > now => Ok(Next::After(pods::until(at, now))),
        Fate::GoesAt(_) | Fate::Goes => evict(cx, &pod).await,
    }
}

pub(super) fn fate<'a>(taints: impl Iterator<Item = &'a Taint>, tolerations: &[Toleration], now: Timestamp) -> Fate {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        // The first that matches counts, as in GetMatchingTolerations.
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else { return Fate::Goes };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let until = since.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
        earliest = Some(earliest.map_or(until, |e| e.min(until)));
    }
    earliest.map_or(Fate::Stays, Fate::GoesAt)
}

/// Toleration.ToleratesTaint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

async fn evict(cx: &Context, pod: &Pod) -> Result<Next, Failure> {
    let key = pod.key();
    cx.recorder.record(pod, EventType::Normal, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
         "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": cx.clock.time()}]}}));
    let step = || format!("mark pod {key} for eviction");
    if unless_gone(cx.client.patch_status::<Pod>(&key, &patch).await).during(step)?.is_some() {
        let result = cx.client.delete::<Pod>(&key, &DeleteOptions::uid(pod.uid())).await;
        unless_gone(result).during(|| format!("evict pod {key}"))?;
    }
    Ok(Next::Wait)
}
