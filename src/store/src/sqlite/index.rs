//! Which revisions each key has: the only index, in memory.
//!
//! Like etcd's treeIndex. Besides, it holds the relaxed writes that are not on disk yet.
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Event, EventKind, KeyValue, Revision};

/// One change of one key, as a row of the table.
#[derive(Clone, Debug)]
pub struct Record {
    pub revision: Revision,
    pub key: Arc<str>,
    pub create_revision: Revision,
    /// The key's previous change since its creation; zero for the creation itself.
    pub previous: Revision,
    /// `None` is a deletion.
    pub value: Option<Bytes>,
}

impl Record {
    pub fn version(&self) -> Version {
        Version { revision: self.revision, create_revision: self.create_revision, deleted: self.value.is_none() }
    }

    pub fn key_value(&self) -> Option<KeyValue> {
        Some(KeyValue {
            key: Arc::clone(&self.key),
            value: self.value.clone()?,
            create_revision: self.create_revision,
            mod_revision: self.revision,
        })
    }

    /// The event, given the version before it.
    pub fn event(self, previous: Option<KeyValue>) -> Event {
        let (kind, value) = match self.value {
            Some(value) => (EventKind::Put { created: previous.is_none() }, value),
            None => (EventKind::Delete, previous.as_ref().map(|kv| kv.value.clone()).unwrap_or_default()),
        };
        Event { kind, key: self.key, value, create_revision: self.create_revision, revision: self.revision, previous }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: Revision,
    pub create_revision: Revision,
    pub deleted: bool,
}

#[derive(Debug)]
struct Versions {
    newest: Version,
    /// Superseded ones that are still in the history, oldest first.
    older: Vec<Version>,
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<Version> {
        std::iter::once(&self.newest).chain(self.older.iter().rev()).find(|v| v.revision <= revision).copied()
    }
}

/// A row that the history may lose once it reaches back no further than `until`.
#[derive(Debug, Clone)]
struct Garbage {
    until: Revision,
    revision: Revision,
    key: Arc<str>,
}

#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Arc<str>, Versions>,
    /// Acknowledged, not yet committed.
    pub pending: BTreeMap<Revision, Record>,
    /// In the order of `until`.
    garbage: VecDeque<Garbage>,
    /// Nothing before this can be asked for.
    pub compacted: Revision,
}

impl Index {
    /// The key's shared name and newest version, which may be a deletion.
    pub fn newest(&self, key: &str) -> Option<(Arc<str>, Version)> {
        self.keys.get_key_value(key).map(|(key, versions)| (Arc::clone(key), versions.newest))
    }

    /// The live versions under `prefix` as of `at`, at most `limit`, and whether there are more.
    pub fn range(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: Option<usize>,
        at: Revision,
    ) -> (Vec<(Arc<str>, Version)>, bool) {
        let from = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let live = self
            .keys
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, versions)| Some((key, versions.at(at)?)))
            .filter(|(_, version)| !version.deleted);
        let mut found = Vec::new();
        for (key, version) in live {
            if limit.is_some_and(|limit| found.len() >= limit) {
                return (found, true);
            }
            found.push((Arc::clone(key), version));
        }
        (found, false)
    }

    /// Makes one change visible. Changes come in the order of their revisions.
    pub fn apply(&mut self, key: &Arc<str>, version: Version) {
        let until = version.revision;
        let shared = match self.keys.get_key_value(key.as_ref()) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::clone(key),
        };
        match self.keys.get_mut(key.as_ref()) {
            Some(versions) => {
                let superseded = std::mem::replace(&mut versions.newest, version);
                versions.older.push(superseded);
                // A deletion has been superfluous since its own revision.
                if !superseded.deleted {
                    self.garbage.push_back(Garbage { until, revision: superseded.revision, key: Arc::clone(&shared) });
                }
            }
            None => {
                self.keys.insert(Arc::clone(&shared), Versions { newest: version, older: Vec::new() });
            }
        }
        if version.deleted {
            self.garbage.push_back(Garbage { until, revision: version.revision, key: shared });
        }
    }

    pub fn garbage_len(&self) -> usize {
        self.garbage.len()
    }

    /// The revision of the change that made the `n`th oldest row superfluous.
    pub fn garbage_until(&self, n: usize) -> Option<Revision> {
        self.garbage.get(n).map(|g| g.until)
    }

    /// Up to `limit` rows that a history reaching back to `horizon` does not need.
    pub fn compactable(&self, horizon: Revision, limit: usize) -> Vec<Revision> {
        self.garbage.iter().take_while(|g| g.until <= horizon).take(limit).map(|g| g.revision).collect()
    }

    /// Forgets the `count` oldest superfluous rows; they are no longer in the table.
    pub fn forget(&mut self, count: usize) {
        for garbage in self.garbage.drain(..count) {
            let Some(versions) = self.keys.get_mut(garbage.key.as_ref()) else { continue };
            if versions.newest.revision == garbage.revision {
                self.keys.remove(garbage.key.as_ref()); // a deletion that nothing followed
                continue;
            }
            versions.older.retain(|v| v.revision != garbage.revision);
            if versions.older.is_empty() {
                versions.older = Vec::new();
            }
        }
        if self.garbage.capacity() > 4096 && self.garbage.len() < self.garbage.capacity() / 8 {
            self.garbage.shrink_to_fit();
        }
    }
}
