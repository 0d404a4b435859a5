//! Why a pod found no node, node by node, and in upstream's words.
use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::plugins::Refusal;
use crate::profile::Refused;

/// By slot, why the node will not do; the last word counts.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// One more than the number of what was said; 0: nothing.
    by_slot: Vec<u32>,
    /// What was said, and of how many nodes. Few refusals, of many nodes.
    said: Vec<(Refusal, usize)>,
    len: usize,
}

/// So many of the last refusals are looked at for an equal one: where each node has a reason of its own, a search would end nowhere.
const LOOKED_AT: usize = 16;

impl Refusals {
    pub fn insert(&mut self, slot: usize, refusal: &Refusal) {
        if self.by_slot.len() <= slot {
            // Nodes are refused by the hundred, or hardly at all.
            self.by_slot.resize((slot + 1).next_power_of_two(), 0);
        }
        let recent = self.said.iter().enumerate().rev().take(LOOKED_AT);
        let known = recent.filter(|(_, (said, _))| said == refusal).map(|(i, _)| i).next();
        let number = known.unwrap_or_else(|| {
            self.said.push((refusal.clone(), 0));
            self.said.len() - 1
        });
        self.said[number].1 += 1;
        match std::mem::replace(&mut self.by_slot[slot], number as u32 + 1) {
            0 => self.len += 1,
            before => self.said[before as usize - 1].1 -= 1,
        }
    }

    pub fn get(&self, slot: usize) -> Option<&Refusal> {
        let number = self.by_slot.get(slot)?.checked_sub(1)?;
        self.said.get(number as usize).map(|(refusal, _)| refusal)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// What was said, and of how many nodes.
    fn iter(&self) -> impl Iterator<Item = (&Refusal, usize)> {
        self.said.iter().filter(|(_, nodes)| *nodes > 0).map(|(refusal, nodes)| (refusal, *nodes))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// All nodes there are.
    pub nodes: usize,
    pub refused: Refusals,
    /// The same for all nodes that are not listed.
    pub others: Option<Refusal>,
    /// A filter turned all nodes away at once.
    pub none_at_all: Option<Refusal>,
    /// The filters that turned nodes away.
    pub filters: BTreeSet<usize>,
    /// So did an extender, of which nobody knows what would help.
    pub by_extender: bool,
    /// What trying to make room came to.
    pub afterwards: String,
}

impl Diagnosis {
    pub fn new(nodes: usize) -> Self {
        Self { nodes, ..Self::default() }
    }

    pub fn refused(&mut self, slot: usize, refused: &Refused) {
        self.filters.insert(refused.filter);
        self.refused.insert(slot, &refused.refusal);
    }

    /// Whether taking pods away from the node could help.
    pub fn is_resolvable(&self, slot: usize) -> bool {
        let all = || self.none_at_all.as_ref().or(self.others.as_ref());
        self.refused.get(slot).or_else(all).is_some_and(|r| r.resolvable)
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: ...`
    pub fn message(&self) -> String {
        let mut message = match &self.none_at_all {
            Some(refusal) => format!("0/{} nodes are available: {}.", self.nodes, refusal.reasons.joined()),
            None => fit_error(self.nodes, &self.refused, self.others.as_ref()),
        };
        if !self.afterwards.is_empty() {
            message.push(' ');
            message.push_str(&self.afterwards);
        }
        message
    }
}

pub fn fit_error(nodes: usize, refused: &Refusals, others: Option<&Refusal>) -> String {
    // Few reasons, told of many nodes.
    let mut counts: Vec<(&Cow<'static, str>, usize)> = Vec::new();
    let mut count = |reason, by| match counts.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += by,
        None => counts.push((reason, by)),
    };
    for (refusal, nodes) in refused.iter() {
        refusal.reasons.iter().for_each(|reason| count(reason, nodes));
    }
    let rest = nodes.saturating_sub(refused.len());
    for reason in others.filter(|_| rest > 0).into_iter().flat_map(|r| r.reasons.iter()) {
        count(reason, rest);
    }
    let mut parts: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    match parts.is_empty() {
        true => format!("0/{nodes} nodes are available:"),
        false => format!("0/{nodes} nodes are available: {}.", parts.join(", ")),
    }
}
