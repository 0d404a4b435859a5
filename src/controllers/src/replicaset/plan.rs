//! The decisions of the ReplicaSet controller.
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::Next;
use jiff::Timestamp;

use super::SLACK;
use crate::failure::Failure;
use crate::pods;

#[derive(Debug)]
pub(super) enum Action {
    None,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

fn replicas(rs: &ReplicaSet) -> usize {
    usize::try_from(rs.spec.replicas.unwrap_or(1)).unwrap_or(0)
}

/// Decides what to do; does nothing. Deletes the pods upstream would delete first.
pub(super) fn plan(rs: &ReplicaSet, active: &[Arc<Pod>], related: &[Arc<Pod>], may_act: bool, now: Timestamp) -> Action {
    let wanted = replicas(rs);
    match active.len() {
        _ if !may_act => Action::None,
        have if have < wanted => Action::Create(wanted - have),
        have if have > wanted => Action::Delete(pods::choose_deletions(active, related, have - wanted, now)),
        _ => Action::None,
    }
}

/// The status, and when it will next change by the passing of time alone.
pub(super) fn status(
    rs: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Next) {
    let min_ready = rs.spec.min_ready_seconds.unwrap_or(0);
    let template_labels = rs.spec.template.as_ref().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    let fully_labeled = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.as_ref();
        template_labels.into_iter().flatten().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let old = rs.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(fully_labeled).count())),
        ready_replicas: Some(count(active.iter().filter(|p| pods::is_ready(p)).count())),
        available_replicas: Some(count(active.iter().filter(|p| pods::is_available(p, min_ready, now)).count())),
        terminating_replicas: Some(count(terminating)),
        observed_generation: rs.metadata.generation,
        conditions: conditions(old.conditions.unwrap_or_default(), active.len(), replicas(rs), failure, now),
    };
    // The next pod that becomes available.
    let due = active.iter().filter_map(|p| pods::available_at(p, min_ready)).filter(|at| *at > now).min();
    (status, due.map_or(Next::Wait, |at| Next::After(pods::until(at, now) + SLACK)))
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    have: usize,
    wanted: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = conditions.iter().any(|c| c.type_.as_deref() == Some("ReplicaFailure"));
    match failure {
        Some(failure) if !known => {
            let reason = match have.cmp(&wanted) {
                std::cmp::Ordering::Less => Some("FailedCreate"),
                std::cmp::Ordering::Greater => Some("FailedDelete"),
                std::cmp::Ordering::Equal => None,
            };
            let message = failure.reason();
            conditions.push(ReplicaSetCondition {
                type_: Some("ReplicaFailure".to_owned()),
                status: Some("True".to_owned()),
                reason: reason.map(str::to_owned),
                message: Some(message),
                last_transition_time: Timestamp::from_second(now.as_second()).ok().map(Time),
            });
        }
        None => conditions.retain(|c| c.type_.as_deref() != Some("ReplicaFailure")),
        Some(_) => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// Equal, absent counts and lists read as zero and empty.
pub(super) fn same(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let counts = |s: &ReplicaSetStatus| {
        let optional = [s.fully_labeled_replicas, s.ready_replicas, s.available_replicas, s.terminating_replicas];
        (s.replicas, optional.map(|n| n.unwrap_or(0)), s.observed_generation.unwrap_or(0))
    };
    let conditions = |s: &ReplicaSetStatus| s.conditions.clone().unwrap_or_default();
    counts(a) == counts(b) && conditions(a) == conditions(b)
}
