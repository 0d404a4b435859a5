//! NodeResourcesFit (filter, and LeastAllocated as score) and NodeResourcesBalancedAllocation.
//!
//! Models pkg/scheduler/framework/plugins/noderesources: fit.go, least_allocated.go, balanced_allocation.go.
use super::{ClusterEvent, Filter, Reason, SCORE_MAX, Score, World};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct NodeResourcesFit;

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeAllocatable | ClusterEvent::PodRemoved | ClusterEvent::PodUpdated)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>> {
        Some(Box::new(|node| {
            let mut reasons = Vec::new();
            if node.pods.len() as i64 + 1 > node.allocatable("pods") {
                reasons.push("Too many pods".to_owned());
            }
            for (name, wanted) in pod.requests.iter().filter(|(_, wanted)| **wanted > 0) {
                if *wanted > node.allocatable(name) - node.requested(name) {
                    reasons.push(format!("Insufficient {name}"));
                }
            }
            if reasons.is_empty() { Ok(()) } else { Err(reasons) }
        }))
    }
}

/// CPU and memory of the node with this pod on it, as (requested, allocatable).
fn after(pod: &PodInfo, node: &NodeState) -> [(i64, i64); 2] {
    [
        (node.scoring_milli_cpu + pod.scoring_milli_cpu, node.allocatable("cpu")),
        (node.scoring_memory_bytes + pod.scoring_memory_bytes, node.allocatable("memory")),
    ]
}

impl Score for NodeResourcesFit {
    fn weight(&self) -> i64 {
        1
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        let free = |(requested, allocatable): (i64, i64)| match allocatable {
            a if a <= 0 || requested > a => 0,
            a => ((i128::from(a - requested) * i128::from(SCORE_MAX)) / i128::from(a)) as i64,
        };
        Some(nodes.iter().map(|n| after(pod, n).into_iter().map(free).sum::<i64>() / 2).collect())
    }
}

pub struct NodeResourcesBalancedAllocation;

impl Score for NodeResourcesBalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        if pod.requests.is_empty() {
            return None; // a best-effort pod balances nothing
        }
        let share = |(requested, allocatable): (i64, i64)| if allocatable <= 0 { 1.0 } else { (requested as f64 / allocatable as f64).min(1.0) };
        let score = |n: &NodeState| {
            let [cpu, memory] = after(pod, n).map(share);
            // The standard deviation of two values is half their distance.
            ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64
        };
        Some(nodes.iter().map(|n| score(n)).collect())
    }
}
