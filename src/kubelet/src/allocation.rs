//! Which resources each pod of the node has been given.
//!
//! Models pkg/kubelet/allocation, the resize conditions of pkg/kubelet/status and pkg/kubelet/events/resize.go, v1.37. Three answers
//! are kept apart: what a pod *wants* (its spec), what the node has *allocated* to it, and what is *actuated*, written to its cgroups.
//! A pod is allocated what it wants when it comes; a change waits here until it fits, in order of priority. Allocated and actuated
//! are on disk before they take effect, so that a restart neither forgets nor repeats a step.
//!
//! Left out: resizes that can never be done here (static cpu and memory managers, swap, volumes in memory), of which this node has
//! none; what no node of its size can hold is refused by the API server.

mod checkpoint;
mod decide;
pub mod message;
pub mod sizes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use tokio::sync::Notify;
use tracing::warn;

use self::checkpoint::Checkpoint;
pub use self::decide::{Capacity, Part};
use self::decide::Demand;
pub use self::sizes::Sizes;
use crate::pod::status::Verdict;
use crate::resources::{self, Limits};
use crate::time;

/// What has been deferred is looked at again when room was made, and this often (upstream: retryDelay).
pub const RETRY_EVERY: Duration = Duration::from_secs(180);

pub const PENDING: &str = "PodResizePending";
pub const IN_PROGRESS: &str = "PodResizeInProgress";
const DEFERRED: &str = "Deferred";

/// Tells an event of a pod: whether it is a warning, its reason, its message.
pub type Tell = Box<dyn Fn(&Pod, bool, &'static str, String) + Send + Sync>;

/// The allocations of one node. All methods are short; files are small.
pub struct Allocations {
    root: PathBuf,
    tell: Tell,
    capacity: Capacity,
    entries: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    /// The API's newest word.
    wanted: Arc<Pod>,
    kept: Checkpoint,
    /// Wanted differs from allocated, and waits.
    queued: bool,
    pending: Option<PodCondition>,
    progress: Option<PodCondition>,
    /// Wakes the pod's worker after a decision that it did not ask for.
    wake: Arc<Notify>,
}

impl Entry {
    fn demand(&self) -> Demand {
        Demand::new(&self.kept.allocated.apply(&self.wanted), Some(&self.kept.actuated.apply(&self.wanted)))
    }
}

/// What a worker sees of its pod's entry.
pub struct View {
    pub allocated: Sizes,
    pub actuated: Sizes,
    /// The limits of the pod's own cgroup, as last written.
    pub cgroup: Limits,
    pub conditions: Vec<PodCondition>,
}

impl Allocations {
    pub fn new(root: PathBuf, tell: Tell, capacity: Capacity) -> Self {
        Self { root, tell, capacity, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the pods that an earlier run let in, before any other is judged; then what waits is looked at.
    pub fn recover(&self, pods: &[Arc<Pod>]) {
        let mut entries = self.lock();
        for pod in pods.iter().filter(|p| !has_ended(p)) {
            let uid = uid(pod);
            if let Some(kept) = checkpoint::read(&self.root, uid) {
                let entry = entry(pod, kept);
                entries.insert(uid.to_owned(), entry);
            }
        }
        self.retry_in(&mut entries);
    }

    /// Lets a pod in, or says why it cannot be here. One that `was_here` before can.
    pub fn admit(&self, pod: &Arc<Pod>, was_here: bool) -> Result<(), Verdict> {
        let mut entries = self.lock();
        let uid = uid(pod);
        if entries.contains_key(uid) || has_ended(pod) {
            return Ok(());
        }
        if !was_here {
            let others: Vec<Demand> = entries.values().map(Entry::demand).collect();
            if let Some(shortage) = decide::shortage(&Demand::new(pod, None), &others, &self.capacity) {
                return Err(Verdict { reason: format!("OutOf{}", shortage.resource), message: shortage.to_string() });
            }
        }
        let sizes = Sizes::of(pod);
        let kept = Checkpoint { allocated: sizes.clone(), actuated: sizes, cgroup: resources::pod_limits(pod) };
        self.write(uid, &kept);
        entries.insert(uid.to_owned(), entry(pod, kept));
        Ok(())
    }

    /// Its processes have ended: what it had is free.
    pub fn remove(&self, uid: &str) {
        let mut entries = self.lock();
        if entries.remove(uid).is_some() {
            self.retry_in(&mut entries);
        }
    }

    pub fn wake(&self, uid: &str) -> Arc<Notify> {
        self.lock().get(uid).map(|e| e.wake.clone()).unwrap_or_default()
    }

    /// The API's newest word about a pod, with what it has been allocated in place of what it wants.
    pub fn consider(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid(pod)) else { return pod.clone() };
        entry.wanted = pod.clone();
        if entry.kept.allocated.matches(pod) {
            // Perhaps a resize that waited was taken back.
            entry.queued = false;
            entry.pending = None;
            return pod.clone();
        }
        let told = entry.pending.as_ref().and_then(|c| c.observed_generation);
        if !entry.queued || told != pod.metadata.generation {
            entry.queued = true;
            self.retry_in(&mut entries);
        }
        entries.get(uid(pod)).map_or_else(|| pod.clone(), |e| e.kept.allocated.apply(pod))
    }

    /// `pod` as the node has allocated it, after a decision.
    pub fn allocated(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        match self.lock().get(uid(pod)) {
            Some(entry) => entry.kept.allocated.apply(pod),
            None => pod.clone(),
        }
    }

    pub fn retry(&self) {
        self.retry_in(&mut self.lock());
    }

    /// Every resize that waits, the most urgent first; each that fits is allocated.
    fn retry_in(&self, entries: &mut HashMap<String, Entry>) {
        let mut waiting: Vec<(decide::Rank, String)> = entries.iter().filter(|(_, e)| e.queued).map(|(uid, e)| (rank(e), uid.clone())).collect();
        waiting.sort();
        for (_, uid) in waiting {
            let others: Vec<Demand> = entries.iter().filter(|(other, _)| **other != uid).map(|(_, e)| e.demand()).collect();
            let Some(entry) = entries.get_mut(&uid) else { continue };
            let pod = entry.wanted.clone();
            match decide::shortage(&Demand::new(&pod, None), &others, &self.capacity) {
                None => self.allocate(&uid, entry, &pod),
                Some(shortage) => self.defer(entry, &pod, shortage.to_string()),
            }
            entry.wake.notify_one();
        }
    }

    fn allocate(&self, uid: &str, entry: &mut Entry, pod: &Pod) {
        let kept = Checkpoint { allocated: Sizes::of(pod), ..entry.kept.clone() };
        if !self.write(uid, &kept) {
            // Not allocated before it is on disk; tried again.
            return;
        }
        entry.kept = kept;
        entry.queued = false;
        entry.pending = None;
        // A resize that follows on another starts from a clean state.
        entry.progress = Some(condition(IN_PROGRESS, None, "", "", pod.metadata.generation));
        (self.tell)(pod, false, "ResizeStarted", message::started(pod));
    }

    fn defer(&self, entry: &mut Entry, pod: &Pod, why: String) {
        let generation = pod.metadata.generation;
        let news = entry.pending.as_ref().is_none_or(|c| c.reason.as_deref() != Some(DEFERRED) || c.observed_generation != generation);
        if news {
            (self.tell)(pod, true, "ResizeDeferred", message::pending(pod, DEFERRED, &why));
        }
        entry.pending = Some(condition(PENDING, entry.pending.as_ref(), DEFERRED, &why, generation));
    }

    pub fn view(&self, uid: &str) -> Option<View> {
        let entries = self.lock();
        let entry = entries.get(uid)?;
        Some(View {
            allocated: entry.kept.allocated.clone(),
            actuated: entry.kept.actuated.clone(),
            cgroup: entry.kept.cgroup,
            conditions: entry.pending.iter().chain(&entry.progress).cloned().collect(),
        })
    }

    /// A container is about to start with the sizes that it has in `allocated`.
    pub fn starts(&self, uid: &str, allocated: &Sizes, container: &str) {
        self.change(uid, |kept| {
            for part in [Part::Cpu, Part::Memory] {
                kept.actuated.take_container(allocated, container, part);
            }
        });
    }

    /// A container's cgroup holds what `allocated` has for it.
    pub fn container_written(&self, uid: &str, allocated: &Sizes, container: &str, part: Part) {
        self.change(uid, |kept| kept.actuated.take_container(allocated, container, part));
    }

    /// The pod's own cgroup has been written.
    pub fn pod_written(&self, uid: &str, cgroup: Limits) {
        self.change(uid, |kept| kept.cgroup = cgroup);
    }

    /// The pod's own sizes of one part are in force.
    pub fn part_written(&self, uid: &str, allocated: &Sizes, part: Part) {
        self.change(uid, |kept| kept.actuated.take_pod(allocated, part));
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Checkpoint)) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let mut kept = entry.kept.clone();
        change(&mut kept);
        if kept == entry.kept {
            return;
        }
        self.write(uid, &kept);
        let before = entry.demand();
        entry.kept = kept;
        if entry.demand().shrank(&before) {
            self.retry_in(&mut entries);
        }
    }

    /// Shows whether a resize is under way. The generation of one that has just come to its end.
    pub fn settle(&self, uid: &str, under_way: bool) -> Option<i64> {
        let mut entries = self.lock();
        let entry = entries.get_mut(uid)?;
        match (&entry.progress, under_way) {
            (None, true) => {
                entry.progress = Some(condition(IN_PROGRESS, None, "", "", entry.wanted.metadata.generation));
                None
            }
            (Some(_), false) => entry.progress.take().map(|c| c.observed_generation.unwrap_or(0)),
            _ => None,
        }
    }

    /// A step of the actuation failed. The resize's generation, if that is news.
    pub fn failed(&self, uid: &str, why: &str) -> Option<i64> {
        let mut entries = self.lock();
        let entry = entries.get_mut(uid)?;
        let old = entry.progress.take();
        let generation = old.as_ref().map_or(entry.wanted.metadata.generation, |c| c.observed_generation);
        let news = old.as_ref().is_none_or(|c| c.reason.as_deref() != Some("Error") || c.message.as_deref() != Some(why));
        entry.progress = Some(condition(IN_PROGRESS, old.as_ref(), "Error", why, generation));
        news.then(|| generation.unwrap_or(0))
    }

    fn write(&self, uid: &str, kept: &Checkpoint) -> bool {
        match checkpoint::write(&self.root, uid, kept) {
            Ok(()) => true,
            Err(error) => {
                warn!(uid, %error, "write down what a pod has been allocated");
                false
            }
        }
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// With the conditions that the API knows of.
fn entry(pod: &Arc<Pod>, kept: Checkpoint) -> Entry {
    let known = |kind: &str| pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == kind).cloned();
    let queued = !kept.allocated.matches(pod);
    let pending = known(PENDING).filter(|_| queued);
    Entry { wanted: pod.clone(), kept, queued, pending, progress: known(IN_PROGRESS), wake: Arc::default() }
}

fn rank(entry: &Entry) -> decide::Rank {
    let since = entry.pending.as_ref().and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    decide::Rank::new(&entry.wanted, &entry.kept.allocated.apply(&entry.wanted), since)
}

fn condition(kind: &str, old: Option<&PodCondition>, reason: &str, message: &str, generation: Option<i64>) -> PodCondition {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let kept = old.filter(|c| c.reason.as_deref().unwrap_or_default() == reason).and_then(|c| c.last_transition_time.clone());
    let now = time::api(time::now());
    PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        last_probe_time: Some(now.clone()),
        last_transition_time: kept.or(Some(now)),
        observed_generation: generation,
        reason: text(reason),
        message: text(message),
    }
}

#[cfg(test)]
mod tests;
