//! PodTopologySpread: pods of one selector spread evenly over zones, hosts or any other label.
//!
//! Models pkg/scheduler/framework/plugins/podtopologyspread (plugin.go, common.go, filtering.go, scoring.go), v1.37. A pod without
//! constraints gets the defaults, with the selector of the Services and the controller that it belongs to ([`crate::owners`]).
use std::collections::HashMap;
use std::sync::Arc;

use super::taints::is_kept_away;
use super::{Filter, NodeCheck, Prepared, Refusal, SCORE_MAX, Score, Verdict, World, node_affinity};
use crate::cache::{Counted, NodeFacts, NodeState};
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

fn has_all_labels(constraints: &[SpreadConstraint], node: &NodeFacts) -> bool {
    constraints.iter().all(|c| node.labels.contains_key(&c.topology_key))
}

/// By slot of the node, matching pods.
fn counts(constraint: &SpreadConstraint, pod: &PodInfo, world: &World) -> Option<Arc<Vec<u32>>> {
    (!constraint.selector.is_empty()).then(|| world.cache.counts(&Counted::spread(&pod.key.namespace, &constraint.selector)))
}

fn count_at(counts: Option<&Arc<Vec<u32>>>, node: &NodeState) -> i64 {
    counts.and_then(|c| c.get(node.slot)).map_or(0, |c| i64::from(*c))
}

#[derive(Clone)]
struct Check<'a> {
    pod: &'a PodInfo,
    constraints: Arc<Vec<SpreadConstraint>>,
    /// Matching pods by value of the topology key, for each constraint.
    domains: Vec<HashMap<String, i64>>,
    /// The least of them; worked out anew when a pod is put on or taken off in thought.
    least: Vec<i64>,
}

impl Check<'_> {
    fn find_least(&mut self) {
        let least = |domains: &HashMap<String, i64>| domains.values().copied().min().unwrap_or(i64::from(i32::MAX));
        self.least = self.domains.iter().map(least).collect();
    }

    fn change(&mut self, other: &PodInfo, node: &NodeState, by: i64) {
        if other.key.namespace != self.pod.key.namespace || !has_all_labels(&self.constraints, node) {
            return;
        }
        for (constraint, domains) in self.constraints.iter().zip(&mut self.domains) {
            if constraint.selector.matches_map(Some(&other.labels)) && eligible(constraint, self.pod, node) {
                *domains.entry(node.labels[&constraint.topology_key].clone()).or_default() += by;
            }
        }
        self.find_least();
    }
}

impl<'a> NodeCheck<'a> for Check<'a> {
    fn check(&self, node: &NodeState) -> Verdict {
        for (i, constraint) in self.constraints.iter().enumerate() {
            let Some(value) = node.labels.get(&constraint.topology_key) else {
                return Err(Refusal::unresolvable("node(s) didn't match pod topology spread constraints (missing required label)"));
            };
            let domains = &self.domains[i];
            let least = if (domains.len() as i32) < constraint.min_domains { 0 } else { self.least[i] };
            let own = i64::from(constraint.selector.matches_map(Some(&self.pod.labels)));
            let here = domains.get(value).copied().unwrap_or_default();
            if here + own - least > i64::from(constraint.max_skew) {
                return Err(Refusal::resolvable("node(s) didn't match pod topology spread constraints"));
            }
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
        let matching: Vec<_> = constraints.iter().map(|c| counts(c, pod, world)).collect();
        let mut domains = vec![HashMap::new(); constraints.len()];
        for node in world.cache.nodes().filter(|n| has_all_labels(&constraints, n)) {
            for (i, constraint) in constraints.iter().enumerate().filter(|(_, c)| eligible(c, pod, node)) {
                let count = count_at(matching[i].as_ref(), node);
                let value = &node.labels[&constraint.topology_key];
                match domains[i].get_mut(value) {
                    Some(sum) => *sum += count,
                    None => {
                        domains[i].insert(value.clone(), count);
                    }
                }
            }
        }
        let mut check = Check { pod, constraints: Arc::new(constraints), domains, least: Vec::new() };
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
        let prepared: Vec<_> = constraints
            .iter()
            .map(|constraint| {
                let matching = counts(constraint, pod, world);
                let key = constraint.topology_key.as_str();
                let mut domains: HashMap<&str, i64> = HashMap::new();
                if key != HOSTNAME {
                    domains.extend(nodes.iter().filter(|n| !ignored(n)).map(|n| (n.labels.get(key).map_or("", String::as_str), 0)));
                    for node in world.cache.nodes().filter(|n| !ignored(n) && eligible(constraint, pod, n)) {
                        if let Some(sum) = domains.get_mut(node.labels.get(key).map_or("", String::as_str)) {
                            *sum += count_at(matching.as_ref(), node);
                        }
                    }
                }
                let size = if key == HOSTNAME { scored } else { domains.len() };
                // Few large domains weigh less than many small ones.
                (constraint, matching, domains, ((size + 2) as f64).ln())
            })
            .collect();
        let cost = |node: &NodeState| -> i64 {
            let mut sum = 0.0;
            for (constraint, matching, domains, weight) in &prepared {
                let Some(value) = node.labels.get(&constraint.topology_key) else { continue };
                let count = match constraint.topology_key.as_str() {
                    HOSTNAME => count_at(matching.as_ref(), node),
                    _ => domains.get(value.as_str()).copied().unwrap_or_default(),
                };
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
