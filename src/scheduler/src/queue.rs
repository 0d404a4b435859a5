//! Pods that wait for a decision.
//!
//! Models pkg/scheduler/backend/queue, v1.37: *active* by priority and age; *unschedulable* until an event that one of the plugins which
//! refused the pod calls helpful (or five minutes have passed); then *backing off* for the rest of its back-off, 1 s doubling to 10 s, unless
//! nothing else is to be done; *gated* while something keeps it from being tried at all. Nothing polls: [`Queue::next_timer`] is the only
//! timer. The decisions are made where events are taken in, so that none happens while a pod is being decided.
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{ObjectKey, Room};
use tokio::time::Instant;

use crate::events::{ClusterEvent, bits};
use crate::pod::PodInfo;
use crate::profile::Profile;

/// So long a pod waits for help before it is tried anyway.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

/// By priority, then age.
type Order = (i64, u64);

enum Place {
    Active { order: Order },
    BackingOff { until: Instant, order: Order },
    /// The scheduler itself failed with it; not tried early.
    AfterError { until: Instant, order: Order },
    Unschedulable { since: (Instant, u64) },
    /// `missed`: something happened meanwhile that would have helped.
    Gated { missed: bool },
    /// Handed out.
    Deciding,
}

struct Waiting {
    pod: Arc<PodInfo>,
    profile: usize,
    place: Place,
    tried_at: Instant,
    unschedulable: u32,
    errors: u32,
    rejectors: Rejectors,
}

/// Who turned a pod away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejectors {
    /// By number in the profile.
    pub filters: BTreeSet<usize>,
    pub extender: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(10) }
    }
}

/// Says whether something keeps a pod from being tried at all.
pub type Gate = Box<dyn Fn(&PodInfo) -> bool + Send + Sync>;

pub struct Queue {
    profiles: Arc<Vec<Profile>>,
    backoff: Backoff,
    gate: Gate,
    pods: HashMap<ObjectKey, Waiting>,
    active: BTreeMap<Order, ObjectKey>,
    backing_off: BTreeMap<(Instant, Order), ObjectKey>,
    after_error: BTreeMap<(Instant, Order), ObjectKey>,
    /// With the bits of the events that may help.
    unschedulable: BTreeMap<(Instant, u64), (ObjectKey, u32)>,
    gated: HashSet<ObjectKey>,
    /// Pods (by uid) whose victims are being taken away.
    preempting: HashSet<String>,
    sequence: u64,
}

impl Queue {
    pub fn new(profiles: Arc<Vec<Profile>>, backoff: Backoff, gate: Gate) -> Self {
        Self {
            profiles,
            backoff,
            gate,
            pods: HashMap::new(),
            active: BTreeMap::new(),
            backing_off: BTreeMap::new(),
            after_error: BTreeMap::new(),
            unschedulable: BTreeMap::new(),
            gated: HashSet::new(),
            preempting: HashSet::new(),
            sequence: 0,
        }
    }

    /// A pod that is new, or has changed.
    pub fn put(&mut self, pod: Arc<PodInfo>, profile: usize, now: Instant) {
        let key = pod.key.clone();
        let Some(waiting) = self.pods.get_mut(&key).filter(|w| w.pod.uid == pod.uid) else {
            self.remove(&key);
            let (place, rejectors) = (Place::Deciding, Rejectors::default());
            self.pods.insert(key.clone(), Waiting { pod, profile, place, tried_at: now, unschedulable: 0, errors: 0, rejectors });
            return self.requeue(&key, now);
        };
        let old = std::mem::replace(&mut waiting.pod, pod.clone());
        match &waiting.place {
            Place::Gated { .. } => self.reconsider(&key, now),
            Place::Unschedulable { .. } => {
                let event = ClusterEvent::target_updated(&old, &pod);
                if helps(&self.profiles, &self.pods[&key], &event) {
                    self.requeue(&key, now);
                }
            }
            Place::Active { .. } if old.priority != pod.priority => self.requeue(&key, now),
            _ => {}
        }
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        self.unlink(key);
        self.pods.remove(key);
        self.pods.give_back();
    }

    fn unlink(&mut self, key: &ObjectKey) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        match std::mem::replace(&mut waiting.place, Place::Deciding) {
            Place::Active { order } => drop(self.active.remove(&order)),
            Place::BackingOff { until, order } => drop(self.backing_off.remove(&(until, order))),
            Place::AfterError { until, order } => drop(self.after_error.remove(&(until, order))),
            Place::Unschedulable { since } => drop(self.unschedulable.remove(&since)),
            Place::Gated { .. } => {
                self.gated.remove(key);
                self.gated.give_back();
            }
            Place::Deciding => {}
        }
    }

    /// The pod to decide next, and its profile.
    pub fn pop(&mut self) -> Option<(Arc<PodInfo>, usize)> {
        // With nothing else to do, a back-off need not be waited for.
        let key = match self.active.pop_first() {
            Some((_, key)) => key,
            None => self.backing_off.pop_first()?.1,
        };
        let waiting = self.pods.get_mut(&key).expect("a queued pod is known");
        waiting.place = Place::Deciding;
        Some((waiting.pod.clone(), waiting.profile))
    }

    /// The pod taken by [`Self::pop`] found no node.
    pub fn unschedulable(&mut self, key: &ObjectKey, rejectors: Rejectors, now: Instant) {
        self.sequence += 1;
        let since = (now, self.sequence);
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let listens = listens(&self.profiles[waiting.profile], &rejectors);
        waiting.tried_at = now;
        waiting.unschedulable += 1;
        waiting.errors = 0;
        waiting.rejectors = rejectors;
        waiting.place = Place::Unschedulable { since };
        self.unschedulable.insert(since, (key.clone(), listens));
    }

    /// Something else went wrong with the pod: tried again after a back-off.
    pub fn failed(&mut self, pod: Arc<PodInfo>, profile: usize, now: Instant) {
        let key = pod.key.clone();
        self.unlink(&key);
        let (place, rejectors) = (Place::Deciding, Rejectors::default());
        let new = Waiting { pod: pod.clone(), profile, place, tried_at: now, unschedulable: 0, errors: 0, rejectors };
        let waiting = self.pods.entry(key.clone()).or_insert(new);
        waiting.pod = pod;
        waiting.tried_at = now;
        waiting.errors += 1;
        waiting.rejectors = Rejectors::default();
        let (until, priority) = (now + delay(self.backoff, waiting.errors), -i64::from(waiting.pod.priority));
        self.sequence += 1;
        let order = (priority, self.sequence);
        waiting.place = Place::AfterError { until, order };
        self.after_error.insert((until, order), key);
    }

    /// Moves the pods that `event` may help; `but` is left alone.
    pub fn happened(&mut self, event: &ClusterEvent, but: Option<&ObjectKey>, now: Instant) {
        let (profiles, pods) = (&self.profiles, &self.pods);
        let listening = self.unschedulable.values().filter(|(_, bits)| bits & event.bits != 0).map(|(key, _)| key);
        let helped = listening.filter(|key| but != Some(key) && helps(profiles, &pods[*key], event));
        for key in helped.cloned().collect::<Vec<_>>() {
            self.requeue(&key, now);
        }
        if event.bits & bits::DEVICE_CLAIM != 0 {
            for key in self.gated.iter().cloned().collect::<Vec<_>>() {
                self.reconsider(&key, now);
            }
        }
    }

    /// As [`Self::happened`], for pods that are no more important than `priority`.
    pub fn happened_to_lesser(&mut self, event: &ClusterEvent, priority: i32, now: Instant) {
        let (profiles, pods) = (&self.profiles, &self.pods);
        let listening = self.unschedulable.values().filter(|(_, bits)| bits & event.bits != 0).map(|(key, _)| key);
        let helped = listening.filter(|key| {
            let waiting = &pods[*key];
            waiting.pod.priority <= priority && helps(profiles, waiting, event)
        });
        for key in helped.cloned().collect::<Vec<_>>() {
            self.requeue(&key, now);
        }
    }

    /// The pod's victims are being taken away: it is not tried until [`Self::preempted`].
    pub fn preempts(&mut self, uid: &str) {
        self.preempting.insert(uid.to_owned());
    }

    /// They have been told to go. `failed`: not all, so that the pod is tried again at once.
    pub fn preempted(&mut self, key: &ObjectKey, uid: &str, failed: bool, now: Instant) {
        self.preempting.remove(uid);
        match self.pods.get(key).map(|w| &w.place) {
            Some(Place::Gated { missed: true }) => self.requeue(key, now),
            Some(Place::Gated { .. } | Place::Unschedulable { .. } | Place::BackingOff { .. }) if failed => self.activate(key),
            _ => {}
        }
    }

    /// A gate may have opened.
    fn reconsider(&mut self, key: &ObjectKey, now: Instant) {
        if !self.is_gated(key) {
            self.requeue(key, now);
        }
    }

    fn is_gated(&self, key: &ObjectKey) -> bool {
        let waiting = &self.pods[key];
        let by_user = self.profiles[waiting.profile].gates && !waiting.pod.gates.is_empty();
        by_user || self.preempting.contains(&waiting.pod.uid) || (self.gate)(&waiting.pod)
    }

    /// To be tried as soon as its back-off and its gates allow.
    fn requeue(&mut self, key: &ObjectKey, now: Instant) {
        self.unlink(key);
        if self.is_gated(key) {
            let waiting = self.pods.get_mut(key).expect("just looked at");
            waiting.place = Place::Gated { missed: true };
            self.gated.insert(key.clone());
            return;
        }
        let waiting = &self.pods[key];
        let until = waiting.tried_at + delay(self.backoff, waiting.unschedulable);
        if until <= now {
            return self.activate(key);
        }
        self.sequence += 1;
        let order = (-i64::from(waiting.pod.priority), self.sequence);
        self.backing_off.insert((until, order), key.clone());
        self.pods.get_mut(key).expect("just looked at").place = Place::BackingOff { until, order };
    }

    fn activate(&mut self, key: &ObjectKey) {
        self.unlink(key);
        self.sequence += 1;
        let waiting = self.pods.get_mut(key).expect("a pod that is moved is known");
        let order = (-i64::from(waiting.pod.priority), self.sequence);
        waiting.place = Place::Active { order };
        self.active.insert(order, key.clone());
    }

    /// Moves what has waited long enough.
    pub fn timers(&mut self, now: Instant) {
        while let Some(((until, _), key)) = self.backing_off.first_key_value() {
            if *until > now {
                break;
            }
            let key = key.clone();
            self.activate(&key);
        }
        while let Some(((until, _), key)) = self.after_error.first_key_value() {
            if *until > now {
                break;
            }
            let key = key.clone();
            self.requeue(&key, now);
        }
        while let Some(((since, _), (key, _))) = self.unschedulable.first_key_value() {
            if *since + UNSCHEDULABLE_MAX > now {
                break;
            }
            let key = key.clone();
            self.requeue(&key, now);
        }
    }

    /// When [`Self::timers`] has something to do.
    pub fn next_timer(&self) -> Option<Instant> {
        let backoffs = self.backing_off.keys().next().map(|(until, _)| *until);
        let errors = self.after_error.keys().next().map(|(until, _)| *until);
        let leftover = self.unschedulable.keys().next().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        [backoffs, errors, leftover].into_iter().flatten().min()
    }

    /// Pods that are active, backing off, unschedulable, and gated.
    pub fn counts(&self) -> [usize; 4] {
        [self.active.len(), self.backing_off.len() + self.after_error.len(), self.unschedulable.len(), self.gated.len()]
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|w| &w.pod)
    }
}

/// Whether one of the plugins that turned the pod away may change its mind.
fn helps(profiles: &[Profile], waiting: &Waiting, event: &ClusterEvent) -> bool {
    let Rejectors { filters, extender } = &waiting.rejectors;
    let nobody = filters.is_empty() && !extender; // without nodes no plugin was asked: anything may help
    let filters = filters.iter().map(|i| &profiles[waiting.profile].filters[*i]);
    *extender || nobody || filters.into_iter().any(|f| f.events() & event.bits != 0 && f.helps(&waiting.pod, event))
}

/// Bits of the events that [`helps`] may say yes to.
fn listens(profile: &Profile, Rejectors { filters, extender }: &Rejectors) -> u32 {
    match filters.is_empty() || *extender {
        true => u32::MAX,
        false => filters.iter().map(|i| profile.filters[*i].events()).fold(0, |all, bits| all | bits),
    }
}

fn delay(backoff: Backoff, count: u32) -> Duration {
    match count {
        0 => Duration::ZERO,
        n => backoff.initial.saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX)).min(backoff.max),
    }
}
