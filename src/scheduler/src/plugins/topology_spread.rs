//! PodTopologySpread: pods of one selector spread evenly over zones, hosts or any other label.
//!
//! Models pkg/scheduler/framework/plugins/podtopologyspread (filtering.go, scoring.go). Where a pod names no constraint,
//! upstream's system defaults apply to pods that a Service or controller selects: hostname with skew 3, zone with skew 5,
//! both soft. They need the owner's selector; here the pod's own labels stand for it when it has any.
use std::collections::HashMap;

use super::{ClusterEvent, Filter, Reason, SCORE_MAX, Score, World, node_affinity};
use crate::cache::NodeState;
use crate::plugins::taints::tolerates;
use crate::pod::{PodInfo, SpreadConstraint};

pub struct PodTopologySpread;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Matching pods on the node; pods that are going away do not count.
fn count(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeState) -> i64 {
    let matching = |p: &&std::sync::Arc<PodInfo>| {
        !p.deleting && p.key.namespace == pod.key.namespace && constraint.selector.matches_map(Some(&p.labels))
    };
    node.pods.values().filter(matching).count() as i64
}

fn eligible(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeState) -> bool {
    let tainted = || {
        let hard = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
        hard.into_iter().any(|t| !tolerates(&pod.tolerations, &t.key, t.value.as_deref().unwrap_or_default(), &t.effect))
    };
    (!constraint.honor_affinity || node_affinity::allows(pod, node)) && (!constraint.honor_taints || !tainted())
}

/// Matching pods by value of the topology key, over all eligible nodes.
fn domains<'a>(constraint: &SpreadConstraint, pod: &PodInfo, world: &'a World<'a>) -> HashMap<&'a str, i64> {
    let mut counts: HashMap<&str, i64> = HashMap::new();
    for node in world.cache.nodes.values().filter(|n| n.present && eligible(constraint, pod, n)) {
        if let Some(value) = node.labels.get(&constraint.topology_key) {
            *counts.entry(value).or_default() += count(constraint, pod, node);
        }
    }
    counts
}

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        !matches!(event, ClusterEvent::NodeAllocatable | ClusterEvent::NamespaceLabels)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>> {
        let prepared: Vec<_> = pod.spread.iter().filter(|c| c.hard).map(|c| (c, domains(c, pod, world))).collect();
        if prepared.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            for (constraint, counts) in &prepared {
                let Some(value) = node.labels.get(&constraint.topology_key) else {
                    return Err(vec!["node(s) didn't match pod topology spread constraints (missing required label)".into()]);
                };
                let few_domains = (counts.len() as i32) < constraint.min_domains;
                let least = if few_domains { 0 } else { counts.values().copied().min().unwrap_or_default() };
                let own = i64::from(constraint.selector.matches_map(Some(&pod.labels)));
                let here = counts.get(value.as_str()).copied().unwrap_or_default();
                if here + own - least > i64::from(constraint.max_skew) {
                    return Err(vec!["node(s) didn't match pod topology spread constraints".into()]);
                }
            }
            Ok(())
        }))
    }
}

impl Score for PodTopologySpread {
    fn weight(&self) -> i64 {
        2
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let defaults;
        let soft: Vec<&SpreadConstraint> = if pod.spread.is_empty() {
            if pod.labels.is_empty() {
                return None;
            }
            defaults = default_constraints(pod);
            defaults.iter().collect()
        } else {
            pod.spread.iter().filter(|c| !c.hard).collect()
        };
        if soft.is_empty() {
            return None;
        }
        let prepared: Vec<_> = soft.iter().map(|c| (*c, domains(c, pod, world))).collect();
        let cost = |node: &NodeState| -> f64 {
            let part = |(constraint, counts): &(&SpreadConstraint, HashMap<&str, i64>)| {
                let value = node.labels.get(&constraint.topology_key)?;
                // Few large domains weigh less than many small ones.
                let weight = ((counts.len() + 2) as f64).ln();
                Some(counts.get(value.as_str()).copied().unwrap_or_default() as f64 * weight + f64::from(constraint.max_skew - 1))
            };
            prepared.iter().filter_map(part).sum()
        };
        let costs: Vec<i64> = nodes.iter().map(|n| cost(n).round() as i64).collect();
        let (least, most) = (*costs.iter().min()?, *costs.iter().max()?);
        Some(costs.iter().map(|c| if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - c) / most }).collect())
    }
}

fn default_constraints(pod: &PodInfo) -> Vec<SpreadConstraint> {
    // Labels that a controller adds to tell revisions apart do not part pods of one application.
    let own = pod.labels.iter().filter(|(k, _)| !k.ends_with("-hash") && !k.ends_with("pod-name") && !k.ends_with("pod-index"));
    let labels: Vec<_> = own.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let make = |key: &str, max_skew| SpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        min_domains: 1,
        hard: false,
        selector: api::selector::LabelSelector::from_labels(labels.iter().copied()),
        honor_affinity: true,
        honor_taints: false,
    };
    vec![make(HOSTNAME, 3), make("topology.kubernetes.io/zone", 5)]
}
