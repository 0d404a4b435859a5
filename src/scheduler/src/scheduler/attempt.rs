//! One pod's turn: find a node and send the pod there, or make room, or say why not.
//!
//! Models pkg/scheduler/schedule_one.go `schedulingAlgorithm`, `schedulePod`, v1.37.
use std::collections::HashMap;
use std::sync::Arc;

use client::{EventType, Informer, Named, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::Instant;

use super::Scheduler;
use super::failure::{Failure, Nominate};
use crate::alike::Known;
use crate::dra;
use crate::extender::{Extender, ExtenderError};
use crate::plugins::{Refusal, World};
use crate::pod::PodInfo;
use crate::preemption::{self, Candidate, Plight};
use crate::profile::Profile;
use crate::queue::Rejectors;
use crate::schedule::{Diagnosis, Fitting, Random, best, find, score};

/// What an attempt came to.
enum Outcome {
    Node(String),
    /// With the candidate whose victims are to go, where there is one.
    None(Failure, Option<Arc<Candidate>>),
}

impl Scheduler {
    pub(super) async fn attempt(&mut self, pod: Arc<PodInfo>, profile: usize) {
        if pod.deleting {
            let message = format!("skip schedule deleting pod: {}", pod.key);
            self.events[profile].record_on(pod.reference(), EventType::Warning, "FailedScheduling", message);
            return self.queue.remove(&pod.key);
        }
        if self.cache.is_assumed(&pod.key) {
            return self.queue.remove(&pod.key);
        }
        let mut object = None;
        if !self.extenders.is_empty() {
            object = self.pods.get(&pod.key).filter(|o| o.uid() == pod.uid);
            if object.is_none() {
                return self.queue.remove(&pod.key); // its deletion is on its way here
            }
        }
        self.nominator.tell(&mut self.cache);
        let mut alike = std::mem::take(&mut self.alike);
        let outcome = self.decide(&pod, object.as_deref(), profile, alike.known(&pod, profile)).await;
        self.alike = alike;
        match outcome {
            Outcome::Node(node) => self.send(pod, object, profile, &node),
            Outcome::None(failure, candidate) => {
                if let Some(candidate) = candidate {
                    self.remove_victims(&pod, profile, &candidate);
                }
                self.failed(&pod, profile, failure);
            }
        }
    }

    /// `object`: the whole pod, where there are extenders.
    async fn decide(&mut self, pod: &Arc<PodInfo>, object: Option<&Pod>, profile: usize, known: &mut Known) -> Outcome {
        let profiles = self.profiles.clone();
        let profile = &profiles[profile];
        let labels = self.namespace_labels();
        let mut next_node = self.next_node;
        let extenders = self.extenders.clone();
        let interested: Vec<(&Extender, &Pod)> = match object {
            Some(object) => extenders.iter().filter(|e| e.is_interested(object)).map(|e| (e, object)).collect(),
            None => Vec::new(),
        };
        let world =
            World { cache: &self.cache, namespace_labels: &labels, volumes: &self.volumes, owners: &self.owners, devices: &self.devices };
        if world.cache.node_count() == 0 {
            let message = "no nodes available to schedule pods".to_owned();
            return Outcome::None(Failure::unschedulable(message, Rejectors::default(), Nominate::Nothing), None);
        }
        let scored = !profile.scores.is_empty() || extenders.iter().any(|e| e.filters() || e.prioritizes());
        let Fitting { mut slots, mut diagnosis, checks } = find(profile, pod, &world, &self.nominator, &mut next_node, scored, known);
        self.next_node = next_node;
        for (extender, object) in &interested {
            if slots.is_empty() {
                break;
            }
            if !extender.filters() {
                continue;
            }
            match extender.filter(object, &self.objects(&slots)).await {
                Ok(left) => {
                    let mut refused = |name: &str| -> bool {
                        let Some(slot) = world.cache.node(name).map(|n| n.slot) else { return false };
                        let refusal = match (left.unresolvable.get(name), left.failed.get(name)) {
                            (Some(why), _) => Refusal::unresolvable(why.clone()),
                            (None, Some(why)) => Refusal::resolvable(why.clone()),
                            (None, None) => return left.nodes.contains(name),
                        };
                        diagnosis.refused.insert(slot, &refusal);
                        left.nodes.contains(name)
                    };
                    let before = slots.len();
                    slots.retain(|slot| world.cache.in_slot(*slot).is_some_and(|n| refused(&n.facts.name)));
                    diagnosis.by_extender |= slots.len() < before;
                }
                Err(error) if extender.is_ignorable() => {
                    tracing::info!(extender = extender.name(), error = &error as &dyn std::error::Error, "extender skipped");
                }
                Err(error) => return Outcome::None(Failure::error(told(&error)), None),
            }
        }
        if slots.is_empty() {
            let plight = Plight { pod, world: &world, checks: checks.as_ref(), diagnosis: &diagnosis, nominated: &self.nominator };
            let freed = self.free_idle_claim(profile, pod, &world);
            let (afterwards, nominate, candidate) = match find_room(profile, &plight, &mut self.random, known, || self.budgets.list()) {
                Err((why, nominate)) => (why, nominate, None),
                Ok(found) => chosen(extend_preemption(&interested, &self.pods, found).await),
            };
            let words = [freed, (!afterwards.is_empty()).then_some(afterwards)];
            diagnosis.afterwards = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
            return Outcome::None(refused_by_all(diagnosis, nominate), candidate);
        }
        if let [only] = slots.as_slice() {
            return Outcome::Node(name_of(&world, *only));
        }
        let mut totals = score(profile, pod, &slots, &world, known);
        for (extender, object) in &interested {
            if !extender.prioritizes() {
                continue;
            }
            match extender.prioritize(object, &self.objects(&slots)).await {
                Ok(scores) => add_scores(&mut totals, slots.iter().map(|slot| &*world.cache.at(*slot).facts.name), &scores),
                // Others decide then.
                Err(error) => tracing::debug!(extender = extender.name(), error = &error as &dyn std::error::Error, "no scores"),
            }
        }
        Outcome::Node(name_of(&world, slots[best(&totals, &mut self.random)]))
    }

    /// A claim that nobody uses gives its devices back where they keep the pod from its nodes.
    fn free_idle_claim(&self, profile: &Profile, pod: &PodInfo, world: &World) -> Option<String> {
        if !profile.binds_devices || pod.device_claims.is_empty() {
            return None;
        }
        let claim = dra::idle(pod, world)?;
        let mut update = (*claim).clone();
        update.status = None;
        let client = self.client.clone();
        tokio::spawn(async move {
            if let Err(error) = client.update_status(&update).await {
                tracing::debug!(claim = %update.key(), error = &error as &dyn std::error::Error, "claim not deallocated");
            }
        });
        Some("deallocation of ResourceClaim completed".to_owned())
    }

    /// Node objects, for extenders.
    fn objects(&self, slots: &[usize]) -> Vec<Arc<Node>> {
        let names = slots.iter().filter_map(|slot| self.cache.in_slot(*slot)).map(|n| n.facts.name.clone());
        names.filter_map(|name| self.nodes.get(&ObjectKey::cluster(name))).collect()
    }

    /// The pod was told off.
    fn failed(&mut self, pod: &Arc<PodInfo>, profile: usize, failure: Failure) {
        let now = Instant::now();
        match &failure.rejectors {
            Some(rejectors) => self.queue.unschedulable(&pod.key, rejectors.clone(), now),
            None => self.queue.failed(pod.clone(), profile, now),
        }
        self.report(pod, profile, failure);
    }
}

fn name_of(world: &World, slot: usize) -> String {
    world.cache.in_slot(slot).map(|n| n.facts.name.clone()).unwrap_or_default()
}

fn add_scores<'n>(totals: &mut [i64], names: impl Iterator<Item = &'n str>, scores: &HashMap<String, i64>) {
    for (total, name) in totals.iter_mut().zip(names) {
        *total += scores.get(name).copied().unwrap_or_default();
    }
}

fn refused_by_all(diagnosis: Diagnosis, nominate: Nominate) -> Failure {
    let rejectors = Rejectors { filters: diagnosis.filters.clone(), extender: diagnosis.by_extender };
    Failure::unschedulable(diagnosis.message(), rejectors, nominate)
}

/// An error and its causes, in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Where room could be made (PostFilter); or words for the event, and what becomes of the promise.
fn find_room(
    profile: &Profile,
    plight: &Plight,
    random: &mut Random,
    known: &mut Known,
    budgets: impl Fn() -> Vec<Arc<PodDisruptionBudget>>,
) -> Result<Vec<Arc<Candidate>>, (String, Nominate)> {
    let Some(args) = profile.preemption else { return Err((String::new(), Nominate::Nothing)) };
    if let Some(why) = preemption::ineligible(plight) {
        return Err((format!("preemption: {why}"), Nominate::Unchanged));
    }
    preemption::candidates(plight, args, &budgets(), random, known).map_err(|why| (format!("preemption: {why}"), Nominate::Nothing))
}

/// What the extenders leave of it.
async fn extend_preemption(
    extenders: &[(&Extender, &Pod)],
    pods: &Informer<Pod>,
    mut left: Vec<Arc<Candidate>>,
) -> Result<Vec<Arc<Candidate>>, ExtenderError> {
    for (extender, object) in extenders {
        if !extender.preempts() {
            continue;
        }
        match extender.preempt(object, &left, |key| pods.get(key)).await {
            Ok(kept) => left = kept,
            Err(error) if extender.is_ignorable() => {
                tracing::info!(extender = extender.name(), error = &error as &dyn std::error::Error, "extender skipped");
            }
            Err(error) => return Err(error),
        }
        if left.is_empty() {
            break;
        }
    }
    Ok(left)
}

fn chosen(candidates: Result<Vec<Arc<Candidate>>, ExtenderError>) -> (String, Nominate, Option<Arc<Candidate>>) {
    let left = match candidates {
        Err(error) => return (format!("preemption: {}", told(&error)), Nominate::Unchanged, None),
        Ok(left) => left,
    };
    match preemption::pick(left) {
        None => ("preemption: no candidate node for preemption".to_owned(), Nominate::Unchanged, None),
        Some(candidate) => {
            let (node, victims) = (&candidate.node, candidate.victims.len());
            let found = format!("preemption: found a potential placement for pod on node {node}, preempting {victims} victims");
            (found, Nominate::Node(node.clone()), Some(candidate))
        }
    }
}
