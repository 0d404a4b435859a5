//! Status and conditions of a Deployment.
use client::k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{Named, Next};
use jiff::{SignedDuration, Timestamp};

use super::numbers::{available, max_unavailable, replicas, wanted};
use crate::failure::Failure;
use crate::pods::until;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_RS_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

pub(super) fn has_deadline(d: &Deployment) -> bool {
    d.spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX)
}

pub(super) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_.as_deref() == Some(kind))
}

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    let now = Timestamp::from_second(now.as_second()).ok().map(Time);
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: now.clone(),
        last_transition_time: now,
    }
}

/// SetDeploymentCondition: nothing changes while status and reason stay.
fn put(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(old) = find(status, &kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &kind);
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_.as_deref() != Some(kind));
    }
}

pub(super) fn progressing(status: &mut DeploymentStatus, value: &str, reason: &str, message: String, now: Timestamp) {
    put(status, condition(PROGRESSING, value, reason, message, now));
}

/// Notes that a rollout was paused or resumed, so that the time in between is not held against its deadline.
pub(super) fn note_pause(d: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let reason = find(status, PROGRESSING).and_then(|c| c.reason.clone());
    if !has_deadline(d) || reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let (paused, noted) = (d.spec.paused == Some(true), reason.as_deref() == Some("DeploymentPaused"));
    match (paused, noted) {
        (true, false) => progressing(status, "Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), now),
        (false, true) => progressing(status, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now),
        _ => {}
    }
}

/// Counts, and the condition Available; `status` carries the conditions so far.
pub(super) fn count(
    d: &Deployment,
    all: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    status: &DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |f: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|rs| f(rs)).sum::<i32>();
    let actual = |rs: &ReplicaSet| rs.status.as_ref().map_or(0, |s| s.replicas);
    let available = sum(&|rs| available(rs));
    let mut counted = DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: Some(sum(&|rs| actual(rs))),
        updated_replicas: Some(new.map_or(0, actual)),
        ready_replicas: Some(sum(&|rs| rs.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((sum(&|rs| replicas(rs)) - available).max(0)),
        terminating_replicas: Some(sum(&|rs| rs.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0))),
        collision_count: status.collision_count,
        conditions: status.conditions.clone(),
    };
    let (value, reason, message) = match available >= wanted(d) - max_unavailable(d) {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    put(&mut counted, condition(AVAILABLE, value, reason, message.to_owned(), now));
    counted
}

pub(super) fn is_complete(d: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(wanted(d));
    status.updated_replicas.or(Some(0)) == wanted
        && status.replicas.or(Some(0)) == wanted
        && status.available_replicas.or(Some(0)) == wanted
        && status.observed_generation.unwrap_or(0) >= d.metadata.generation.unwrap_or(0)
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let older = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || older(new) < older(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn deadline(d: &Deployment, progressing: &DeploymentCondition) -> Option<Timestamp> {
    let seconds = d.spec.progress_deadline_seconds.filter(|_| has_deadline(d))?;
    progressing.last_update_time.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

fn has_timed_out(d: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(progressing) = find(status, PROGRESSING) else { return false };
    match progressing.reason.as_deref() {
        Some(NEW_RS_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => deadline(d, progressing).is_some_and(|at| at < now),
    }
}

/// syncRolloutStatus: how far the rollout is, judged against the status before; and when its deadline is due.
pub(super) fn rollout(
    d: &Deployment,
    all: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    now: Timestamp,
) -> (DeploymentStatus, Next) {
    let mut status = count(d, all, new, before, now);
    if !has_deadline(d) {
        remove(&mut status, PROGRESSING);
    }
    let current = find(before, PROGRESSING).cloned();
    let rolled_out = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(NEW_RS_AVAILABLE));
    if has_deadline(d) && !rolled_out {
        let subject = match new {
            Some(rs) => format!("ReplicaSet {:?}", rs.name()),
            None => format!("Deployment {:?}", d.name()),
        };
        if is_complete(d, &status) {
            progressing(&mut status, "True", NEW_RS_AVAILABLE, format!("{subject} has successfully progressed."), now);
        } else if has_progressed(before, &status) {
            let mut update =
                condition(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
            // The update time moves with every step, which is what the deadline counts from.
            if let Some(current) = current.filter(|c| c.status.as_deref() == Some("True")) {
                update.last_transition_time = current.last_transition_time;
            }
            remove(&mut status, PROGRESSING);
            put(&mut status, update);
        } else if has_timed_out(d, before, now) {
            progressing(&mut status, "False", TIMED_OUT, format!("{subject} has timed out progressing."), now);
        }
    }
    match replica_failure(all, new) {
        Some(failure) => put(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    let next = match find(&status, PROGRESSING) {
        Some(c) if !is_complete(d, &status) && c.reason.as_deref() != Some(TIMED_OUT) => deadline(d, c),
        _ => None,
    };
    // A second late, so that the deadline is past when it is looked at.
    let next = next.map_or(Next::Wait, |at| Next::After(until(at, now) + std::time::Duration::from_secs(1)));
    (status, next)
}

/// The failure of the newest ReplicaSet, else of any.
fn replica_failure(all: &[&ReplicaSet], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let of = |rs: &ReplicaSet| {
        let conditions = rs.status.as_ref().and_then(|s| s.conditions.as_ref())?;
        let found = conditions.iter().find(|c| c.type_.as_deref() == Some(REPLICA_FAILURE))?;
        Some(DeploymentCondition {
            type_: Some(REPLICA_FAILURE.to_owned()),
            status: found.status.clone(),
            reason: found.reason.clone(),
            message: found.message.clone(),
            last_transition_time: found.last_transition_time.clone(),
            last_update_time: found.last_transition_time.clone(),
        })
    };
    new.and_then(of).or_else(|| all.iter().find_map(|rs| of(rs)))
}

pub(super) fn create_failed(
    d: &Deployment,
    status: DeploymentStatus,
    name: &str,
    failure: &Failure,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = DeploymentStatus { conditions: status.conditions, ..d.status.clone().unwrap_or_default() };
    if has_deadline(d) {
        let why = failure.reason();
        let message = format!("Failed to create new replica set {name:?}: {why}");
        progressing(&mut status, "False", "ReplicaSetCreateError", message, now);
    }
    status
}

/// Equal, absent counts and lists read as zero and empty.
pub(super) fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let counts = |s: &DeploymentStatus| {
        [
            s.replicas,
            s.updated_replicas,
            s.ready_replicas,
            s.available_replicas,
            s.unavailable_replicas,
            s.terminating_replicas,
            s.collision_count,
        ]
        .map(|n| n.unwrap_or(0))
    };
    counts(a) == counts(b)
        && a.observed_generation.unwrap_or(0) == b.observed_generation.unwrap_or(0)
        && a.conditions.clone().unwrap_or_default() == b.conditions.clone().unwrap_or_default()
}
