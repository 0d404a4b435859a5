//! Which taints a node has to have.
use client::k8s_openapi::api::core::v1::{Node, Taint};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use super::health::condition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Keeps new pods away while a condition has the value.
const BY_CONDITION: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

fn present(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

pub(super) fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    present(node).iter().filter(|t| t.effect == NO_EXECUTE)
}

/// Whether the taint is this controller's to set and to take away.
fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        NO_SCHEDULE => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
                || BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key)
        }
        _ => false,
    }
}

/// All taints of the node: others' as they are, ours as its state asks for; known ones keep their time.
/// If no node is ready, the fault is more likely here than there, and nobody is evicted (upstream's master disruption mode).
pub(super) fn wanted(node: &Node, ready: &str, all_lost: bool, now: Timestamp) -> Vec<Taint> {
    let mut ours: Vec<(&str, &str)> = Vec::new();
    let by_ready = match ready {
        "True" => None,
        "False" | "" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    ours.extend(by_ready.map(|key| (key, NO_SCHEDULE)));
    ours.extend(by_ready.filter(|_| !all_lost && !ready.is_empty()).map(|key| (key, NO_EXECUTE)));
    for (kind, value, key) in BY_CONDITION {
        if condition(node, kind).is_some_and(|c| c.status == value) {
            ours.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        ours.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let keep = |t: &&Taint| !is_ours(t) || ours.iter().any(|(key, effect)| t.key == *key && t.effect == *effect);
    let mut taints: Vec<Taint> = present(node).iter().filter(keep).cloned().collect();
    for (key, effect) in ours {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Timestamp::from_second(now.as_second()).ok().map(Time),
            });
        }
    }
    taints
}

/// Whether pods that were safe would have to go.
pub(super) fn begins_eviction(node: &Node, wanted: &[Taint]) -> bool {
    evicting(node).filter(|t| is_ours(t)).next().is_none() && wanted.iter().any(|t| t.effect == NO_EXECUTE && is_ours(t))
}

pub(super) fn without_new_eviction(node: &Node, mut wanted: Vec<Taint>) -> Vec<Taint> {
    wanted.retain(|t| t.effect != NO_EXECUTE || present(node).contains(t));
    wanted
}
