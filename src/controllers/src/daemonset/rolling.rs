//! Moves a DaemonSet's pods to its newest template, within maxUnavailable or maxSurge. Models rollingUpdate of update.go.
use std::sync::Arc;

use client::Named;
use client::k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use client::k8s_openapi::api::core::v1::{Node, Pod};
use jiff::Timestamp;

use super::NodePods;
use super::manage::Changes;
use super::nodes::{Eligibility, Fit, is_updated};
use crate::intstr::scaled;
use crate::pods;

pub(super) fn is_rolling(ds: &DaemonSet) -> bool {
    ds.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("RollingUpdate")
}

fn rolling(ds: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    ds.spec.update_strategy.as_ref().filter(|_| is_rolling(ds))?.rolling_update.as_ref()
}

fn max_surge(ds: &DaemonSet, scheduled: i32) -> i32 {
    scaled(rolling(ds).and_then(|r| r.max_surge.as_ref()), scheduled, true)
}

/// Whether a node may have more than one pod for a while.
pub(super) fn allows_surge(ds: &DaemonSet) -> bool {
    max_surge(ds, 1) > 0
}

/// The one new and the one old pod of a node; `None` where there are more, which are left to the ordinary clean-up.
fn new_and_old<'a>(ds: &DaemonSet, pods: &'a [Arc<Pod>], hash: &str) -> Option<(Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>)> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let slot = if is_updated(ds, pod, hash) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

pub(super) fn plan(ds: &DaemonSet, nodes: &[Arc<Node>], mut pods: NodePods, hash: &str, now: Timestamp) -> Changes {
    let fit = Fit::new(ds);
    let runs_on = |name: &str| nodes.iter().any(|n| n.name() == name && fit.judge(n) == Eligibility::Runs);
    let mut desired = 0;
    for node in nodes.iter().filter(|n| fit.judge(n) == Eligibility::Runs) {
        desired += 1;
        // A node without a pod counts as one whose pod is unavailable.
        pods.entry(node.name().to_owned()).or_default();
    }
    let surge = max_surge(ds, desired);
    let mut unavailable = scaled(rolling(ds).and_then(|r| r.max_unavailable.as_ref()), desired, true);
    if desired > 0 && unavailable == 0 && surge == 0 {
        // Nothing could ever move.
        unavailable = 1;
    }
    let min_ready = ds.spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| pods::is_available(pod, min_ready, now);
    match surge {
        0 => delete_first(ds, &pods, hash, unavailable, &available),
        _ => create_first(ds, &pods, hash, surge, desired, &available, &runs_on),
    }
}

fn delete_first(
    ds: &DaemonSet,
    pods: &NodePods,
    hash: &str,
    max_unavailable: i32,
    available: &dyn Fn(&Pod) -> bool,
) -> Changes {
    let (mut unavailable, mut delete, mut candidates) = (0, Vec::new(), Vec::new());
    for here in pods.values() {
        match new_and_old(ds, here, hash) {
            None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
            Some((Some(new), None)) => unavailable += i32::from(!available(new)),
            Some((None, Some(old))) if !available(old) => {
                // Replacing it takes nothing from anybody.
                delete.push(old.clone());
                unavailable += 1;
            }
            Some((None, Some(old))) => candidates.push(old.clone()),
        }
    }
    let spare = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
    delete.extend(candidates.into_iter().take(spare));
    Changes { create_on: Vec::new(), delete }
}

fn create_first(
    ds: &DaemonSet,
    pods: &NodePods,
    hash: &str,
    max_surge: i32,
    desired: i32,
    available: &dyn Fn(&Pod) -> bool,
    runs_on: &dyn Fn(&str) -> bool,
) -> Changes {
    let (mut surging, mut healthy) = (0, 0);
    let (mut delete, mut create_on) = (Vec::new(), Vec::new());
    // On nodes that have ceased to fit, and on nodes whose old pod serves well.
    let (mut strayed, mut candidates) = (Vec::new(), Vec::new());
    for (node, here) in pods {
        let Some((new, old)) = new_and_old(ds, here, hash) else {
            surging += 1;
            continue;
        };
        healthy += i32::from(old.or(new).is_some_and(|p| available(p)));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) => match (available(old), runs_on(node)) {
                (false, false) => delete.push(old.clone()),
                (false, true) => create_on.push(node.clone()),
                (true, false) => strayed.push(old.clone()),
                (true, true) => candidates.push(node.clone()),
            },
            (Some(new), Some(_)) if !available(new) => surging += 1,
            (Some(_), Some(old)) => delete.push(old.clone()),
        }
    }
    // Who surges expects all to be served: a pod on a node that ceased to fit goes when another has taken its place.
    let spare = usize::try_from(healthy - desired).unwrap_or(0);
    delete.extend(strayed.into_iter().take(spare));
    let room = usize::try_from(max_surge - surging).unwrap_or(0);
    create_on.extend(candidates.into_iter().take(room));
    Changes { create_on, delete }
}
