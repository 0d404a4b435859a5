//! A DaemonSet's revisions. Models constructHistory, snapshot and cleanupHistory of update.go.
use std::collections::HashSet;
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use client::k8s_openapi::api::core::v1::Pod;
use client::{Named, Patch};
use serde_json::json;

use super::{Context, NodePods};
use crate::failure::{During, Failure};
use crate::history::{self, REVISION_LABEL, number, remembers};
use crate::ownership::{claim, selector_of};
use crate::template;

pub(super) struct Revisions {
    /// The label of pods of the newest template.
    pub hash: String,
    pub old: Vec<Arc<ControllerRevision>>,
}

/// Finds the revision of the present template, or makes it; there is only one, and its number is the highest.
pub(super) async fn construct(cx: &Context, ds: &DaemonSet) -> Result<Revisions, Failure> {
    let selector = selector_of(&ds.spec.selector)?;
    let candidates = history::owned_and_orphans(&cx.revisions, ds);
    let mut all = claim(&cx.client, ds, &selector, candidates).await?;
    for revision in &mut all {
        if revision.label(REVISION_LABEL).is_none() {
            *revision = Arc::new(label(cx, revision).await?);
        }
    }
    let (current, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| remembers(r, &ds.spec.template));
    let next = old.iter().map(|r| number(r)).max().unwrap_or(0) + 1;
    let current = match current.len() {
        0 => snapshot(cx, ds, next).await?,
        _ => {
            let kept = without_duplicates(cx, ds, current).await?;
            match number(&kept) < next {
                true => history::renumber(&cx.client, &kept, next).await?,
                false => (*kept).clone(),
            }
        }
    };
    let hash = current.label(REVISION_LABEL).unwrap_or_default().to_owned();
    Ok(Revisions { hash, old })
}

/// The name is as good a label as the hash, and cannot collide.
async fn label(cx: &Context, revision: &ControllerRevision) -> Result<ControllerRevision, Failure> {
    let mut update = revision.clone();
    let name = revision.name().to_owned();
    update.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), name);
    cx.client.update(&update).await.during(|| format!("label ControllerRevision {}", revision.key()))
}

/// Keeps the one with the highest number; pods of the others become pods of that one.
async fn without_duplicates(
    cx: &Context,
    ds: &DaemonSet,
    current: Vec<Arc<ControllerRevision>>,
) -> Result<Arc<ControllerRevision>, Failure> {
    let kept = current.iter().max_by_key(|r| number(r)).expect("there is a current revision").clone();
    if current.len() == 1 {
        return Ok(kept);
    }
    let hash = kept.label(REVISION_LABEL);
    for pod in crate::pods::owned(&cx.pods, ds).iter().filter(|p| p.label(REVISION_LABEL) != hash) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {REVISION_LABEL: hash}}}));
        cx.client.patch::<Pod>(&pod.key(), &patch).await.during(|| format!("relabel pod {}", pod.key()))?;
    }
    for revision in current.iter().filter(|r| r.name() != kept.name()) {
        history::delete(&cx.client, revision).await?;
    }
    Ok(kept)
}

async fn snapshot(cx: &Context, ds: &DaemonSet, next: i64) -> Result<ControllerRevision, Failure> {
    let collisions = ds.status.as_ref().and_then(|s| s.collision_count);
    let hash = template::hash(&ds.spec.template, collisions);
    let mut revision = history::new_revision(ds, &ds.spec.template, next, 0);
    let mut labels = ds.spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_LABEL.to_owned(), hash.clone());
    revision.metadata.labels = Some(labels);
    revision.metadata.name = Some(format!("{}-{hash}", ds.name()));
    let key = revision.key();
    let step = || format!("create ControllerRevision {key}");
    let error = match cx.client.create(&revision).await {
        Err(error) if error.is_already_exists() => error,
        result => return result.during(step),
    };
    // Made by us and not in the cache yet, or of another template with the same hash.
    let found: ControllerRevision = cx.client.get(&key).await.during(|| format!("read ControllerRevision {key}"))?;
    if remembers(&found, &ds.spec.template) {
        return Ok(found);
    }
    let mut fresh: DaemonSet = cx.client.get(&ds.key()).await.during(|| format!("read DaemonSet {}", ds.key()))?;
    let status = fresh.status.get_or_insert_default();
    if status.collision_count != collisions {
        return Err(Failure::Stale(format!("the collision count of DaemonSet {} has changed meanwhile", ds.key())));
    }
    status.collision_count = Some(collisions.unwrap_or(0) + 1);
    cx.client.update_status(&fresh).await.during(|| format!("count a collision of DaemonSet {}", ds.key()))?;
    Err(error).during(step)
}

/// Deletes the oldest revisions beyond the limit that no pod is of.
pub(super) async fn clean_up(
    cx: &Context,
    ds: &DaemonSet,
    old: &[Arc<ControllerRevision>],
    pods: &NodePods,
) -> Result<(), Failure> {
    for revision in surplus(ds, old, pods) {
        history::delete(&cx.client, &revision).await?;
    }
    Ok(())
}

pub(super) fn surplus(ds: &DaemonSet, old: &[Arc<ControllerRevision>], pods: &NodePods) -> Vec<Arc<ControllerRevision>> {
    let limit = usize::try_from(ds.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let live: HashSet<&str> = pods.values().flatten().filter_map(|p| p.label(REVISION_LABEL)).collect();
    let mut old = old.to_vec();
    history::sort(&mut old);
    // Revisions in use count towards the limit, but are not deleted.
    let excess = old.len().saturating_sub(limit);
    let is_idle = |r: &Arc<ControllerRevision>| r.label(REVISION_LABEL).is_none_or(|hash| !live.contains(hash));
    old.into_iter().filter(is_idle).take(excess).collect()
}
