//! Counts of a StatefulSet. Models computeReplicaStatus, completeUpdate and stateful_set_status_updater.go.
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use client::k8s_openapi::api::core::v1::Pod;
use client::{Named, Next};
use jiff::Timestamp;

use super::identity::{replicas, revision};
use super::plan::is_created;
use super::revisions::Revisions;
use super::{Context, SLACK};
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

/// Tries to write a status that somebody else keeps changing.
const TRIES: usize = 5;

pub(super) fn count(set: &StatefulSet, pods: &[Arc<Pod>], revisions: &Revisions, now: Timestamp) -> StatefulSetStatus {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let count = |counts: &dyn Fn(&Pod) -> bool| i32::try_from(pods.iter().filter(|p| counts(p)).count()).unwrap_or(i32::MAX);
    let is_ready = |p: &Pod| pods::phase(p) == "Running" && pods::is_ready(p);
    let is_of = |p: &Pod, name: &str| is_created(p) && !p.is_deleting() && revision(p) == name;
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&is_created),
        ready_replicas: Some(count(&is_ready)),
        available_replicas: Some(count(&|p| is_ready(p) && pods::is_available(p, min_ready, now))),
        current_replicas: Some(count(&|p| is_of(p, revisions.current.name()))),
        updated_replicas: Some(count(&|p| is_of(p, revisions.update.name()))),
        current_revision: Some(revisions.current.name().to_owned()),
        update_revision: Some(revisions.update.name().to_owned()),
        collision_count: Some(revisions.collision_count),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
    }
}

/// An update under which all pods are of the new revision and ready is over.
pub(super) fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let wanted = replicas(set);
    if status.updated_replicas == Some(wanted) && status.ready_replicas == Some(wanted) && status.replicas == wanted {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
}

/// Absent counts read as zero. The collision count alone is no reason to write.
fn same(old: &StatefulSetStatus, new: &StatefulSetStatus) -> bool {
    let counts = |s: &StatefulSetStatus| {
        let optional = [s.ready_replicas, s.available_replicas, s.current_replicas, s.updated_replicas];
        (s.replicas, optional.map(|n| n.unwrap_or(0)))
    };
    let texts = |s: &StatefulSetStatus| {
        [&s.current_revision, &s.update_revision].map(|t| t.clone().unwrap_or_default())
    };
    new.observed_generation.unwrap_or(0) <= old.observed_generation.unwrap_or(0)
        && counts(old) == counts(new)
        && texts(old) == texts(new)
        && old.conditions.clone().unwrap_or_default() == new.conditions.clone().unwrap_or_default()
}

pub(super) async fn update(cx: &Context, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Failure> {
    if same(&set.status.clone().unwrap_or_default(), &status) {
        return Ok(());
    }
    let key = set.key();
    let mut update = set.clone();
    for _ in 1..TRIES {
        update.status = Some(status.clone());
        match cx.client.update_status(&update).await {
            Err(error) if error.is_conflict() => {
                update = cx.client.get(&key).await.during(|| format!("read StatefulSet {key} again"))?;
                if update.uid() != set.uid() {
                    return Ok(());
                }
            }
            result => {
                let updated = unless_gone(result).during(|| format!("update the status of StatefulSet {key}"))?;
                updated.iter().for_each(|updated| cx.writes.wrote(set, updated));
                return Ok(());
            }
        }
    }
    Err(Failure::Stale(format!("StatefulSet {key} keeps changing")))
}

/// When the next ready pod becomes available.
pub(super) fn next(set: &StatefulSet, pods: &[Arc<Pod>], now: Timestamp) -> Next {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let due = pods.iter().filter_map(|p| pods::available_at(p, min_ready)).filter(|at| *at > now).min();
    due.map_or(Next::Wait, |at| Next::After(pods::until(at, now) + SLACK))
}
