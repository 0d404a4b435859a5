//! Whether a pod fits beside the others, and who is asked first. Pure.
//!
//! Models pkg/scheduler/framework/plugins/noderesources/fit.go as the kubelet calls it (pkg/kubelet/lifecycle/predicate.go), and
//! sortPendingResizes of pkg/kubelet/allocation/allocation_manager.go, v1.37.

use std::cmp::Reverse;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::resources::{Qos, qos, totals};

/// What can be resized, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Memory,
    Cpu,
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

/// What the node has to give.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    pub pods: i64,
}

/// What one pod takes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    cpu_milli: i64,
    memory_bytes: i64,
    storage_bytes: i64,
}

impl Demand {
    /// `actuated`: what it still has, where that is more.
    pub fn new(pod: &Pod, actuated: Option<&Pod>) -> Self {
        let of = |name: &str| {
            let now = actuated.and_then(|a| totals::request(a, name)).unwrap_or(0);
            totals::request(pod, name).unwrap_or(0).max(now)
        };
        Self { cpu_milli: of("cpu"), memory_bytes: of("memory"), storage_bytes: of("ephemeral-storage") }
    }

    pub fn shrank(&self, before: &Self) -> bool {
        self.cpu_milli < before.cpu_milli || self.memory_bytes < before.memory_bytes
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub resource: &'static str,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, requested, used, capacity } = self;
        write!(f, "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}")
    }
}

/// The first resource of which there is not enough.
pub fn shortage(pod: &Demand, others: &[Demand], node: &Capacity) -> Option<Shortage> {
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > node.pods {
        return Some(Shortage { resource: "pods", requested: 1, used: count, capacity: node.pods });
    }
    type Field = fn(&Demand) -> i64;
    let parts: [(&'static str, i64, Field); 3] = [
        ("cpu", node.cpu_milli, |d| d.cpu_milli),
        ("memory", node.memory_bytes, |d| d.memory_bytes),
        ("ephemeral-storage", node.storage_bytes, |d| d.storage_bytes),
    ];
    parts.into_iter().find_map(|(resource, capacity, of)| {
        let (requested, used) = (of(pod), others.iter().map(of).sum::<i64>());
        (requested > 0 && requested > capacity - used).then_some(Shortage { resource, requested, used, capacity })
    })
}

/// Smaller goes first: who asks for no more, then priority, then the better class, then who has waited longest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    grows: bool,
    priority: Reverse<i32>,
    lower_class: bool,
    since: Timestamp,
}

impl Rank {
    pub fn new(wanted: &Pod, allocated: &Pod, pending_since: Option<Timestamp>) -> Self {
        let (new, old) = (Demand::new(wanted, None), Demand::new(allocated, None));
        Self {
            grows: old.shrank(&new),
            priority: Reverse(wanted.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)),
            lower_class: qos(wanted) != Qos::Guaranteed,
            // Who has not been judged yet is the newest.
            since: pending_since.unwrap_or(Timestamp::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(requests: Value, limits: Value, priority: i32) -> Pod {
        let container = json!({"name": "a", "resources": {"requests": requests, "limits": limits}});
        serde_json::from_value(json!({"metadata": {}, "spec": {"priority": priority, "containers": [container]}})).expect("a pod")
    }

    fn asks(requests: Value) -> Demand {
        Demand::new(&pod(requests, json!({}), 0), None)
    }

    #[track_caller]
    fn check(requests: Value, expect: Option<&str>) {
        let node = Capacity { cpu_milli: 2000, memory_bytes: 1 << 30, storage_bytes: 1000, pods: 3 };
        let others = [asks(json!({"cpu": "1", "memory": "512Mi"}))];
        assert_eq!(shortage(&asks(requests), &others, &node).map(|s| s.to_string()).as_deref(), expect);
    }

    #[test]
    fn what_is_left_is_what_others_have_not() {
        check(json!({"cpu": "1", "memory": "512Mi"}), None);
        check(json!({"cpu": "1001m"}), Some("Node didn't have enough resource: cpu, requested: 1001, used: 1000, capacity: 2000"));
        check(json!({"memory": "513Mi"}), Some("Node didn't have enough resource: memory, requested: 537919488, used: 536870912, capacity: 1073741824"));
        check(json!({}), None);
        let full = Capacity { cpu_milli: 0, memory_bytes: 0, storage_bytes: 0, pods: 1 };
        assert_eq!(shortage(&Demand::default(), &[Demand::default()], &full).map(|s| s.resource), Some("pods"));
        // Nothing asked is nothing lacking, however full the node.
        assert_eq!(shortage(&Demand::default(), &[], &full), None);
    }

    #[test]
    fn what_is_still_held_counts() {
        let small = pod(json!({"cpu": "1"}), json!({}), 0);
        let large = pod(json!({"cpu": "2"}), json!({}), 0);
        let both = Demand::new(&small, Some(&large));
        assert_eq!(both.cpu_milli, 2000);
        assert!(Demand::new(&small, None).shrank(&both) && !both.shrank(&both));
    }

    #[test]
    fn urgent_resizes_go_first() {
        let small = pod(json!({"cpu": "1"}), json!({}), 0);
        let at = |seconds: i64| Timestamp::from_second(seconds).ok();
        let rank = |cpu: &str, priority: i32, since| Rank::new(&pod(json!({"cpu": cpu}), json!({}), priority), &small, since);
        let guaranteed = pod(json!({"cpu": "2", "memory": "1"}), json!({"cpu": "2", "memory": "1"}), 5);
        let mut ranks = vec![
            ("newest", rank("2", 0, None)),
            ("second", rank("2", 0, at(20))),
            ("first", rank("2", 0, at(10))),
            ("important", rank("2", 5, None)),
            ("important and guaranteed", Rank::new(&guaranteed, &small, None)),
            ("shrinks", rank("500m", -5, None)),
        ];
        ranks.sort_by(|a, b| a.1.cmp(&b.1));
        let names: Vec<&str> = ranks.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["shrinks", "important and guaranteed", "important", "first", "second", "newest"]);
    }
}
