//! How long a node's failed daemon pod is left alone: the controller often fights with a kubelet that turns pods away.
//!
//! Models client-go util/flowcontrol Backoff as the daemon controller uses it.
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use client::Named;
use client::k8s_openapi::api::apps::v1::DaemonSet;
use jiff::{SignedDuration, Timestamp};

const INITIAL: SignedDuration = SignedDuration::from_secs(1);
const MAX: SignedDuration = SignedDuration::from_mins(15);
const POISON: &str = "nothing panics while it holds the back-offs";

#[derive(Default)]
pub(super) struct FailedPods(Mutex<HashMap<String, Entry>>);

struct Entry {
    delay: SignedDuration,
    since: Timestamp,
}

impl Entry {
    fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.since) > MAX * 2
    }
}

fn key(ds: &DaemonSet, node: &str) -> String {
    let generation = ds.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
    format!("{}/{generation}/{node}", ds.uid())
}

impl FailedPods {
    /// How long a failed pod on this node stays; `None` where it may be deleted now.
    pub fn remaining(&self, ds: &DaemonSet, node: &str, now: Timestamp) -> Option<Duration> {
        let entries = self.0.lock().expect(POISON);
        let entry = entries.get(&key(ds, node)).filter(|e| !e.is_over(now))?;
        let left = entry.delay - now.duration_since(entry.since);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }

    /// One was deleted now: the next stays twice as long.
    pub fn seen(&self, ds: &DaemonSet, node: &str, now: Timestamp) {
        let mut entries = self.0.lock().expect(POISON);
        // What is over is forgotten, so that the map holds no more than recent failures.
        entries.retain(|_, e| !e.is_over(now));
        let delay = entries.get(&key(ds, node)).map_or(INITIAL, |e| (e.delay * 2).min(MAX));
        entries.insert(key(ds, node), Entry { delay, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_per_node_and_are_forgotten_in_the_end() {
        let (failed, ds) = (FailedPods::default(), DaemonSet::default());
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(failed.remaining(&ds, "a", at(0)), None);
        failed.seen(&ds, "a", at(0));
        assert_eq!(failed.remaining(&ds, "a", at(0)), Some(Duration::from_secs(1)));
        assert_eq!(failed.remaining(&ds, "a", at(1)), None);
        assert_eq!(failed.remaining(&ds, "b", at(0)), None);
        failed.seen(&ds, "a", at(1));
        failed.seen(&ds, "a", at(3));
        assert_eq!(failed.remaining(&ds, "a", at(4)), Some(Duration::from_secs(3)));
        failed.seen(&ds, "a", at(4000));
        assert_eq!(failed.remaining(&ds, "a", at(4000)), Some(Duration::from_secs(1)));
    }
}
