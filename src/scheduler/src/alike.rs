//! What was found out about each node for pods of one kind: pods that are alike fare alike on a node that has not changed.
//!
//! The idea of pkg/scheduler/framework/runtime/batch.go (OpportunisticBatching, KEP-5598), v1.37: pods have a signature. Upstream goes on
//! with the whole order of nodes that the last pod left, which holds where a pod fills its node; here it is an answer for each node, so that
//! every pod is decided as if nothing had been kept. Only filters and scores take part that look at nothing but the node
//! ([`crate::plugins::Filter::sees_node_only`]); what the others say is asked anew for each pod.
use std::collections::HashMap;
use std::sync::Arc;

use crate::plugins::Refusal;
use crate::pod::PodInfo;
use crate::preemption::Candidate;
use crate::profile::Refused;

/// So many kinds of pods are kept, those that came last. Each takes 24 bytes for a node.
const KINDS_MAX: usize = 8;
/// So many different refusals are kept; more come only from nodes that each have a reason of their own.
const REFUSALS_MAX: usize = 64;

/// Kinds of pods, and what is known of nodes for each.
#[derive(Default)]
pub struct Alike {
    /// The one that was used last stands at the end.
    kinds: Vec<Kind>,
}

struct Kind {
    profile: usize,
    /// Stands for all that are like it.
    pod: Arc<PodInfo>,
    known: Known,
}

impl Alike {
    /// What is known for pods like this one.
    pub fn known(&mut self, pod: &Arc<PodInfo>, profile: usize) -> &mut Known {
        let found = self.kinds.iter().rposition(|kind| kind.profile == profile && is_like(&kind.pod, pod));
        if found.is_none_or(|at| at + 1 < self.kinds.len()) {
            // Victims hold pods, which may be gone.
            self.kinds.iter_mut().for_each(|kind| kind.known.victims = HashMap::new());
            if found.is_none() && self.kinds.len() == KINDS_MAX {
                self.kinds.remove(0);
            }
            let new = || Kind { profile, pod: pod.clone(), known: Known::default() };
            let kind = found.map_or_else(new, |at| self.kinds.remove(at));
            self.kinds.push(kind);
        }
        &mut self.kinds.last_mut().expect("it was found there or pushed").known
    }

    /// No pod waits: those that would have to go for one are not held on to.
    pub fn rest(&mut self) {
        self.kinds.iter_mut().filter(|kind| !kind.known.victims.is_empty()).for_each(|kind| kind.known.victims = HashMap::new());
    }
}

/// Whether what looks at nothing but a node says the same of both.
fn is_like(a: &PodInfo, b: &PodInfo) -> bool {
    // The more important do not see what is promised to the less important.
    a.priority == b.priority
        && a.requests == b.requests
        && a.assumed == b.assumed
        && a.node_name == b.node_name
        && a.tolerations == b.tolerations
        && a.node_selector == b.node_selector
        && a.required_nodes == b.required_nodes
        && a.host_ports == b.host_ports
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Unknown,
    Fits,
    /// Index of the refusal.
    Refused(u16),
}

/// About one node, as it was at a generation.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    generation: u64,
    verdict: Verdict,
    score: Option<i32>,
}

/// What is known of nodes, by slot.
#[derive(Default)]
pub struct Known {
    answers: Vec<Answer>,
    refusals: Vec<Refused>,
    /// Who would have to go, with the generation of the node.
    victims: HashMap<usize, (u64, Victims)>,
}

/// Whom a node would lose, or why it would not help.
pub type Victims = Result<Arc<Candidate>, Refusal>;

impl Known {
    fn at(&mut self, slot: usize, generation: u64) -> &mut Answer {
        if self.answers.len() <= slot {
            self.answers.resize(slot + 1, Answer::default());
        }
        let answer = &mut self.answers[slot];
        if answer.generation != generation {
            *answer = Answer { generation, ..Answer::default() };
        }
        answer
    }

    fn get(&self, slot: usize, generation: u64) -> Option<&Answer> {
        self.answers.get(slot).filter(|answer| answer.generation == generation)
    }

    /// What the filters said; `None`: not known.
    pub fn verdict(&self, slot: usize, generation: u64) -> Option<Result<(), &Refused>> {
        match self.get(slot, generation)?.verdict {
            Verdict::Unknown => None,
            Verdict::Fits => Some(Ok(())),
            Verdict::Refused(i) => self.refusals.get(usize::from(i)).map(Err),
        }
    }

    pub fn set_verdict(&mut self, slot: usize, generation: u64, verdict: &Result<(), Refused>) {
        let verdict = match verdict {
            Ok(()) => Verdict::Fits,
            Err(refused) => self.number_of(refused).map_or(Verdict::Unknown, Verdict::Refused),
        };
        self.at(slot, generation).verdict = verdict;
    }

    fn number_of(&mut self, refused: &Refused) -> Option<u16> {
        let known = self.refusals.iter().position(|r| r == refused);
        let number = known.unwrap_or(self.refusals.len());
        if number == REFUSALS_MAX {
            return None;
        }
        if known.is_none() {
            self.refusals.push(refused.clone());
        }
        u16::try_from(number).ok()
    }

    /// Who would have to go from the node; `None`: not known.
    pub fn victims(&self, slot: usize, generation: u64) -> Option<&Victims> {
        self.victims.get(&slot).filter(|(at, _)| *at == generation).map(|(_, victims)| victims)
    }

    pub fn set_victims(&mut self, slot: usize, generation: u64, victims: Victims) {
        self.victims.insert(slot, (generation, victims));
    }

    /// The weighted sum of the scores.
    pub fn score(&self, slot: usize, generation: u64) -> Option<i64> {
        self.get(slot, generation)?.score.map(i64::from)
    }

    pub fn set_score(&mut self, slot: usize, generation: u64, score: i64) {
        // Weights are small; a sum that is not is worked out each time.
        self.at(slot, generation).score = i32::try_from(score).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::Refusal;
    use crate::schedule::tests::{cpu, pod};

    #[test]
    fn pods_that_ask_for_the_same_are_alike() {
        let mut alike = Alike::default();
        alike.known(&pod("a", cpu("1")), 0).set_score(3, 1, 50);
        assert_eq!(alike.known(&pod("b", cpu("1")), 0).score(3, 1), Some(50));
        assert_eq!(alike.known(&pod("c", cpu("2")), 0).score(3, 1), None);
        assert_eq!(alike.known(&pod("d", cpu("1")), 1).score(3, 1), None, "another profile scores otherwise");
        for i in 0..KINDS_MAX {
            alike.known(&pod("e", cpu(&format!("{}", i + 10))), 0);
        }
        assert_eq!(alike.known(&pod("f", cpu("1")), 0).score(3, 1), None, "it was forgotten for others");
    }

    #[test]
    fn who_would_have_to_go_is_not_held_on_to_when_no_pod_waits() {
        let (mut alike, victim) = (Alike::default(), pod("victim", cpu("1")));
        let candidate = Candidate { node: "a".into(), victims: vec![victim.clone()], violations: 0 };
        let waiting = pod("a", cpu("1"));
        alike.known(&waiting, 0).set_victims(3, 1, Ok(Arc::new(candidate)));
        assert!(alike.known(&waiting, 0).victims(3, 1).is_some());
        alike.rest();
        assert!(alike.known(&waiting, 0).victims(3, 1).is_none());
        assert_eq!(Arc::strong_count(&victim), 1);
    }

    #[test]
    fn a_node_that_has_changed_is_asked_anew() {
        let mut known = Known::default();
        let refused = Refused { filter: 2, refusal: Refusal::resolvable("full") };
        known.set_verdict(1, 7, &Err(refused.clone()));
        known.set_verdict(2, 7, &Ok(()));
        known.set_score(2, 7, 9);
        assert_eq!(known.verdict(1, 7), Some(Err(&refused)));
        assert_eq!((known.verdict(2, 7), known.score(2, 7)), (Some(Ok(())), Some(9)));
        assert_eq!((known.verdict(2, 8), known.score(2, 8)), (None, None));
        known.set_score(2, 8, 5);
        assert_eq!((known.verdict(2, 8), known.score(2, 8)), (None, Some(5)));
        for i in 0..=REFUSALS_MAX {
            known.set_verdict(3, 7, &Err(Refused { filter: i, refusal: Refusal::resolvable("x") }));
        }
        assert_eq!(known.verdict(3, 7), None, "one too many is not kept");
    }
}
