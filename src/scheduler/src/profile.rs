//! A scheduler's name with the plugins that decide for its pods.
//!
//! Models pkg/scheduler/profile and framework/runtime, v1.37.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::alike::Known;
use crate::cache::{Cache, NodeState};
use crate::nominator::Nominator;
use crate::plugins::{Filter, NodeCheck, Prepared, Refusal, Score, World};
use crate::pod::PodInfo;
use crate::preemption::PreemptionArgs;

pub struct Profile {
    pub scheduler_name: String,
    /// In their order: the first plugin that refuses a node gives the reason.
    pub filters: Vec<Arc<dyn Filter>>,
    pub scores: Vec<(Arc<dyn Score>, i64)>,
    /// Gates hold pods back (SchedulingGates).
    pub gates: bool,
    pub preemption: Option<PreemptionArgs>,
    /// Volumes are chosen and bound (VolumeBinding).
    pub binds_volumes: Option<Duration>,
    /// Device claims are allocated and reserved (DynamicResources).
    pub binds_devices: bool,
    /// Of the nodes, how many that fit are enough; 0 lets the number of nodes decide.
    pub percentage: i32,
}

/// What the filters found for one pod.
pub struct Checks<'a> {
    pod: &'a PodInfo,
    /// With the number of the filter. Shared between duplicates until one of them is to follow along.
    checks: Vec<(usize, Arc<dyn NodeCheck<'a> + 'a>)>,
    /// So many of the first look at nothing but the node.
    of_node_only: usize,
}

/// Why a node will not do, and which of the profile's filters says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub filter: usize,
    pub refusal: Refusal,
}

/// Why no node was looked at.
pub struct NoneAtAll {
    pub refusal: Refusal,
    pub filters: BTreeSet<usize>,
}

/// The filters' findings, and the nodes that alone come into question with the filters that say so.
pub struct Look<'a> {
    pub checks: Checks<'a>,
    pub only: Option<(BTreeSet<String>, BTreeSet<usize>)>,
}

impl Profile {
    /// Lets each filter look over the cluster for this pod.
    pub fn look<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Result<Look<'a>, NoneAtAll> {
        let mut checks = Vec::with_capacity(self.filters.len());
        let mut only: Option<BTreeSet<String>> = None;
        let mut named_by = BTreeSet::new();
        for (i, filter) in self.filters.iter().enumerate() {
            match filter.prepare(pod, world) {
                Prepared::Skip => {}
                Prepared::Refused(refusal) => return Err(NoneAtAll { refusal, filters: BTreeSet::from([i]) }),
                Prepared::Check(check) => checks.push((i, Arc::from(check))),
                Prepared::Only(names, check) => {
                    checks.push((i, Arc::from(check)));
                    named_by.insert(i);
                    let both = match only {
                        Some(before) => before.intersection(&names).cloned().collect(),
                        None => names,
                    };
                    if both.is_empty() {
                        let names = self.names(&named_by);
                        let why = match names.as_slice() {
                            [one] => format!("node(s) didn't satisfy plugin {one}"),
                            _ => format!("node(s) didn't satisfy plugin(s) [{}] simultaneously", names.join(" ")),
                        };
                        return Err(NoneAtAll { refusal: Refusal::unresolvable(why), filters: named_by });
                    }
                    only = Some(both);
                }
            }
        }
        let of_node_only = checks.iter().take_while(|(i, _)| self.filters[*i].sees_node_only(pod)).count();
        Ok(Look { checks: Checks { pod, checks, of_node_only }, only: only.map(|names| (names, named_by)) })
    }

    /// Names of filters, sorted.
    pub fn names(&self, filters: &BTreeSet<usize>) -> Vec<&'static str> {
        let mut names: Vec<_> = filters.iter().map(|i| self.filters[*i].name()).collect();
        names.sort_unstable();
        names
    }
}

impl<'a> Checks<'a> {
    pub fn check(&self, node: &NodeState) -> Result<(), Refused> {
        Self::ask(&self.checks, node)
    }

    /// As [`Self::check_with_nominated`], of the node in a slot; what is known of it is not asked again.
    pub fn check_slot(&self, slot: usize, cache: &Cache, nominated: &Nominator, known: &mut Known) -> Result<(), Refused> {
        let (generation, is_promised) = (cache.generation(slot), cache.is_promised(slot));
        if is_promised && (!self.see_node_only() || self.is_for_this_pod(cache.at(slot), nominated)) {
            return self.check_with_nominated(cache.at(slot), nominated);
        }
        let (of_node_only, others) = self.checks.split_at(self.of_node_only);
        match known.verdict(slot, generation) {
            Some(Ok(())) => {}
            Some(Err(refused)) => return Err(refused.clone()),
            None => {
                let node = cache.at(slot);
                let verdict = if is_promised { self.check_with_nominated(node, nominated) } else { Self::ask(of_node_only, node) };
                known.set_verdict(slot, generation, &verdict);
                verdict?;
            }
        }
        if others.is_empty() { Ok(()) } else { Self::ask(others, cache.at(slot)) }
    }

    /// Whether a place on the node is promised to the pod itself, which is to be left out then.
    pub fn is_for_this_pod(&self, node: &NodeState, nominated: &Nominator) -> bool {
        nominated.node_of(&self.pod.key) == Some(node.facts.name.as_str())
    }

    /// Whether all of them look at nothing but the node.
    pub fn see_node_only(&self) -> bool {
        self.of_node_only == self.checks.len()
    }

    fn ask(checks: &[(usize, Arc<dyn NodeCheck<'a> + 'a>)], node: &NodeState) -> Result<(), Refused> {
        for (filter, check) in checks {
            if let Err(refusal) = check.check(node) {
                return Err(Refused { filter: *filter, refusal });
            }
        }
        Ok(())
    }

    /// As [`Self::check`], and also if the pods that were promised a place there, and are as important, were there already.
    pub fn check_with_nominated(&self, node: &NodeState, nominated: &Nominator) -> Result<(), Refused> {
        if nominated.is_empty() {
            return self.check(node);
        }
        let promised = nominated.on(&node.facts.name).iter().filter(|p| p.priority >= self.pod.priority && p.uid != self.pod.uid);
        let promised: Vec<_> = promised.collect();
        if !promised.is_empty() {
            let (mut then, mut crowded) = (self.duplicate(), node.clone());
            for pod in promised {
                crowded.add_pod(pod.clone());
                then.with(pod, &crowded);
            }
            then.check(&crowded)?;
        }
        self.check(node)
    }

    pub fn duplicate(&self) -> Checks<'a> {
        Checks { pod: self.pod, checks: self.checks.clone(), of_node_only: self.of_node_only }
    }

    pub fn with(&mut self, pod: &PodInfo, node: &NodeState) {
        self.followers().for_each(|check| check.with(pod, node));
    }

    pub fn without(&mut self, pod: &PodInfo, node: &NodeState) {
        self.followers().for_each(|check| check.without(pod, node));
    }

    /// The checks to which it matters what other nodes have, and which nobody else sees.
    fn followers(&mut self) -> impl Iterator<Item = &mut (dyn NodeCheck<'a> + 'a)> {
        self.checks.iter_mut().filter(|(_, check)| check.follows()).map(|(_, check)| {
            if Arc::get_mut(check).is_none() {
                *check = Arc::from(check.duplicate());
            }
            Arc::get_mut(check).expect("it is not shared")
        })
    }
}
