//! Counts of a DaemonSet. Models updateDaemonSetStatus of daemon_controller.go.
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use client::k8s_openapi::api::core::v1::Node;
use client::{Named, Next};
use jiff::Timestamp;

use super::nodes::{Eligibility, Fit, is_updated};
use super::{Context, NodePods, manage, pods_by_node};
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

/// Wakes a little late rather than a little early.
const SLACK: Duration = Duration::from_millis(20);

pub(super) fn count(
    ds: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &NodePods,
    hash: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> (DaemonSetStatus, Next) {
    let old = ds.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..Default::default()
    };
    let (fit, min_ready) = (Fit::new(ds), ds.spec.min_ready_seconds.unwrap_or(0));
    let (mut updated, mut available, mut due) = (0, 0, None::<Timestamp>);
    for node in nodes {
        let mut here = pods.get(node.name()).cloned().unwrap_or_default();
        if fit.judge(node) != Eligibility::Runs {
            status.number_misscheduled += i32::from(!here.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        manage::sort(&mut here);
        let Some(pod) = here.first() else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::is_available(pod, min_ready, now));
        updated += i32::from(is_updated(ds, pod, hash));
        // Any pod of the node may be the one that a rollout waits for.
        let upcoming = here.iter().filter_map(|p| pods::available_at(p, min_ready)).filter(|at| *at > now).min();
        due = due.into_iter().chain(upcoming).min();
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    (status, due.map_or(Next::Wait, |at| Next::After(pods::until(at, now) + SLACK)))
}

/// Absent counts read as zero.
fn same(a: &DaemonSetStatus, b: &DaemonSetStatus) -> bool {
    let counts = |s: &DaemonSetStatus| {
        let plain = [s.current_number_scheduled, s.desired_number_scheduled, s.number_misscheduled, s.number_ready];
        let optional = [s.number_available, s.number_unavailable, s.updated_number_scheduled].map(|n| n.unwrap_or(0));
        (plain, optional, s.observed_generation.unwrap_or(0))
    };
    counts(a) == counts(b)
}

/// Writes the counts where they have changed; `generation` is the newest one that has been acted on.
pub(super) async fn update(
    cx: &Context,
    ds: &DaemonSet,
    hash: &str,
    generation: Option<i64>,
) -> Result<Next, Failure> {
    let pods = pods_by_node(cx, ds, false).await?;
    let (status, next) = count(ds, &cx.nodes.list(), &pods, hash, generation, cx.clock.now());
    if same(&ds.status.clone().unwrap_or_default(), &status) {
        return Ok(next);
    }
    let key = ds.key();
    let step = || format!("update the status of DaemonSet {key}");
    let update = DaemonSet { status: Some(status.clone()), ..ds.clone() };
    let result = match cx.client.update_status(&update).await {
        // One more try on the newest version, as upstream's StatusUpdateRetries.
        Err(error) if error.is_conflict() => {
            let mut fresh: DaemonSet = cx.client.get(&key).await.during(|| format!("read DaemonSet {key} again"))?;
            if fresh.uid() != ds.uid() {
                return Ok(next);
            }
            let kept = fresh.status.take().unwrap_or_default();
            fresh.status = Some(DaemonSetStatus {
                collision_count: kept.collision_count,
                conditions: kept.conditions,
                ..status
            });
            cx.client.update_status(&fresh).await
        }
        result => result,
    };
    unless_gone(result).during(step)?;
    Ok(next)
}
