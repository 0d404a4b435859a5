//! A pod that was marked as about to be disrupted and is still there after two minutes loses the mark. Models
//! syncStalePodDisruption of disruption.go.
use client::k8s_openapi::api::core::v1::{Pod, PodCondition};
use client::{Event, Named, Next, ObjectKey, WorkQueue};
use jiff::{SignedDuration, Timestamp};

use super::Context;
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

const TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const MARK: &str = "DisruptionTarget";

/// When the pod's mark becomes stale; `None` where it has none that could.
pub(super) fn stale_at(pod: &Pod) -> Option<Timestamp> {
    let mark = pods::condition(pod, MARK).filter(|c| c.status == "True")?;
    // The kubelet may take any time to end a pod that it has marked.
    if pod.is_deleting() || pods::is_terminated(pod) || mark.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = mark.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    since.checked_add(TIMEOUT).ok()
}

pub(super) fn on_pod(_: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    if stale_at(event.object()).is_some() && !matches!(event, Event::Deleted(_)) {
        queue.add(event.object().key());
    }
}

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(pod) = cx.pods.get(key) else { return Ok(Next::Wait) };
    let (Some(at), now) = (stale_at(&pod), cx.clock.now()) else { return Ok(Next::Wait) };
    if at > now {
        return Ok(Next::After(pods::until(at, now)));
    }
    let mut update = (*pod).clone();
    let generation = update.metadata.generation;
    let conditions = update.status.get_or_insert_default().conditions.get_or_insert_default();
    if let Some(mark) = conditions.iter_mut().find(|c| c.type_ == MARK) {
        *mark = PodCondition {
            type_: MARK.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(cx.clock.time()),
            observed_generation: generation,
            ..Default::default()
        };
    }
    let step = || format!("take the stale mark of a disruption from pod {key}");
    unless_gone(cx.client.update_status(&update).await).during(step)?;
    Ok(Next::Wait)
}
