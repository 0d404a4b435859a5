//! Keys waiting for a worker: each at most once, none with two workers at a time.
//!
//! Models client-go util/workqueue (queue.go, delaying_queue.go, default_rate_limiters.go), v1.37: a key added while a worker
//! has it comes again when that worker is done. Bounded by the number of distinct keys. Left out: the overall rate limit of 10 per second (it
//! protects a remote API server; ours has priority and fairness).
mod metrics;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::metrics::Numbers;
use crate::backoff::jitter;
use crate::room::Room;

pub use self::metrics::page as metrics_page;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(1000);
const POISON: &str = "nothing panics while it holds the queue";

pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// All that must be worked on, queued or waiting for the worker that has it.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    /// By due time; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<T, u32>,
    shut_down: bool,
    numbers: Numbers,
    /// Of what is ready: since when.
    queued_at: HashMap<T, Instant>,
    /// Of what workers have: since when.
    begun_at: HashMap<T, Instant>,
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            shut_down: false,
            numbers: Numbers::default(),
            queued_at: HashMap::new(),
            begun_at: HashMap::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A queue that [`metrics_page`] tells of.
    pub fn named(name: &'static str) -> Self
    where
        T: Send + 'static,
    {
        let queue = Self::new();
        let shared: Arc<dyn metrics::Source> = queue.shared.clone();
        metrics::register(name, Arc::downgrade(&shared));
        queue
    }

    pub fn add(&self, item: T) {
        let mut state = self.shared.state.lock().expect(POISON);
        if state.add(item) {
            self.shared.changed.notify_one();
        }
    }

    /// Adds after a delay; of several delays of one item the shortest holds.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        let at = Instant::now() + delay;
        let mut state = self.shared.state.lock().expect(POISON);
        if state.shut_down {
            return;
        }
        state.numbers.retries += 1;
        match state.due.get(&item).copied() {
            Some((due, _)) if due <= at => return,
            Some(due) => {
                state.delayed.remove(&due);
            }
            None => {}
        }
        state.sequence += 1;
        let due = (at, state.sequence);
        state.delayed.insert(due, item.clone());
        state.due.insert(item, due);
        // A sleeping worker must look at the new due time if it is the earliest.
        if state.delayed.first_key_value().is_some_and(|(first, _)| *first == due) {
            self.shared.changed.notify_one();
        }
    }

    /// Adds after the item's back-off: 5 ms doubled with each failure up to 1000 s, and up to a tenth more.
    pub fn add_rate_limited(&self, item: T) {
        let failures = {
            let mut state = self.shared.state.lock().expect(POISON);
            let failures = state.failures.entry(item.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let delay = FIRST_RETRY.saturating_mul(2u32.saturating_pow(failures - 1)).min(LAST_RETRY);
        self.add_after(item, jitter(delay, 0.1));
    }

    /// Ends the item's back-off.
    pub fn forget(&self, item: &T) {
        let failures = &mut self.shared.state.lock().expect(POISON).failures;
        failures.remove(item);
        failures.give_back();
    }

    pub fn failures(&self, item: &T) -> u32 {
        self.shared.state.lock().expect(POISON).failures.get(item).copied().unwrap_or(0)
    }

    /// The next item, which [`Self::done`] must be told of; `None` after shut-down. Cancel-safe.
    pub async fn get(&self) -> Option<T> {
        loop {
            let changed = self.shared.changed.notified();
            let next_due = {
                let mut state = self.shared.state.lock().expect(POISON);
                state.move_due(Instant::now());
                if let Some(item) = state.ready.pop_front() {
                    state.dirty.remove(&item);
                    state.processing.insert(item.clone());
                    state.begin(&item, Instant::now());
                    state.shrink();
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return Some(item);
                }
                if state.shut_down {
                    self.shared.changed.notify_one();
                    return None;
                }
                state.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match next_due {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// The worker has finished with `item`; it comes again if it was added meanwhile.
    pub fn done(&self, item: &T) {
        let mut state = self.shared.state.lock().expect(POISON);
        state.processing.remove(item);
        let now = Instant::now();
        if let Some(began) = state.begun_at.remove(item) {
            state.numbers.worked.observe(now - began);
        }
        if state.dirty.contains(item) {
            state.ready.push_back(item.clone());
            state.queued_at.insert(item.clone(), now);
            self.shared.changed.notify_one();
        }
    }

    /// Items ready for a worker.
    pub fn len(&self) -> usize {
        self.shared.state.lock().expect(POISON).ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more items; workers get what is ready, then `None`.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock().expect(POISON);
        state.shut_down = true;
        state.delayed.clear();
        state.due.clear();
        self.shared.changed.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Whether a worker can take it now.
    fn add(&mut self, item: T) -> bool {
        if self.shut_down || !self.dirty.insert(item.clone()) {
            return false;
        }
        self.numbers.adds += 1;
        if self.processing.contains(&item) {
            return false;
        }
        self.queued_at.insert(item.clone(), Instant::now());
        self.ready.push_back(item);
        true
    }

    /// A burst leaves no room behind that nobody fills again.
    fn shrink(&mut self) {
        const ROOM: usize = 1024;
        if self.ready.is_empty() && self.ready.capacity() > ROOM {
            self.ready = VecDeque::new();
        }
        self.dirty.give_back();
        self.queued_at.give_back();
        self.due.give_back();
    }

    fn begin(&mut self, item: &T, now: Instant) {
        if let Some(queued) = self.queued_at.remove(item) {
            self.numbers.waited.observe(now - queued);
        }
        self.begun_at.insert(item.clone(), now);
    }

    fn move_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let item = entry.remove();
            self.due.remove(&item);
            self.add(item);
        }
    }
}

impl<T: Clone + Eq + Hash + Send> metrics::Source for Shared<T> {
    fn numbers(&self) -> Numbers {
        let state = self.state.lock().expect(POISON);
        let now = Instant::now();
        let unfinished = state.begun_at.values().map(|began| now - *began);
        Numbers {
            depth: state.ready.len() as u64,
            unfinished: unfinished.clone().sum(),
            longest: unfinished.max().unwrap_or_default(),
            ..state.numbers.clone()
        }
    }
}

#[cfg(test)]
mod tests;
