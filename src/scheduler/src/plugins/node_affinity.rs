//! NodeAffinity: the pod's nodeSelector and required node terms filter, its preferred terms score.
//!
//! Models pkg/scheduler/framework/plugins/nodeaffinity, v1.37.
use std::collections::BTreeSet;

use api::selector::{node_is_allowed, node_term_matches};
use k8s_openapi::api::core::v1::{NodeSelector, PreferredSchedulingTerm};

use super::{Filter, Prepared, Refusal, Score, World, check, normalize};
use crate::cache::{NodeFacts, NodeState};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::PodInfo;

/// What the configuration adds to every pod's affinity (NodeAffinityArgs).
#[derive(Default)]
pub struct NodeAffinity {
    pub added_required: Option<NodeSelector>,
    pub added_preferred: Vec<PreferredSchedulingTerm>,
}

/// One of the terms holds.
pub fn selector_matches(selector: &NodeSelector, node: &NodeFacts) -> bool {
    selector.node_selector_terms.iter().any(|t| node_term_matches(t, &node.name, &node.labels))
}

/// Whether the node is one of those that the pod's selector and required terms allow.
pub fn allows(pod: &PodInfo, node: &NodeFacts) -> bool {
    node_is_allowed(Some(&pod.node_selector), pod.required_nodes.as_ref(), &node.name, &node.labels)
}

/// The nodes that the pod names, where every term names some.
fn named(required: &NodeSelector) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for term in &required.node_selector_terms {
        let requirements = term.match_fields.iter().flatten().filter(|r| r.key == "metadata.name" && r.operator == "In");
        let mut sets = requirements.map(|r| r.values.iter().flatten().cloned().collect::<BTreeSet<_>>());
        let first = sets.next()?;
        all.extend(sets.fold(first, |a, b| a.intersection(&b).cloned().collect()));
    }
    (!required.node_selector_terms.is_empty()).then_some(all)
}

impl NodeAffinity {
    fn enforced(&self, node: &NodeFacts) -> bool {
        self.added_required.as_ref().is_none_or(|s| selector_matches(s, node))
    }
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
    fn events(&self) -> u32 {
        bits::NODE_ADD | bits::NODE_LABEL
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Node { old, new: Some(new) } => {
                self.enforced(new) && allows(pod, new) && old.is_none_or(|old| !allows(pod, old) || !self.enforced(old))
            }
            _ => true,
        }
    }
    fn sees_node_only(&self, _: &PodInfo) -> bool {
        true
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        if pod.node_selector.is_empty() && pod.required_nodes.is_none() && self.added_required.is_none() {
            return Prepared::Skip;
        }
        let answers = check(|node| {
            if !self.enforced(node) {
                return Err(Refusal::unresolvable("node(s) didn't match scheduler-enforced node affinity"));
            }
            match allows(pod, node) {
                true => Ok(()),
                false => Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector")),
            }
        });
        match pod.required_nodes.as_ref().and_then(named) {
            Some(names) if names.is_empty() => Prepared::Refused(Refusal::unresolvable("pod affinity terms conflict")),
            Some(names) => Prepared::Only(names, answers),
            None => Prepared::Check(answers),
        }
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
    fn has_a_say(&self, pod: &PodInfo, _: &World) -> bool {
        !pod.preferred_nodes.is_empty() || !self.added_preferred.is_empty()
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        let terms = || pod.preferred_nodes.iter().chain(&self.added_preferred);
        terms().next()?;
        let total = |n: &NodeState| terms().filter(|t| node_term_matches(&t.preference, &n.name, &n.labels)).map(|t| i64::from(t.weight)).sum();
        let mut scores: Vec<i64> = nodes.iter().map(|n| total(n)).collect();
        normalize(&mut scores, false);
        Some(scores)
    }
}
