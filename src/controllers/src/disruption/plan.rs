//! The status of a budget. Models getExpectedPodCount, countHealthyPods, buildDisruptedPodMap and updatePdbStatus.
use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use client::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use client::{Named, Next};
use jiff::{SignedDuration, Timestamp};

use crate::intstr::scaled;
use crate::pods;

/// After so long an eviction that deleted nothing is forgotten.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

pub(super) struct Plan {
    pub status: PodDisruptionBudgetStatus,
    /// Pods whose eviction was allowed but that are still there.
    pub lost: Vec<Arc<Pod>>,
    pub next: Next,
}

/// Whether the budget is a share of what the pods' owners ask for; otherwise it is a plain number of pods.
pub(super) fn counts_owners(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|s| s.max_unavailable.is_some() || matches!(s.min_available, Some(IntOrString::String(_))))
}

/// (expected pods, healthy ones wanted); `scale` is what the owners ask for.
fn counts(budget: &PodDisruptionBudget, pods: usize, scale: i32) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => (scale, (scale - scaled(Some(max), scale, true)).max(0)),
        (None, Some(IntOrString::Int(min))) => (i32::try_from(pods).unwrap_or(i32::MAX), *min),
        (None, Some(percent)) => (scale, scaled(Some(percent), scale, true)),
        (None, None) => (0, 0),
    }
}

pub(super) fn plan(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: i32, now: Timestamp) -> Plan {
    let old = budget.status.clone().unwrap_or_default();
    let evicted = old.disrupted_pods.clone().unwrap_or_default();
    let deadline = |since: &Time| since.0.saturating_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
    let (mut disrupted, mut lost, mut recheck) = (BTreeMap::new(), Vec::new(), None::<Timestamp>);
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let Some(since) = evicted.get(pod.name()) else { continue };
        if deadline(since) < now {
            lost.push(pod.clone());
        } else {
            recheck = recheck.into_iter().chain([deadline(since)]).min();
            disrupted.insert(pod.name().to_owned(), since.clone());
        }
    }
    let is_going = |pod: &Pod| pod.is_deleting() || disrupted.get(pod.name()).is_some_and(|s| deadline(s) > now);
    let healthy = pods.iter().filter(|p| !is_going(p) && pods::is_ready(p)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let (expected, desired) = counts(budget, pods.len(), scale);
    // Without expected pods nothing is allowed: the first ones may come before they are counted.
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_allowed(&mut status, value, reason, "", now);
    Plan { status, lost, next: recheck.map_or(Next::Wait, |at| Next::After(pods::until(at, now))) }
}

/// Nothing may be disrupted while the budget cannot be counted.
pub(super) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_allowed(&mut status, "False", "SyncFailed", why, now);
    status
}

fn set_allowed(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|c| c.type_ == ALLOWED).map(|i| conditions.remove(i));
    let since = old.filter(|c| c.status == value).map(|c| c.last_transition_time);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    });
}

/// Equal, absent counts and lists read as zero and empty.
pub(super) fn same(a: &PodDisruptionBudgetStatus, b: &PodDisruptionBudgetStatus) -> bool {
    let counts = |s: &PodDisruptionBudgetStatus| {
        [s.current_healthy, s.desired_healthy, s.expected_pods, s.disruptions_allowed].map(|n| n.unwrap_or(0))
    };
    counts(a) == counts(b)
        && a.observed_generation.unwrap_or(0) == b.observed_generation.unwrap_or(0)
        && a.disrupted_pods.clone().unwrap_or_default() == b.disrupted_pods.clone().unwrap_or_default()
        && a.conditions.clone().unwrap_or_default() == b.conditions.clone().unwrap_or_default()
}
