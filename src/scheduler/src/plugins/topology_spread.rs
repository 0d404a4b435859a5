//! PodTopologySpread: pods of one selector spread evenly over zones, hosts or any other label.
//!
//! Models pkg/scheduler/framework/plugins/podtopologyspread (plugin.go, common.go, filtering.go, scoring.go), v1.37. A pod without
//! constraints gets the defaults, with the selector of the Services and the controller that it belongs to ([`crate::owners`]).
use std::sync::Arc;

use super::taints::is_kept_away;
use super::{Filter, NodeCheck, Prepared, Refusal, SCORE_MAX, Score, Verdict, World, node_affinity};
use crate::cache::{Counted, NodeFacts, NodeState, Topology};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::{PodInfo, SpreadConstraint};

pub struct PodTopologySpread {
    /// Constraints of pods that have none; their selectors are replaced.
    pub defaults: Vec<SpreadConstraint>,
    /// Those are upstream's own: nodes that lack a label of theirs are scored all the same.
    pub system_defaults: bool,
}

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Hosts and zones, both soft.
pub fn system_defaults() -> Vec<SpreadConstraint> {
    let soft = |key: &str, max_skew| SpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        min_domains: 1,
        hard: false,
        selector: api::selector::LabelSelector::nothing(),
        honor_affinity: true,
        honor_taints: false,
    };
    vec![soft(HOSTNAME, 3), soft("topology.kubernetes.io/zone", 5)]
}

impl PodTopologySpread {
    fn constraints(&self, pod: &PodInfo, world: &World, hard: bool) -> Vec<SpreadConstraint> {
        let wanted = |list: &[SpreadConstraint]| list.iter().filter(|c| c.hard == hard).cloned().collect::<Vec<_>>();
        if !pod.spread.is_empty() {
            return wanted(&pod.spread);
        }
        let mut defaults = wanted(&self.defaults);
        if defaults.is_empty() {
            return defaults;
        }
        let selector = world.owners.selector_of(pod);
        if selector.is_empty() || selector.matches_nothing() {
            return Vec::new();
        }
        defaults.iter_mut().for_each(|c| c.selector = selector.clone());
        defaults
    }
}

fn eligible(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeFacts) -> bool {
    (!constraint.honor_affinity || node_affinity::allows(pod, node))
        && (!constraint.honor_taints || !is_kept_away(&pod.tolerations, &node.taints))
}

/// Whether every node is eligible, so that none need be asked.
fn is_open_to_all(constraint: &SpreadConstraint, pod: &PodInfo) -> bool {
    let anywhere = pod.node_selector.is_empty() && pod.required_nodes.is_none();
    (!constraint.honor_affinity || anywhere) && !constraint.honor_taints
}

fn has_all_labels(constraints: &[SpreadConstraint], node: &NodeFacts) -> bool {
    constraints.iter().all(|c| node.labels.contains_key(&c.topology_key))
}

/// By slot of the node, matching pods.
fn counts(constraint: &SpreadConstraint, pod: &PodInfo, world: &World) -> Option<Arc<Vec<u32>>> {
    (!constraint.selector.is_empty()).then(|| world.cache.counts(&Counted::spread(&pod.key.namespace, &constraint.selector)))
}

fn count_at(counts: Option<&Arc<Vec<u32>>>, slot: usize) -> i64 {
    counts.and_then(|c| c.get(slot)).map_or(0, |c| i64::from(*c))
}

/// Matching pods by value of the topology key, of the values that count.
#[derive(Clone)]
struct Domains {
    topology: Arc<Topology>,
    /// [`UNKNOWN`]: the value does not count.
    pods: Vec<i64>,
    /// How many values count.
    known: usize,
}

const UNKNOWN: i64 = -1;

impl Domains {
    fn new(topology: Arc<Topology>) -> Self {
        let pods = vec![UNKNOWN; topology.len()];
        Self { topology, pods, known: 0 }
    }

    /// The value of the node's label counts from now on.
    fn know(&mut self, slot: usize) -> Option<&mut i64> {
        let pods = &mut self.pods[self.topology.domain(slot)?];
        if *pods == UNKNOWN {
            *pods = 0;
            self.known += 1;
        }
        Some(pods)
    }

    fn add(&mut self, slot: usize, by: i64) {
        if let Some(pods) = self.know(slot) {
            *pods += by;
        }
    }

    /// `None` where the node has no such label.
    fn at(&self, slot: usize) -> Option<i64> {
        self.topology.domain(slot).map(|domain| self.pods[domain].max(0))
    }

    fn least(&self) -> i64 {
        self.pods.iter().copied().filter(|p| *p != UNKNOWN).min().unwrap_or(i64::from(i32::MAX))
    }
}

#[derive(Clone)]
struct Check<'a> {
    pod: &'a PodInfo,
    constraints: Arc<Vec<SpreadConstraint>>,
    /// For each constraint.
    domains: Vec<Domains>,
    /// The least of them; worked out anew when a pod is put on or taken off in thought.
    least: Vec<i64>,
    /// Whether the pod itself is one of those that are counted.
    own: Vec<i64>,
}

impl Check<'_> {
    fn find_least(&mut self) {
        self.least = self.domains.iter().map(Domains::least).collect();
    }

    fn change(&mut self, other: &PodInfo, node: &NodeState, by: i64) {
        if other.key.namespace != self.pod.key.namespace || !has_all_labels(&self.constraints, node) {
            return;
        }
        for (constraint, domains) in self.constraints.iter().zip(&mut self.domains) {
            if constraint.selector.matches_map(Some(&other.labels)) && eligible(constraint, self.pod, node) {
                domains.add(node.slot, by);
            }
        }
        self.find_least();
    }
}

impl<'a> NodeCheck<'a> for Check<'a> {
    fn check(&self, node: &NodeState) -> Verdict {
        for (i, constraint) in self.constraints.iter().enumerate() {
            let domains = &self.domains[i];
            let Some(here) = domains.at(node.slot) else {
                return Err(Refusal::unresolvable("node(s) didn't match pod topology spread constraints (missing required label)"));
            };
            let least = if (domains.known as i32) < constraint.min_domains { 0 } else { self.least[i] };
            if here + self.own[i] - least > i64::from(constraint.max_skew) {
                return Err(Refusal::resolvable("node(s) didn't match pod topology spread constraints"));
            }
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

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
    fn events(&self) -> u32 {
        bits::POD_ADD
            | bits::POD_LABEL
            | bits::POD_DELETE
            | bits::TARGET_LABEL
            | bits::TARGET_TOLERATION
            | bits::NODE_ADD
            | bits::NODE_DELETE
            | bits::NODE_LABEL
            | bits::NODE_TAINT
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if pod.spread.is_empty() {
            return true; // turned away by configured defaults, whose selector is not at hand
        }
        let hard = || pod.spread.iter().filter(|c| c.hard);
        let of = |other: &PodInfo| other.key.namespace == pod.key.namespace;
        let matched = |other: &PodInfo| hard().map(|c| c.selector.matches_map(Some(&other.labels))).collect::<Vec<_>>();
        match event.change {
            Change::Pod { old: Some(old), new: Some(new) } => of(new) && matched(old) != matched(new),
            Change::Pod { old: Some(one), new: None } | Change::Pod { old: None, new: Some(one) } => of(one) && matched(one).contains(&true),
            Change::Target { old, new } => {
                matched(old) != matched(new) || old.tolerations.len() != new.tolerations.len() && hard().any(|c| c.honor_taints)
            }
            Change::Node { old, new } => {
                let suits = |node: &NodeFacts| hard().all(|c| node.labels.contains_key(&c.topology_key));
                let changed = |old: &NodeFacts, new: &NodeFacts| {
                    let moved = hard().any(|c| old.labels.get(&c.topology_key) != new.labels.get(&c.topology_key));
                    suits(old) != suits(new) || suits(new) && (moved || old.taints != new.taints)
                };
                match (old, new) {
                    (Some(old), Some(new)) => changed(old, new),
                    (one, other) => one.or(other).is_some_and(suits),
                }
            }
            _ => true,
        }
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        let constraints = self.constraints(pod, world, true);
        if constraints.is_empty() {
            return Prepared::Skip;
        }
        let mut domains: Vec<_> = constraints.iter().map(|c| Domains::new(world.cache.topology(&c.topology_key))).collect();
        for (i, constraint) in constraints.iter().enumerate() {
            let (matching, is_open) = (counts(constraint, pod, world), is_open_to_all(constraint, pod));
            for slot in world.cache.order() {
                let has_all_labels = domains.iter().all(|d| d.topology.domain(*slot).is_some());
                if has_all_labels && (is_open || world.cache.in_slot(*slot).is_some_and(|n| eligible(constraint, pod, n))) {
                    domains[i].add(*slot, count_at(matching.as_ref(), *slot));
                }
            }
        }
        let own = constraints.iter().map(|c| i64::from(c.selector.matches_map(Some(&pod.labels)))).collect();
        let mut check = Check { pod, constraints: Arc::new(constraints), domains, least: Vec::new(), own };
        check.find_least();
        Prepared::Check(Box::new(check))
    }
}

impl Score for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let constraints = self.constraints(pod, world, false);
        if constraints.is_empty() {
            return None;
        }
        let needs_all = !pod.spread.is_empty() || !self.system_defaults;
        let ignored = |node: &NodeState| needs_all && !has_all_labels(&constraints, node);
        let scored = nodes.iter().filter(|n| !ignored(n)).count();
        let topologies: Vec<_> = constraints.iter().map(|c| world.cache.topology(&c.topology_key)).collect();
        let prepared: Vec<_> = constraints
            .iter()
            .zip(&topologies)
            .map(|(constraint, topology)| {
                let matching = counts(constraint, pod, world);
                if constraint.topology_key == HOSTNAME {
                    return (constraint, matching, None, ((scored + 2) as f64).ln());
                }
                let mut domains = Domains::new(topology.clone());
                let mut lacks_label = false;
                for node in nodes.iter().filter(|n| !ignored(n)) {
                    lacks_label |= domains.know(node.slot).is_none();
                }
                let is_open = is_open_to_all(constraint, pod);
                for slot in world.cache.order() {
                    let counts = topology.domain(*slot).is_some_and(|domain| domains.pods[domain] != UNKNOWN)
                        && (!needs_all || topologies.iter().all(|t| t.domain(*slot).is_some()))
                        && (is_open || world.cache.in_slot(*slot).is_some_and(|n| eligible(constraint, pod, n)));
                    if counts {
                        domains.add(*slot, count_at(matching.as_ref(), *slot));
                    }
                }
                // Few large domains weigh less than many small ones; nodes without the label are one more.
                let size = domains.known + usize::from(lacks_label);
                (constraint, matching, Some(domains), ((size + 2) as f64).ln())
            })
            .collect();
        let cost = |node: &NodeState| -> i64 {
            let mut sum = 0.0;
            for (constraint, matching, domains, weight) in &prepared {
                let count = match domains {
                    None => node.labels.contains_key(HOSTNAME).then(|| count_at(matching.as_ref(), node.slot)),
                    Some(domains) => domains.at(node.slot),
                };
                let Some(count) = count else { continue };
                sum += count as f64 * weight + f64::from(constraint.max_skew - 1);
            }
            sum.round() as i64
        };
        let costs: Vec<Option<i64>> = nodes.iter().map(|n| (!ignored(n)).then(|| cost(n))).collect();
        let least = costs.iter().flatten().copied().min().unwrap_or_default();
        let most = costs.iter().flatten().copied().max().unwrap_or_default();
        let scaled = |cost: &Option<i64>| match cost {
            None => 0,
            Some(_) if most == 0 => SCORE_MAX,
            Some(cost) => SCORE_MAX * (most + least - cost) / most,
        };
        Some(costs.iter().map(scaled).collect())
    }
}
