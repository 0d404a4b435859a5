//! Pods that wait for a decision.
//!
//! Models pkg/scheduler/backend/queue: *active* by priority and age; *unschedulable* until an event that one of the
//! plugins which refused the pod calls helpful; then *backing off* for the rest of its back-off, 1 s doubling to 10 s.
//! Nothing polls: the next back-off that ends is the only timer.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use tokio::time::Instant;

use crate::plugins::{ClusterEvent, FILTERS};
use crate::pod::PodInfo;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

enum Place {
    Active { order: (i64, u64) },
    BackingOff { until: Instant },
    Unschedulable { refused_by: Vec<usize>, retry_at: Instant },
    /// Handed out; `moved` notes a helpful event that came meanwhile.
    Deciding { moved: bool },
}

struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
}

#[derive(Default)]
pub struct Queue {
    pods: HashMap<ObjectKey, Waiting>,
    /// Higher priority first, then the one that waits longer.
    active: BTreeMap<(i64, u64), ObjectKey>,
    sequence: u64,
}

impl Queue {
    /// A new or changed pod: it is tried (again) at once.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        let attempts = match self.pods.get_mut(&key) {
            Some(w) if w.pod.uid == pod.uid && matches!(w.place, Place::Active { .. }) => {
                w.pod = pod;
                return;
            }
            Some(w) if matches!(w.place, Place::Deciding { .. }) => {
                w.pod = pod;
                w.place = Place::Deciding { moved: true };
                return;
            }
            Some(w) => w.attempts,
            None => 0,
        };
        self.activate(key, pod, attempts);
    }

    fn activate(&mut self, key: ObjectKey, pod: Arc<PodInfo>, attempts: u32) {
        self.sequence += 1;
        let order = (-i64::from(pod.priority), self.sequence);
        self.active.insert(order, key.clone());
        self.pods.insert(key, Waiting { pod, place: Place::Active { order }, attempts });
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(Waiting { place: Place::Active { order }, .. }) = self.pods.remove(key) {
            self.active.remove(&order);
        }
    }

    /// The pod to decide next.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key).expect("an active pod is known");
        waiting.place = Place::Deciding { moved: false };
        waiting.attempts += 1;
        Some(waiting.pod.clone())
    }

    /// The pod taken by [`Self::pop`] found no node.
    pub fn unschedulable(&mut self, key: &ObjectKey, refused_by: Vec<usize>, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let backoff = BACKOFF_MIN.saturating_mul(1 << waiting.attempts.saturating_sub(1).min(8)).min(BACKOFF_MAX);
        let retry_at = now + backoff;
        waiting.place = match waiting.place {
            Place::Deciding { moved: true } => Place::BackingOff { until: retry_at },
            _ => Place::Unschedulable { refused_by, retry_at },
        };
    }

    /// The binding failed, though the decision stood: tried again after a back-off.
    pub fn retry(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.remove(&pod.key);
        let place = Place::BackingOff { until: now + BACKOFF_MIN };
        self.pods.insert(pod.key.clone(), Waiting { pod, place, attempts: 1 });
    }

    /// Moves the pods that `event` may help.
    pub fn happened(&mut self, event: ClusterEvent, now: Instant) {
        for waiting in self.pods.values_mut() {
            match &mut waiting.place {
                Place::Deciding { moved } => *moved = true,
                Place::Unschedulable { refused_by, retry_at } => {
                    // Without nodes no plugin was asked: any node helps.
                    let helped = refused_by.is_empty() && event == ClusterEvent::NodeAdded || refused_by.iter().any(|i| FILTERS[*i].helped_by(event));
                    if helped {
                        waiting.place = Place::BackingOff { until: (*retry_at).max(now) };
                    }
                }
                Place::Active { .. } | Place::BackingOff { .. } => {}
            }
        }
        self.end_backoffs(now);
    }

    /// Makes active what has waited long enough.
    pub fn end_backoffs(&mut self, now: Instant) {
        let due = |w: &Waiting| matches!(w.place, Place::BackingOff { until } if until <= now);
        let keys: Vec<_> = self.pods.iter().filter(|(_, w)| due(w)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            let Waiting { pod, attempts, .. } = self.pods.remove(&key).expect("just seen");
            self.activate(key, pod, attempts);
        }
    }

    /// When the next back-off ends.
    pub fn next_backoff(&self) -> Option<Instant> {
        self.pods.values().filter_map(|w| if let Place::BackingOff { until } = w.place { Some(until) } else { None }).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let object = serde_json::json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"containers": [], "priority": priority}});
        Arc::new(PodInfo::new(&serde_json::from_value(object).unwrap()))
    }

    fn index(name: &str) -> usize {
        FILTERS.iter().position(|f| f.name() == name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_pod_waits_for_an_event_that_helps_and_for_its_backoff() {
        let mut queue = Queue::default();
        queue.put(pod("low", 0));
        queue.put(pod("high", 5));
        assert_eq!(queue.pop().unwrap().key.name, "high");
        let low = queue.pop().unwrap();
        queue.unschedulable(&low.key, vec![index("NodeResourcesFit")], Instant::now());
        queue.happened(ClusterEvent::NodeLabels, Instant::now());
        assert!(queue.next_backoff().is_none());
        queue.happened(ClusterEvent::PodRemoved, Instant::now());
        assert!(queue.pop().is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.end_backoffs(Instant::now());
        assert_eq!(queue.pop().unwrap().key.name, "low");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_decision_is_not_missed() {
        let mut queue = Queue::default();
        queue.put(pod("p", 0));
        let p = queue.pop().unwrap();
        queue.happened(ClusterEvent::PodRemoved, Instant::now());
        queue.unschedulable(&p.key, vec![index("NodeResourcesFit")], Instant::now());
        assert!(queue.next_backoff().is_some());
    }
}
