//! NodeAffinity: the pod's nodeSelector and required node terms filter, its preferred terms score.
//!
//! Models pkg/scheduler/framework/plugins/nodeaffinity and component-helpers/scheduling/corev1/nodeaffinity.
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use super::{ClusterEvent, Filter, Reason, Score, World, normalize};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct NodeAffinity;

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let within = |v: &str| values.iter().any(|x| x == v);
    let compare = |ok: fn(i64, i64) -> bool| {
        let limit = values.first().and_then(|v| v.parse::<i64>().ok());
        value.and_then(|v| v.parse::<i64>().ok()).zip(limit).is_some_and(|(v, l)| ok(v, l))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(within),
        "NotIn" => !value.is_some_and(within),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|v, l| v > l),
        "Lt" => compare(|v, l| v < l),
        _ => false,
    }
}

/// All requirements of a term hold; an empty term matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeState) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    expressions.iter().all(|r| requirement_matches(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, field(&r.key)))
}

/// One of the terms holds.
pub fn selector_matches(selector: &NodeSelector, node: &NodeState) -> bool {
    selector.node_selector_terms.iter().any(|t| term_matches(t, node))
}

/// Whether the node is one of those that the pod's selector and required terms allow.
pub fn allows(pod: &PodInfo, node: &NodeState) -> bool {
    pod.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
        && pod.required_nodes.as_ref().is_none_or(|s| selector_matches(s, node))
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
        let total = |n: &NodeState| pod.preferred_nodes.iter().filter(|t| term_matches(&t.preference, n)).map(|t| i64::from(t.weight)).sum();
        let mut scores: Vec<i64> = nodes.iter().map(|n| total(n)).collect();
        normalize(&mut scores, false);
        Some(scores)
    }
}
