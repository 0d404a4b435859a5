//! InterPodAffinity: near these pods, away from those; and the anti-affinity of pods that are placed already.
//!
//! Models pkg/scheduler/framework/plugins/interpodaffinity (filtering.go, scoring.go).
use std::collections::HashSet;

use super::{ClusterEvent, Filter, Reason, SCORE_MAX, Score, World};
use crate::cache::NodeState;
use crate::pod::{AffinityTerm, PodInfo};

pub struct InterPodAffinity;

/// Topology values in which a pod matching `term` runs.
fn domains_with<'a>(term: &AffinityTerm, world: &'a World<'a>) -> HashSet<&'a str> {
    let nodes = world.cache.nodes.values();
    let holds = |n: &&NodeState| n.pods.values().any(|p| term.matches(p, world.namespace_labels));
    nodes.filter(holds).filter_map(|n| n.labels.get(&term.topology_key).map(String::as_str)).collect()
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        !matches!(event, ClusterEvent::NodeAllocatable)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>> {
        // (topology key, value) pairs that pods placed already forbid to this one.
        let mut forbidden: HashSet<(&str, &str)> = HashSet::new();
        for node in world.cache.nodes.values() {
            for term in node.pods.values().flat_map(|p| &p.anti_affinity) {
                if let Some(value) = node.labels.get(&term.topology_key) {
                    if term.matches(pod, world.namespace_labels) {
                        forbidden.insert((&term.topology_key, value));
                    }
                }
            }
        }
        if forbidden.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return None;
        }
        let near: Vec<_> = pod.affinity.iter().map(|t| (t, domains_with(t, world))).collect();
        let away: Vec<_> = pod.anti_affinity.iter().map(|t| (t, domains_with(t, world))).collect();
        // The first pod of a group that wants its own kind near it may start anywhere.
        let first = near.iter().all(|(t, found)| found.is_empty() && t.matches(pod, world.namespace_labels));
        Some(Box::new(move |node| {
            let value = |t: &AffinityTerm| node.labels.get(&t.topology_key).map(String::as_str);
            if !near.iter().all(|(t, found)| value(t).is_some_and(|v| first || found.contains(v))) {
                return Err(vec!["node(s) didn't match pod affinity rules".into()]);
            }
            if away.iter().any(|(t, found)| value(t).is_some_and(|v| found.contains(v))) {
                return Err(vec!["node(s) didn't match pod anti-affinity rules".into()]);
            }
            if forbidden.iter().any(|(key, value)| node.labels.get(*key).is_some_and(|v| v == value)) {
                return Err(vec!["node(s) didn't satisfy existing pods anti-affinity rules".into()]);
            }
            Ok(())
        }))
    }
}

impl Score for InterPodAffinity {
    fn weight(&self) -> i64 {
        2
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let mut sums: std::collections::HashMap<(&str, &str), i64> = Default::default();
        for there in world.cache.nodes.values() {
            for other in there.pods.values() {
                let own = pod.preferred_affinity.iter().map(|(w, t)| (*w, t)).chain(pod.preferred_anti_affinity.iter().map(|(w, t)| (-*w, t)));
                let own = own.filter(|(_, t)| t.matches(other, world.namespace_labels));
                let theirs = other.preferred_affinity.iter().map(|(w, t)| (*w, t)).chain(other.preferred_anti_affinity.iter().map(|(w, t)| (-*w, t)));
                // A required affinity of a placed pod counts for one (HardPodAffinityWeight).
                let theirs = theirs.chain(other.affinity.iter().map(|t| (1, t))).filter(|(_, t)| t.matches(pod, world.namespace_labels));
                for (weight, term) in own.chain(theirs) {
                    if let Some(value) = there.labels.get(&term.topology_key) {
                        *sums.entry((term.topology_key.as_str(), value.as_str())).or_default() += i64::from(weight);
                    }
                }
            }
        }
        if sums.is_empty() {
            return None;
        }
        let total = |n: &NodeState| sums.iter().filter(|((k, v), _)| n.labels.get(*k).is_some_and(|x| x == v)).map(|(_, s)| s).sum::<i64>();
        let raw: Vec<_> = nodes.iter().map(|n| total(n)).collect();
        let (least, most) = (*raw.iter().min()?, *raw.iter().max()?);
        if least == most {
            return None;
        }
        Some(raw.iter().map(|r| SCORE_MAX * (r - least) / (most - least)).collect())
    }
}
