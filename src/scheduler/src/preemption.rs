//! Making room: which pods of lower priority would have to go for this one. Pure.
//!
//! Models pkg/scheduler/framework/preemption (preemption.go, util.go) and plugins/defaultpreemption, v1.37. Pod groups are off by default
//! there and left out here.
mod budgets;
mod pick;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use self::budgets::split_by_budgets;
pub use self::pick::pick;
use crate::alike::Known;
use crate::cache::NodeState;
use crate::nominator::Nominator;
use crate::plugins::{Refusal, World};
use crate::pod::PodInfo;
use crate::profile::Checks;
use crate::schedule::{Diagnosis, Random, Refusals, fit_error};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreemptionArgs {
    pub candidates_percent_min: usize,
    pub candidates_min: usize,
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        Self { candidates_percent_min: 10, candidates_min: 100 }
    }
}

/// A node that would fit once its victims are gone; the most important of them first.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
    /// So many victims are beyond what their budgets allow.
    pub violations: i64,
}

/// What is known when the filters have turned the pod away.
pub struct Plight<'p, 'a> {
    pub pod: &'p PodInfo,
    pub world: &'p World<'a>,
    pub checks: Option<&'p Checks<'a>>,
    pub diagnosis: &'p Diagnosis,
    pub nominated: &'p Nominator,
}

/// Why the pod may not take others' places now.
pub fn ineligible(plight: &Plight) -> Option<&'static str> {
    let pod = plight.pod;
    if pod.never_preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = plight.world.cache.node(&pod.nominated_node).filter(|_| !pod.nominated_node.is_empty())?;
    let is_hopeless = !plight.diagnosis.is_resolvable(node.slot);
    let is_waiting = !is_hopeless && node.pods.iter().any(|p| p.priority < pod.priority && p.preempted);
    is_waiting.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Candidates, those that violate no budget first; or why there is none, as upstream words it.
pub fn candidates(
    plight: &Plight,
    args: PreemptionArgs,
    budgets: &[Arc<PodDisruptionBudget>],
    random: &mut Random,
    known: &mut Known,
) -> Result<Vec<Arc<Candidate>>, String> {
    let cache = plight.world.cache;
    let potential: Vec<&NodeState> = cache.nodes().filter(|n| plight.diagnosis.is_resolvable(n.slot)).collect();
    let (mut kept, mut violating, mut refused) = (Vec::new(), Vec::new(), Refusals::default());
    if let (Some(checks), false) = (plight.checks, potential.is_empty()) {
        let wanted = (potential.len() * args.candidates_percent_min / 100).max(args.candidates_min).min(potential.len());
        let offset = random.below(potential.len());
        // What depends on budgets, or on other nodes, is not kept.
        let may_be_kept = budgets.is_empty() && checks.see_node_only();
        for i in 0..potential.len() {
            let node = potential[(offset + i) % potential.len()];
            let generation = cache.generation(node.slot);
            let is_kept = may_be_kept && !(cache.is_promised(node.slot) && checks.is_for_this_pod(node, plight.nominated));
            let found = match known.victims(node.slot, generation).filter(|_| is_kept) {
                Some(found) => found.clone(),
                None => {
                    let found = victims_on(node, plight, checks, budgets).map(Arc::new);
                    if is_kept {
                        known.set_victims(node.slot, generation, found.clone());
                    }
                    found
                }
            };
            match found {
                Ok(candidate) if candidate.violations == 0 => kept.push(candidate),
                Ok(candidate) => violating.push(candidate),
                Err(refusal) => {
                    refused.insert(node.slot, &refusal);
                }
            }
            if !kept.is_empty() && kept.len() + violating.len() >= wanted {
                break;
            }
        }
    }
    kept.append(&mut violating);
    match kept.is_empty() {
        false => Ok(kept),
        true => {
            let others = Refusal::unresolvable("Preemption is not helpful for scheduling");
            Err(fit_error(cache.node_count(), &refused, Some(&others)))
        }
    }
}

/// The more important comes first: by priority, then the one that runs longer.
fn by_importance(a: &Arc<PodInfo>, b: &Arc<PodInfo>) -> Ordering {
    let started = |p: &PodInfo| p.start_time.as_ref().map(|t| t.0);
    let by_time = match (started(a), started(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        // What has not started yet counts as starting now.
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    b.priority.cmp(&a.priority).then(by_time)
}

/// The fewest pods that must leave the node, the important ones spared first.
fn victims_on(node: &NodeState, plight: &Plight, checks: &Checks, budgets: &[Arc<PodDisruptionBudget>]) -> Result<Candidate, Refusal> {
    let mut lesser: Vec<_> = node.pods.iter().filter(|p| p.priority < plight.pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(Refusal::unresolvable("No preemption victims found for incoming pod"));
    }
    let (mut node, mut checks) = (node.clone(), checks.duplicate());
    for pod in &lesser {
        node.remove_pod(&pod.key);
        checks.without(pod, &node);
    }
    checks.check_with_nominated(&node, plight.nominated).map_err(|refused| refused.refusal)?;
    lesser.sort_by(by_importance);
    let (violating, others) = split_by_budgets(&lesser, budgets);
    let both = !violating.is_empty() && !others.is_empty();
    let (mut victims, mut violations) = (Vec::new(), 0);
    let all = violating.into_iter().map(|p| (p, true)).chain(others.into_iter().map(|p| (p, false)));
    for (pod, violates) in all {
        node.add_pod(pod.clone());
        checks.with(&pod, &node);
        if checks.check_with_nominated(&node, plight.nominated).is_err() {
            node.remove_pod(&pod.key);
            checks.without(&pod, &node);
            victims.push(pod);
            violations += i64::from(violates);
        }
    }
    if both {
        victims.sort_by(by_importance);
    }
    match victims.is_empty() {
        true => Err(Refusal::unresolvable(format!("expected at least one victim pod on node {:?}", node.facts.name))),
        false => Ok(Candidate { node: node.facts.name.clone(), victims, violations }),
    }
}
