//! InterPodAffinity: near these pods, away from those; and the anti-affinity of pods that are placed already.
//!
//! Models pkg/scheduler/framework/plugins/interpodaffinity (plugin.go, filtering.go, scoring.go), v1.37. Terms that placed pods hold
//! are looked at once each, not once for each pod ([`crate::cache::Terms`]).
use std::sync::Arc;

use super::{Filter, NodeCheck, Prepared, Refusal, SCORE_MAX, Score, Verdict, World};
use crate::cache::{Cache, Counted, Domains, NodeState};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::{AffinityTerm, NamespaceLabels, PodInfo};

pub struct InterPodAffinity {
    /// What a required affinity of a placed pod counts for in the score.
    pub hard_weight: i64,
    pub ignore_preferred_of_placed: bool,
}

fn matches_all(terms: &[Arc<AffinityTerm>], pod: &PodInfo, labels: &NamespaceLabels) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(pod, labels))
}

fn domains(term: &AffinityTerm, world: &World) -> Domains {
    Domains::new(world.cache.topology(&term.topology_key))
}

/// Where pods that `terms` mean all at once are, for each term.
fn near(terms: &[Arc<AffinityTerm>], world: &World) -> Vec<Domains> {
    if let [term] = terms {
        return vec![matching(term, world)];
    }
    let mut found: Vec<_> = terms.iter().map(|t| domains(t, world)).collect();
    if terms.is_empty() {
        return found;
    }
    for node in world.cache.nodes() {
        let count = node.pods.iter().filter(|p| matches_all(terms, p, world.namespace_labels)).count() as i64;
        if count > 0 {
            found.iter_mut().for_each(|domains| domains.add(node.slot, count));
        }
    }
    found
}

fn matching(term: &AffinityTerm, world: &World) -> Domains {
    let mut found = domains(term, world);
    for_each_match(term, world, &mut |slot, count| found.add(slot, count));
    found
}

/// Tells of each node that has pods which the term means how many.
fn for_each_match(term: &AffinityTerm, world: &World, tell: &mut dyn FnMut(usize, i64)) {
    if term.is_plain() {
        let counts = world.cache.counts(&Counted::term(term));
        let order = world.cache.order().iter();
        return order.filter(|slot| counts[**slot] > 0).for_each(|slot| tell(*slot, i64::from(counts[*slot])));
    }
    for node in world.cache.nodes() {
        let count = node.pods.iter().filter(|p| term.matches(p, world.namespace_labels)).count() as i64;
        if count > 0 {
            tell(node.slot, count);
        }
    }
}

#[derive(Clone)]
struct Check<'a> {
    pod: &'a PodInfo,
    cache: &'a Cache,
    labels: &'a NamespaceLabels<'a>,
    near: Vec<Domains>,
    /// None of those is anywhere.
    near_is_empty: bool,
    away: Vec<Domains>,
    /// Where placed pods forbid this one, by topology key.
    forbidden: Vec<(Arc<str>, Domains)>,
    /// The pod is of the kind that it wants near it, and may start where there is none yet.
    may_be_first: bool,
}

/// The entry of a topology key, made if need be.
fn of_key<'d>(all: &'d mut Vec<(Arc<str>, Domains)>, key: &Arc<str>, cache: &Cache) -> &'d mut Domains {
    let at = all.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
        all.push((key.clone(), Domains::new(cache.topology(key))));
        all.len() - 1
    });
    &mut all[at].1
}

impl Check<'_> {
    fn change(&mut self, other: &PodInfo, node: &NodeState, by: i64) {
        for term in other.anti_affinity.iter().filter(|t| t.matches(self.pod, self.labels)) {
            of_key(&mut self.forbidden, &term.topology_key, self.cache).add(node.slot, by);
        }
        if matches_all(&self.pod.affinity, other, self.labels) {
            self.near.iter_mut().for_each(|domains| domains.add(node.slot, by));
            self.near_is_empty = self.near.iter().all(Domains::is_zero);
        }
        for (term, domains) in self.pod.anti_affinity.iter().zip(&mut self.away) {
            if term.matches(other, self.labels) {
                domains.add(node.slot, by);
            }
        }
    }
}

fn has(domains: &Domains, node: &NodeState) -> bool {
    domains.at(node.slot).is_some_and(|count| count > 0)
}

impl<'a> NodeCheck<'a> for Check<'a> {
    fn check(&self, node: &NodeState) -> Verdict {
        // All labels of its terms, and pods that it wants near it.
        let has_labels = self.near.iter().all(|domains| domains.at(node.slot).is_some());
        if !has_labels || !(self.near.iter().all(|domains| has(domains, node)) || self.may_be_first && self.near_is_empty) {
            return Err(Refusal::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if self.away.iter().any(|domains| has(domains, node)) {
            return Err(Refusal::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        if self.forbidden.iter().any(|(_, domains)| has(domains, node)) {
            return Err(Refusal::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
    fn follows(&self) -> bool {
        true
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
        let (cache, labels) = (world.cache, world.namespace_labels);
        let mut forbidden = Vec::new();
        for held in cache.terms().required_away().filter(|held| held.term.matches(pod, labels)) {
            let domains = of_key(&mut forbidden, &held.term.topology_key, cache);
            held.nodes.iter().for_each(|(slot, pods)| domains.add(*slot, *pods));
        }
        // Preemption and nominated pods bring terms that nobody holds yet, so that only a pod without any part in this is let go.
        if forbidden.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return Prepared::Skip;
        }
        let away = pod.anti_affinity.iter().map(|t| matching(t, world)).collect();
        let near = near(&pod.affinity, world);
        let near_is_empty = near.iter().all(Domains::is_zero);
        let may_be_first = matches_all(&pod.affinity, pod, labels);
        Prepared::Check(Box::new(Check { pod, cache, labels, near, near_is_empty, away, forbidden, may_be_first }))
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
    fn has_a_say(&self, pod: &PodInfo, world: &World) -> bool {
        let has_own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
        let terms = world.cache.terms();
        has_own || !self.ignore_preferred_of_placed && (terms.required().next().is_some() || terms.preferred().next().is_some())
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let has_own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
        if self.ignore_preferred_of_placed && !has_own {
            return None;
        }
        let (cache, labels) = (world.cache, world.namespace_labels);
        let mut sums: Vec<(Arc<str>, Domains)> = Vec::new();
        let own = pod.preferred_affinity.iter().map(|(w, t)| (i64::from(*w), t));
        for (weight, term) in own.chain(pod.preferred_anti_affinity.iter().map(|(w, t)| (-i64::from(*w), t))) {
            let domains = of_key(&mut sums, &term.topology_key, cache);
            for_each_match(term, world, &mut |slot, count| domains.add(slot, weight * count));
        }
        let hard = cache.terms().required().filter(|_| self.hard_weight > 0).map(|held| (held, self.hard_weight));
        let soft = cache.terms().preferred().filter(|_| !self.ignore_preferred_of_placed).map(|held| (held, held.weight));
        for (held, weight) in hard.chain(soft).filter(|(held, _)| held.term.matches(pod, labels)) {
            let domains = of_key(&mut sums, &held.term.topology_key, cache);
            held.nodes.iter().for_each(|(slot, pods)| domains.add(*slot, weight * pods));
        }
        if sums.is_empty() {
            return None;
        }
        let total = |n: &NodeState| -> i64 { sums.iter().filter_map(|(_, domains)| domains.at(n.slot)).sum() };
        let raw: Vec<_> = nodes.iter().map(|n| total(n)).collect();
        let (least, most) = (*raw.iter().min()?, *raw.iter().max()?);
        let range = most - least;
        let scaled = |r: &i64| if range > 0 { (SCORE_MAX as f64 * ((r - least) as f64 / range as f64)) as i64 } else { 0 };
        Some(raw.iter().map(scaled).collect())
    }
}
