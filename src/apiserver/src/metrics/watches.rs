//! Who watches, and what is sent to them.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use api::registry::Resource;
use api::schema::Name;

use super::text::{self, Histogram};
use crate::request::RequestInfo;

const SIZES: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
const FIRST_STATES: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0,
];

/// Group, version and plural.
type Key = (Name, Name, Name);

/// Those that watch one resource. Counted without a lock: every event of every watch passes here.
#[derive(Default)]
struct Audience {
    watchers: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    sizes: [AtomicU64; SIZES.len()],
}

#[derive(Default)]
pub struct Watches {
    audiences: Mutex<BTreeMap<Key, Arc<Audience>>>,
    /// How long it took to send the first state to those that asked for it, by scope.
    first_states: Mutex<BTreeMap<(Key, &'static str), Histogram>>,
}

fn key(resource: &Resource) -> Key {
    (resource.group.clone(), resource.version.clone(), resource.plural.clone())
}

/// Counts one watch while it lives.
pub struct Watcher {
    watches: Arc<Watches>,
    audience: Arc<Audience>,
    of: (Key, &'static str),
    began: Instant,
}

impl Watcher {
    pub fn new(watches: &Arc<Watches>, resource: &Resource, info: &RequestInfo) -> Self {
        let key = key(resource);
        let audience = watches.lock().entry(key.clone()).or_default().clone();
        audience.watchers.fetch_add(1, Ordering::Relaxed);
        Self { watches: watches.clone(), audience, of: (key, super::requests::scope(info)), began: Instant::now() }
    }

    /// An event of so many bytes goes out.
    pub fn sent(&self, bytes: usize) {
        self.audience.events.fetch_add(1, Ordering::Relaxed);
        self.audience.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(size) = self.audience.sizes.get(SIZES.partition_point(|limit| *limit < bytes as f64)) {
            size.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The first state has gone out.
    pub fn listed(&self) {
        let mut first_states = self.watches.first_states.lock().expect("no panic under the lock");
        first_states.entry(self.of.clone()).or_insert_with(|| Histogram::new(FIRST_STATES)).observe(self.began.elapsed().as_secs_f64());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.audience.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Audience>>> {
        self.audiences.lock().expect("no panic under the lock")
    }

    /// How many watch the resource.
    pub fn watching(&self, resource: &Resource) -> usize {
        let watchers = self.lock().get(&key(resource)).map_or(0, |audience| audience.watchers.load(Ordering::Relaxed));
        usize::try_from(watchers).unwrap_or(usize::MAX)
    }

    /// Drops what is not served any more.
    pub fn retain(&self, is_served: impl Fn(&Name, &Name, &Name) -> bool) {
        let keeps = |(group, version, plural): &Key| is_served(group, version, plural);
        self.lock().retain(|key, audience| audience.watchers.load(Ordering::Relaxed) > 0 || keeps(key));
        self.first_states.lock().expect("no panic under the lock").retain(|(key, _), _| keeps(key));
    }

    pub fn render(&self, out: &mut String) {
        let audiences = self.lock().clone();
        let labels = |(group, version, resource): &Key| format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"");
        let name = "apiserver_watch_events_total";
        text::head(out, name, "counter", "Number of events sent in watch clients");
        for (key, audience) in &audiences {
            text::sample(out, name, &labels(key), audience.events.load(Ordering::Relaxed));
        }
        let name = "apiserver_watch_events_sizes";
        text::head(out, name, "histogram", "Watch event size distribution in bytes");
        for (key, audience) in &audiences {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            // Read after the buckets, so that none of them is larger.
            let buckets = audience.sizes.each_ref().map(load);
            Histogram::read(&SIZES, buckets, load(&audience.events), load(&audience.bytes) as f64).write(out, name, &labels(key));
        }
        let name = "apiserver_watch_list_duration_seconds";
        text::head(out, name, "histogram", "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.");
        for ((key, scope), durations) in self.first_states.lock().expect("no panic under the lock").iter() {
            durations.write(out, name, &format!("{},scope=\"{scope}\"", labels(key)));
        }
    }
}
