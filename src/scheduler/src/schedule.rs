//! The decision: which node for this pod, or why none. Pure.
//!
//! Models pkg/scheduler/schedule_one.go `findNodesThatFitPod`, `prioritizeNodes`, `numFeasibleNodesToFind`, and framework/types.go
//! `FitError`, v1.37.
mod fit_error;
#[cfg(test)]
pub mod tests;

use std::sync::Arc;

pub use self::fit_error::{Diagnosis, Refusals, fit_error};
use crate::alike::Known;
use crate::cache::NodeState;
use crate::nominator::Nominator;
use crate::plugins::{Refusal, Score, World};
use crate::pod::PodInfo;
use crate::profile::{Checks, Look, Profile};

/// Fewer nodes than these are always all looked at.
const FEASIBLE_MIN: usize = 100;
const FEASIBLE_PERCENT_MIN: usize = 5;

/// Nodes that fit, by slot, and why the others do not.
pub struct Fitting<'a> {
    pub slots: Vec<usize>,
    pub diagnosis: Diagnosis,
    /// `None` where a filter turned all nodes away at once.
    pub checks: Option<Checks<'a>>,
}

/// How many nodes that fit are enough.
pub fn enough(percentage: i32, nodes: usize) -> usize {
    if nodes < FEASIBLE_MIN {
        return nodes;
    }
    let percentage = match percentage {
        0 => 50usize.saturating_sub(nodes / 125).max(FEASIBLE_PERCENT_MIN),
        given => given as usize,
    };
    (nodes * percentage / 100).max(FEASIBLE_MIN)
}

/// `start`: the position in the order of nodes where to begin; it moves on so that all nodes have their turn. `scored`: more than one node
/// is of use.
pub fn find<'a>(
    profile: &'a Profile,
    pod: &'a PodInfo,
    world: &World<'a>,
    nominated: &Nominator,
    start: &mut usize,
    scored: bool,
    known: &mut Known,
) -> Fitting<'a> {
    let total = world.cache.node_count();
    let mut diagnosis = Diagnosis::new(total);
    let Look { checks, only } = match profile.look(pod, world) {
        Ok(look) => look,
        Err(none) => {
            diagnosis.none_at_all = Some(none.refusal);
            diagnosis.filters = none.filters;
            return Fitting { slots: Vec::new(), diagnosis, checks: None };
        }
    };
    // Preemption made room there for this pod.
    if let Some(node) = world.cache.node(&pod.nominated_node).filter(|_| !pod.nominated_node.is_empty()) {
        match checks.check_with_nominated(node, nominated) {
            Ok(()) => return Fitting { slots: vec![node.slot], diagnosis, checks: Some(checks) },
            Err(refused) => diagnosis.refused(node.slot, &refused),
        }
    }
    let candidates: Option<Vec<usize>> = only.map(|(names, filters)| {
        let why = format!("node(s) didn't satisfy plugin(s) [{}]", profile.names(&filters).join(" "));
        diagnosis.others = Some(Refusal::unresolvable(why));
        diagnosis.filters.extend(filters);
        names.iter().filter_map(|name| world.cache.node(name)).map(|node| node.slot).collect()
    });
    let order = candidates.as_deref().unwrap_or(world.cache.order());
    let count = order.len();
    let wanted = if scored { enough(profile.percentage, count) } else { 1 };
    let mut slots = Vec::with_capacity(wanted.min(count));
    let mut looked_at = 0;
    while looked_at < count && slots.len() < wanted {
        let slot = order[(*start + looked_at) % count];
        match checks.check_slot(slot, world.cache, nominated, known) {
            Ok(()) => slots.push(slot),
            Err(refused) => diagnosis.refused(slot, &refused),
        }
        looked_at += 1;
    }
    *start = (*start + looked_at) % total.max(1);
    Fitting { slots, diagnosis, checks: Some(checks) }
}

/// The sum of the plugins' scores, for the nodes in these slots in their order.
pub fn score(profile: &Profile, pod: &PodInfo, slots: &[usize], world: &World, known: &mut Known) -> Vec<i64> {
    let cache = world.cache;
    let asked = |(plugin, _): &&(Arc<dyn Score>, i64)| plugin.has_a_say(pod, world);
    let (of_node_only, others): (Vec<_>, Vec<_>) = profile.scores.iter().filter(asked).partition(|(plugin, _)| plugin.sees_node_only());
    let changed = slots.iter().filter(|slot| known.score(**slot, cache.generation(**slot)).is_none());
    let changed: Vec<&NodeState> = changed.map(|slot| cache.at(*slot)).collect();
    let mut totals: Vec<i64> = slots.iter().map(|slot| known.score(*slot, cache.generation(*slot)).unwrap_or_default()).collect();
    if !changed.is_empty() {
        let mut sums = sum(&of_node_only, pod, &changed, world).into_iter();
        for (slot, total) in slots.iter().zip(&mut totals) {
            let generation = cache.generation(*slot);
            if known.score(*slot, generation).is_none() {
                *total = sums.next().unwrap_or_default();
                known.set_score(*slot, generation, *total);
            }
        }
    }
    if !others.is_empty() {
        let nodes: Vec<&NodeState> = slots.iter().map(|slot| cache.at(*slot)).collect();
        totals.iter_mut().zip(sum(&others, pod, &nodes, world)).for_each(|(total, score)| *total += score);
    }
    totals
}

fn sum(plugins: &[&(Arc<dyn Score>, i64)], pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Vec<i64> {
    let mut totals = vec![0i64; nodes.len()];
    for (plugin, weight) in plugins {
        if let Some(scores) = plugin.score(pod, nodes, world) {
            totals.iter_mut().zip(scores).for_each(|(total, score)| *total += score * weight);
        }
    }
    totals
}

/// One of those with the most, evenly among them.
pub fn best(totals: &[i64], random: &mut Random) -> usize {
    let most = totals.iter().max().copied().unwrap_or_default();
    let equal = totals.iter().filter(|t| **t == most).count();
    let chosen = random.below(equal.max(1));
    totals.iter().enumerate().filter(|(_, t)| **t == most).nth(chosen).map_or(0, |(i, _)| i)
}

/// Breaks ties; a decision needs no secret (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * bound as u128) >> 64) as usize
    }
}

