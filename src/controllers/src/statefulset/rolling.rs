//! Which pods an update takes next. Models updateStatefulSetAfterInvariantEstablished of stateful_set_control.go.
use std::sync::Arc;

use client::Named;
use client::k8s_openapi::api::core::v1::Pod;

use super::identity;
use super::plan::{Planner, is_created};
use crate::intstr::scaled;
use crate::pods;

/// Rounded down, but at least one.
fn max_unavailable(planner: &Planner) -> usize {
    let strategy = planner.set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let asked = rolling.and_then(|r| r.max_unavailable.as_ref());
    let count = asked.map_or(1, |asked| scaled(Some(asked), identity::replicas(planner.set), false));
    usize::try_from(count.max(1)).unwrap_or(1)
}

pub(super) fn deletions(planner: &Planner) -> Vec<Arc<Pod>> {
    let strategy = planner.set.spec.update_strategy.as_ref();
    let partition = strategy.and_then(|s| s.rolling_update.as_ref()?.partition).unwrap_or(0);
    let partition = usize::try_from(partition).unwrap_or(0);
    let is_old = |pod: &Pod| identity::revision(pod) != planner.revisions.update.name();
    let unavailable = planner.replicas.iter().filter(|p| planner.is_unavailable(p)).count();
    let budget = max_unavailable(planner).saturating_sub(unavailable);
    // The highest ordinal first. Ended pods have been deleted by now, and what is not made yet cannot be.
    let old = || {
        let wanted = planner.replicas.iter().skip(partition).rev();
        wanted.filter(|p| is_old(p) && is_created(p) && !p.is_deleting() && !pods::is_terminated(p)).cloned()
    };
    if planner.monotonic {
        return old().take(budget).collect();
    }
    // Those that serve nobody go at once; a budget is only spent on the others.
    let (well, ill): (Vec<_>, Vec<_>) = old().partition(|p| planner.is_available(p));
    ill.into_iter().chain(well.into_iter().take(budget)).collect()
}
