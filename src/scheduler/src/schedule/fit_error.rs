//! Why a pod found no node, node by node, and in upstream's words.
use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::plugins::Refusal;
use crate::profile::Refused;

/// By slot, why the node will not do; the last word counts.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    by_slot: Vec<Option<Refusal>>,
    len: usize,
}

impl Refusals {
    pub fn insert(&mut self, slot: usize, refusal: Refusal) {
        if self.by_slot.len() <= slot {
            // Nodes are refused by the hundred, or hardly at all.
            self.by_slot.resize((slot + 1).next_power_of_two(), None);
        }
        self.len += usize::from(self.by_slot[slot].replace(refusal).is_none());
    }

    pub fn get(&self, slot: usize) -> Option<&Refusal> {
        self.by_slot.get(slot)?.as_ref()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    fn iter(&self) -> impl Iterator<Item = &Refusal> {
        self.by_slot.iter().flatten()
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

    pub fn refused(&mut self, slot: usize, refused: Refused) {
        self.filters.insert(refused.filter);
        self.refused.insert(slot, refused.refusal);
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
    for reason in refused.iter().flat_map(|r| r.reasons.iter()) {
        count(reason, 1);
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
