//! Creates and deletes that were asked for and have not come back through the watch yet.
//!
//! Models pkg/controller/controller_utils.go ControllerExpectations and UIDTrackingControllerExpectations, v1.37. Until they
//! are met, what the informer shows is older than what this process has done, and acting on it would do it twice.
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Clock;
use crate::object::ObjectKey;
use crate::room::Room;

/// After so long a missed event is taken for lost, as upstream's ExpectationsTimeout.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);
const POISON: &str = "nothing panics while it holds the expectations";

pub struct Expectations {
    clock: Clock,
    entries: Mutex<HashMap<ObjectKey, Entry>>,
}

struct Entry {
    creations: usize,
    /// Uids, because the deletion of one object may be seen more than once (its deletionTimestamp, its end).
    deletions: HashSet<String>,
    /// On the clock that nobody sets.
    since: Duration,
}

impl Expectations {
    pub fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    /// Replaces what was expected for `key`. Call before the first create.
    pub fn expect_creations(&self, key: &ObjectKey, creations: usize) {
        self.expect(key, creations, []);
    }

    /// Replaces what was expected for `key`. Call before the first delete.
    pub fn expect_deletions(&self, key: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.expect(key, 0, uids);
    }

    /// Replaces what was expected for `key`. Call before the first create or delete.
    pub fn expect(&self, key: &ObjectKey, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let entry = Entry { creations, deletions: deletions.into_iter().collect(), since: self.clock.elapsed() };
        self.entries.lock().expect(POISON).insert(key.clone(), entry);
    }

    /// Adds to what is expected for `key`. Call before the first create or delete.
    pub fn raise(&self, key: &ObjectKey, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let since = self.clock.elapsed();
        let mut entries = self.entries.lock().expect(POISON);
        let entry = entries.entry(key.clone()).or_insert(Entry { creations: 0, deletions: HashSet::new(), since });
        entry.creations += creations;
        entry.deletions.extend(deletions);
        entry.since = since;
    }

    /// The watch has shown a creation, or the create has failed.
    pub fn creation_observed(&self, key: &ObjectKey) {
        self.creations_observed(key, 1);
    }

    /// So many creates were skipped after a failure.
    pub fn creations_observed(&self, key: &ObjectKey, count: usize) {
        if let Some(entry) = self.entries.lock().expect(POISON).get_mut(key) {
            entry.creations = entry.creations.saturating_sub(count);
        }
    }

    /// The watch has shown a deletion (or its beginning), or the delete has failed.
    pub fn deletion_observed(&self, key: &ObjectKey, uid: &str) {
        if let Some(entry) = self.entries.lock().expect(POISON).get_mut(key) {
            entry.deletions.remove(uid);
        }
    }

    /// Whether what the informers show may be acted on.
    pub fn satisfied(&self, key: &ObjectKey) -> bool {
        let entries = self.entries.lock().expect(POISON);
        let Some(entry) = entries.get(key) else { return true };
        entry.creations == 0 && entry.deletions.is_empty() || self.clock.elapsed().saturating_sub(entry.since) > TIMEOUT
    }

    pub fn forget(&self, key: &ObjectKey) {
        let mut entries = self.entries.lock().expect(POISON);
        entries.remove(key);
        entries.give_back();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_deletion_seen_twice_counts_once_and_lost_events_time_out() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let (expectations, key) = (Expectations::new(clock.clone()), ObjectKey::new("a", "b"));
        assert!(expectations.satisfied(&key));
        expectations.expect_deletions(&key, ["x".to_owned(), "y".to_owned()]);
        expectations.deletion_observed(&key, "x");
        expectations.deletion_observed(&key, "x");
        assert!(!expectations.satisfied(&key));
        clock.set(Timestamp::from_second(3600).unwrap());
        assert!(!expectations.satisfied(&key), "a clock that is set makes nothing old");
        clock.advance(Duration::from_secs(301));
        assert!(expectations.satisfied(&key));
        expectations.expect_creations(&key, 2);
        expectations.creation_observed(&key);
        assert!(!expectations.satisfied(&key));
        expectations.raise(&key, 1, ["z".to_owned()]);
        expectations.creation_observed(&key);
        expectations.creation_observed(&key);
        assert!(!expectations.satisfied(&key));
        expectations.deletion_observed(&key, "z");
        assert!(expectations.satisfied(&key));
    }

    #[test]
    fn owners_that_have_gone_leave_no_room_behind() {
        let expectations = Expectations::new(Clock::fixed(Timestamp::UNIX_EPOCH));
        let keys: Vec<_> = (0..10_000).map(|i| ObjectKey::new("a", i.to_string())).collect();
        keys.iter().for_each(|key| expectations.expect_creations(key, 1));
        keys.iter().for_each(|key| expectations.forget(key));
        assert!(expectations.entries.lock().unwrap().capacity() < 2000);
    }
}
