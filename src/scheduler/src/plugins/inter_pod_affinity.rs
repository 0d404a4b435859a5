//! InterPodAffinity: near these pods, away from those; and the anti-affinity of pods that are placed already.
//!
//! Models pkg/scheduler/framework/plugins/interpodaffinity (plugin.go, filtering.go, scoring.go), v1.37. Terms that placed pods hold
//! are looked at once each, not once for each pod ([`crate::cache::Terms`]).
use std::collections::HashMap;
use std::sync::Arc;

use super::{Filter, NodeCheck, Prepared, Refusal, SCORE_MAX, Score, Verdict, World};
use crate::cache::{Counted, NodeState};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::{AffinityTerm, NamespaceLabels, PodInfo};

pub struct InterPodAffinity {
    /// What a required affinity of a placed pod counts for in the score.
    pub hard_weight: i64,
    pub ignore_preferred_of_placed: bool,
}

/// Pods by topology value.
type Domains = HashMap<String, i64>;

fn add(domains: &mut Domains, node: &NodeState, key: &str, by: i64) {
    let Some(value) = node.labels.get(key) else { return };
    match domains.get_mut(value) {
        Some(count) => {
            *count += by;
            if *count == 0 {
                domains.remove(value);
            }
        }
        None => {
            domains.insert(value.clone(), by);
        }
    }
}

fn matches_all(terms: &[Arc<AffinityTerm>], pod: &PodInfo, labels: &NamespaceLabels) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(pod, labels))
}

/// Where pods that `terms` mean all at once are, for each term.
fn near(terms: &[Arc<AffinityTerm>], world: &World) -> Vec<Domains> {
    let mut found = vec![Domains::new(); terms.len()];
    if let [term] = terms {
        found[0] = matching(term, world);
        return found;
    }
    for node in world.cache.nodes() {
        let count = node.pods.iter().filter(|p| matches_all(terms, p, world.namespace_labels)).count() as i64;
        if count > 0 {
            terms.iter().zip(&mut found).for_each(|(t, domains)| add(domains, node, &t.topology_key, count));
        }
    }
    found
}

fn matching(term: &AffinityTerm, world: &World) -> Domains {
    let mut domains = Domains::new();
    let counts = term.is_plain().then(|| world.cache.counts(&Counted::term(term)));
    for node in world.cache.nodes() {
        let count = match &counts {
            Some(counts) => i64::from(counts[node.slot]),
            None => node.pods.iter().filter(|p| term.matches(p, world.namespace_labels)).count() as i64,
        };
        if count > 0 {
            add(&mut domains, node, &term.topology_key, count);
        }
    }
    domains
}

#[derive(Clone)]
struct Check<'a> {
    pod: &'a PodInfo,
    labels: &'a NamespaceLabels<'a>,
    near: Vec<Domains>,
    away: Vec<Domains>,
    /// Where placed pods forbid this one, by topology key.
    forbidden: HashMap<Arc<str>, Domains>,
    /// The pod is of the kind that it wants near it, and may start where there is none yet.
    may_be_first: bool,
}

impl Check<'_> {
    fn change(&mut self, other: &PodInfo, node: &NodeState, by: i64) {
        for term in other.anti_affinity.iter().filter(|t| t.matches(self.pod, self.labels)) {
            add(self.forbidden.entry(term.topology_key.clone()).or_default(), node, &term.topology_key, by);
        }
        if matches_all(&self.pod.affinity, other, self.labels) {
            self.pod.affinity.iter().zip(&mut self.near).for_each(|(t, domains)| add(domains, node, &t.topology_key, by));
        }
        for (term, domains) in self.pod.anti_affinity.iter().zip(&mut self.away) {
            if term.matches(other, self.labels) {
                add(domains, node, &term.topology_key, by);
            }
        }
    }
}

fn has(domains: &Domains, node: &NodeState, key: &str) -> bool {
    node.labels.get(key).and_then(|v| domains.get(v)).is_some_and(|count| *count > 0)
}

impl<'a> NodeCheck<'a> for Check<'a> {
    fn check(&self, node: &NodeState) -> Verdict {
        let refused = || Err(Refusal::unresolvable("node(s) didn't match pod affinity rules"));
        let terms = &self.pod.affinity;
        if !terms.iter().all(|t| node.labels.contains_key(&*t.topology_key)) {
            return refused();
        }
        if !terms.iter().zip(&self.near).all(|(t, domains)| has(domains, node, &t.topology_key)) {
            let is_first = self.may_be_first && self.near.iter().all(Domains::is_empty);
            if !is_first {
                return refused();
            }
        }
        if self.pod.anti_affinity.iter().zip(&self.away).any(|(t, domains)| has(domains, node, &t.topology_key)) {
            return Err(Refusal::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        if self.forbidden.iter().any(|(key, domains)| has(domains, node, key)) {
            return Err(Refusal::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
    fn with(&mut self, pod: &PodInfo, node: &NodeState) {
        self.change(pod, node, 1);
    }
    fn without(&mut self, pod: &PodInfo, node: &NodeState) {
        self.change(pod, node, -1);
    }
    fn duplicate(&self) -> Box<dyn NodeCheck<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
    fn events(&self) -> u32 {
        bits::POD_ADD | bits::POD_LABEL | bits::POD_DELETE | bits::TARGET_LABEL | bits::NODE_ADD | bits::NODE_LABEL
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        // Labels of namespaces are not at hand here; a term that selects by them is taken as matching.
        let maybe = |term: &AffinityTerm, other: &PodInfo| {
            (!term.is_plain() || term.namespaces.contains(&other.key.namespace)) && term.selector.matches_map(Some(&other.labels))
        };
        let all = |other: &PodInfo| !pod.affinity.is_empty() && pod.affinity.iter().all(|t| maybe(t, other));
        let any_away = |other: &PodInfo| pod.anti_affinity.iter().any(|t| maybe(t, other));
        match event.change {
            Change::Pod { old: Some(old), new: Some(new) } => !all(old) && all(new) || any_away(old) && !any_away(new),
            Change::Pod { old: None, new: Some(new) } => all(new),
            Change::Pod { old: Some(old), new: None } => any_away(old) || old.anti_affinity.iter().any(|t| maybe(t, pod)),
            Change::Node { old, new: Some(new) } => {
                let before = |key: &str| old.and_then(|o| o.labels.get(key));
                let near = |t: &Arc<AffinityTerm>| {
                    let after = new.labels.get(&*t.topology_key);
                    after.is_some() && before(&t.topology_key) != after
                };
                let away = |t: &Arc<AffinityTerm>| {
                    old.is_none() || before(&t.topology_key).is_some() && before(&t.topology_key) != new.labels.get(&*t.topology_key)
                };
                pod.affinity.iter().any(near) || pod.anti_affinity.iter().any(away)
            }
            _ => true,
        }
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        let labels = world.namespace_labels;
        let mut forbidden: HashMap<Arc<str>, Domains> = HashMap::new();
        for held in world.cache.terms().required_away().filter(|held| held.term.matches(pod, labels)) {
            let domains = forbidden.entry(held.term.topology_key.clone()).or_default();
            for (slot, pods) in &held.nodes {
                if let Some(node) = world.cache.in_slot(*slot) {
                    add(domains, node, &held.term.topology_key, *pods);
                }
            }
        }
        // Preemption and nominated pods bring terms that nobody holds yet, so that only a pod without any part in this is let go.
        if forbidden.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return Prepared::Skip;
        }
        let away = pod.anti_affinity.iter().map(|t| matching(t, world)).collect();
        let may_be_first = matches_all(&pod.affinity, pod, labels);
        Prepared::Check(Box::new(Check { pod, labels, near: near(&pod.affinity, world), away, forbidden, may_be_first }))
    }
}

/// Weights by topology key and value.
#[derive(Default)]
struct Sums<'a>(HashMap<&'a str, HashMap<&'a str, i64>>);

impl<'a> Sums<'a> {
    fn add(&mut self, key: &'a str, node: &'a NodeState, weight: i64) {
        if let Some(value) = node.labels.get(key) {
            *self.0.entry(key).or_default().entry(value).or_default() += weight;
        }
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let has_own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
        if self.ignore_preferred_of_placed && !has_own {
            return None;
        }
        let (cache, labels) = (world.cache, world.namespace_labels);
        let mut sums = Sums::default();
        let own = pod.preferred_affinity.iter().map(|(w, t)| (i64::from(*w), t));
        for (weight, term) in own.chain(pod.preferred_anti_affinity.iter().map(|(w, t)| (-i64::from(*w), t))) {
            let counts = term.is_plain().then(|| cache.counts(&Counted::term(term)));
            for node in cache.nodes() {
                let count = match &counts {
                    Some(counts) => i64::from(counts[node.slot]),
                    None => node.pods.iter().filter(|p| term.matches(p, labels)).count() as i64,
                };
                if count > 0 {
                    sums.add(&term.topology_key, node, weight * count);
                }
            }
        }
        let hard = cache.terms().required().filter(|_| self.hard_weight > 0).map(|held| (held, self.hard_weight));
        let soft = cache.terms().preferred().filter(|_| !self.ignore_preferred_of_placed).map(|held| (held, held.weight));
        for (held, weight) in hard.chain(soft).filter(|(held, _)| held.term.matches(pod, labels)) {
            for (slot, pods) in &held.nodes {
                if let Some(node) = cache.in_slot(*slot) {
                    sums.add(&held.term.topology_key, node, weight * pods);
                }
            }
        }
        if sums.0.is_empty() {
            return None;
        }
        let total = |n: &NodeState| -> i64 {
            let found = sums.0.iter().filter_map(|(key, values)| values.get(n.labels.get(*key)?.as_str()));
            found.sum()
        };
        let raw: Vec<_> = nodes.iter().map(|n| total(n)).collect();
        let (least, most) = (*raw.iter().min()?, *raw.iter().max()?);
        let range = most - least;
        let scaled = |r: &i64| if range > 0 { (SCORE_MAX as f64 * ((r - least) as f64 / range as f64)) as i64 } else { 0 };
        Some(raw.iter().map(scaled).collect())
    }
}
