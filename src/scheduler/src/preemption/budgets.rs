//! Which of the pods a PodDisruptionBudget protects.
use std::sync::Arc;

use client::Named;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::pod::{PodInfo, selector};

/// Those that would violate a budget, and the others; both in the order given.
pub fn split_by_budgets(pods: &[Arc<PodInfo>], budgets: &[Arc<PodDisruptionBudget>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let allowed = |b: &PodDisruptionBudget| b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or_default();
    let mut known: Vec<_> = budgets.iter().map(|b| (b, selector(b.spec.as_ref().and_then(|s| s.selector.as_ref())), allowed(b))).collect();
    let mut violates = |pod: &PodInfo| {
        if pod.labels.is_empty() {
            return false;
        }
        for (budget, selector, allowed) in &mut known {
            // A budget without selector, or with an empty one, means nothing.
            if budget.namespace() != pod.key.namespace || selector.is_empty() || !selector.matches_map(Some(&pod.labels)) {
                continue;
            }
            let disrupted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
            if disrupted.is_some_and(|d| d.contains_key(&pod.key.name)) {
                continue; // counted already
            }
            *allowed -= 1;
            if *allowed < 0 {
                return true;
            }
        }
        false
    };
    pods.iter().cloned().partition(|pod| violates(pod))
}
