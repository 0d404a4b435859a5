//! Which keys there are, at which revisions: what tells the changes that a watch cannot bring any more.
//!
//! A watch that was away for longer than etcd keeps history misses events. Then everything is read once, at one revision, and what
//! differs from here becomes events: for a watcher the same as if the changes in between had been made at once. Upstream's watch cache
//! starts anew instead and ends all watches.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::{Event, EventKind, KeyValue, Revision};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub created: Revision,
    pub modified: Revision,
}

#[derive(Debug, Default)]
pub struct Known(HashMap<Arc<str>, Version>);

impl Known {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn add(&mut self, key: Arc<str>, version: Version) {
        self.0.insert(key, version);
    }

    /// The key's one copy.
    pub fn key(&self, key: &str) -> Option<Arc<str>> {
        self.0.get_key_value(key).map(|(key, _)| key.clone())
    }

    pub fn version(&self, key: &str) -> Option<Version> {
        self.0.get(key).copied()
    }

    pub fn note(&mut self, event: &Event) {
        match event.kind {
            EventKind::Put { .. } => self.add(event.key.clone(), Version { created: event.create_revision, modified: event.revision }),
            EventKind::Delete => {
                self.0.remove(&event.key);
            }
        }
    }
}

/// Compares what is there with what was known, piece by piece.
pub struct Difference<'k> {
    known: &'k Known,
    seen: HashSet<Arc<str>>,
    events: Vec<Event>,
}

impl<'k> Difference<'k> {
    pub fn new(known: &'k Known) -> Self {
        Self { known, seen: HashSet::new(), events: Vec::new() }
    }

    pub fn see(&mut self, item: KeyValue) {
        let known = self.known.version(&item.key);
        let key = self.known.key(&item.key).unwrap_or_else(|| item.key.clone());
        self.seen.insert(key.clone());
        if known.is_some_and(|known| known.modified == item.mod_revision) {
            return;
        }
        let is_other = known.is_none_or(|known| known.created != item.create_revision);
        if let Some(known) = known.filter(|_| is_other) {
            // It went, and came again: at the latest just before that.
            self.events.push(gone(key.clone(), known, Revision(item.create_revision.0 - 1)));
        }
        self.events.push(Event {
            kind: EventKind::Put { created: is_other },
            key,
            value: item.value,
            create_revision: item.create_revision,
            revision: item.mod_revision,
            previous: None,
        });
    }

    /// The events in their order, given that all of what there is at `revision` was seen.
    pub fn finish(mut self, revision: Revision) -> Vec<Event> {
        let missing = self.known.0.iter().filter(|(key, _)| !self.seen.contains(*key));
        self.events.extend(missing.map(|(key, version)| gone(key.clone(), *version, revision)));
        // Stable: of one key, the end of the old one stays before the new one.
        self.events.sort_by_key(|event| event.revision);
        self.events
    }
}

fn gone(key: Arc<str>, version: Version, revision: Revision) -> Event {
    Event { kind: EventKind::Delete, key, value: Bytes::new(), create_revision: version.created, revision, previous: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(keys: &[(&str, u64, u64)]) -> Known {
        let mut known = Known::default();
        for (key, created, modified) in keys {
            known.add((*key).into(), Version { created: Revision(*created), modified: Revision(*modified) });
        }
        known
    }

    fn item(key: &str, created: u64, modified: u64) -> KeyValue {
        KeyValue { key: key.into(), value: "x".into(), create_revision: Revision(created), mod_revision: Revision(modified) }
    }

    #[test]
    fn what_was_missed_is_told_once_and_in_order() {
        let mut before = known(&[("/same", 1, 2), ("/changed", 1, 3), ("/again", 1, 4), ("/gone", 5, 5)]);
        let mut difference = Difference::new(&before);
        for item in [item("/again", 12, 14), item("/changed", 1, 13), item("/new", 11, 11), item("/same", 1, 2)] {
            difference.see(item);
        }
        let events = difference.finish(Revision(20));
        let told: Vec<String> = events.iter().map(|event| format!("{:?} {} {}", event.kind, event.key, event.revision)).collect();
        assert_eq!(
            told,
            [
                "Delete /again 11",
                "Put { created: true } /new 11",
                "Put { created: false } /changed 13",
                "Put { created: true } /again 14",
                "Delete /gone 20",
            ]
        );
        events.iter().for_each(|event| before.note(event));
        let mut again = Difference::new(&before);
        for item in [item("/again", 12, 14), item("/changed", 1, 13), item("/new", 11, 11), item("/same", 1, 2)] {
            again.see(item);
        }
        assert!(again.finish(Revision(21)).is_empty());
    }
}
