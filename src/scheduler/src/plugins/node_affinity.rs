//! NodeAffinity: the pod's nodeSelector and required node terms filter, its preferred terms score.
//!
//! Models pkg/scheduler/framework/plugins/nodeaffinity.
use api::selector::{node_is_allowed, node_term_matches};
use k8s_openapi::api::core::v1::NodeSelector;

use super::{ClusterEvent, Filter, Reason, Score, World, normalize};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct NodeAffinity;

/// One of the terms holds.
pub fn selector_matches(selector: &NodeSelector, node: &NodeState) -> bool {
    selector.node_selector_terms.iter().any(|t| node_term_matches(t, &node.name, &node.labels))
}

/// Whether the node is one of those that the pod's selector and required terms allow.
pub fn allows(pod: &PodInfo, node: &NodeState) -> bool {
    node_is_allowed(Some(&pod.node_selector), pod.required_nodes.as_ref(), &node.name, &node.labels)
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeLabels)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>> {
        if pod.node_selector.is_empty() && pod.required_nodes.is_none() {
            return None;
        }
        Some(Box::new(|node| match allows(pod, node) {
            true => Ok(()),
            false => Err(vec!["node(s) didn't match Pod's node affinity/selector".into()]),
        }))
    }
}

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        if pod.preferred_nodes.is_empty() {
            return None;
        }
        let total = |n: &NodeState| pod.preferred_nodes.iter().filter(|t| node_term_matches(&t.preference, &n.name, &n.labels)).map(|t| i64::from(t.weight)).sum();
        let mut scores: Vec<i64> = nodes.iter().map(|n| total(n)).collect();
        normalize(&mut scores, false);
        Some(scores)
    }
}
