//! NodeResourcesBalancedAllocation: a node whose resources the pod brings nearer to one share is better.
//!
//! Models pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go, v1.37.
use super::fit::{allocation, wanted};
use super::{SCORE_MAX, Score, World};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct NodeResourcesBalancedAllocation {
    pub resources: Vec<(String, i64)>,
}

/// How even the shares are: 100 where all are the same.
fn evenness(shares: &[f64]) -> i64 {
    let deviation = match shares {
        [a, b] => ((a - b) / 2.0).abs(),
        [] | [_] => 0.0,
        _ => {
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            (shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / shares.len() as f64).sqrt()
        }
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}

impl Score for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
    fn sees_node_only(&self) -> bool {
        true
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        if self.resources.iter().all(|(name, _)| pod.requests.get(name) == 0) {
            return None; // a best-effort pod balances nothing
        }
        let resources = wanted(pod, &self.resources, false);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut one = |node: &NodeState| {
            before.clear();
            after.clear();
            allocation(node, &resources, |_, taken, with_pod, of| {
                let share = |amount: i64| (amount as f64 / of as f64).min(1.0);
                before.push(share(taken));
                after.push(share(with_pod));
            });
            SCORE_MAX / 2 + (SCORE_MAX / 2 + evenness(&after) - evenness(&before)) / 2
        };
        Some(nodes.iter().map(|n| one(n)).collect())
    }
}
