//! What happened to a kind of late: its ring of changes, and the cursors that watchers read it by.
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use api::protobuf::{self, EncodeError};
use api::registry::ResourceRef;
use bytes::Bytes;
use imbl::OrdMap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::unreadable::Unreadables;
use super::{Cache, Cached, KindId};

/// Changes of one kind kept for watches and paged lists: at most so many, so large, so old.
pub const RING_CHANGES_MAX: usize = 8192;
const RING_BYTES_MAX: usize = 32 << 20;
const RING_AGE_MAX: Duration = Duration::from_secs(300);

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    pub revision: u64,
    /// The object after the change; of a delete: as it was, under the version of the delete.
    pub object: Arc<Cached>,
    pub previous: Option<Arc<Cached>>,
    pub deleted: bool,
    at: Instant,
    protobuf: OnceLock<Result<Bytes, EncodeError>>,
}

impl Change {
    pub(super) fn new(revision: u64, object: Arc<Cached>, previous: Option<Arc<Cached>>, deleted: bool) -> Self {
        Self { revision, object, previous, deleted, at: Instant::now(), protobuf: OnceLock::new() }
    }

    /// The object as a protobuf document, made for the first watcher that asks and shared by all.
    pub fn protobuf(&self) -> Result<&Bytes, &EncodeError> {
        self.protobuf.get_or_init(|| protobuf::encode(&self.object.bytes).map(Bytes::from)).as_ref()
    }

    /// The same change with other views of its objects.
    pub fn showing(&self, object: Arc<Cached>, previous: Option<Arc<Cached>>) -> Self {
        let Self { revision, deleted, at, .. } = *self;
        Self { revision, object, previous, deleted, at, protobuf: OnceLock::new() }
    }
}

/// Why a version cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionError {
    /// Changes since then are no longer known; the oldest that can be served is `oldest`.
    TooOld { oldest: u64 },
    TooNew { current: u64 },
}

/// The objects of one kind, and its ring of changes.
pub(super) struct Kind {
    pub resource: ResourceRef,
    pub objects: OrdMap<Arc<str>, Arc<Cached>>,
    pub ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// Every change after this one is in the ring.
    pub floor: u64,
    pub changed: watch::Sender<u64>,
    /// Ends the watches: the kind has gone, or is served in another form.
    pub ended: CancellationToken,
    /// Changes since the start.
    pub events: u64,
    /// Its definition has gone.
    pub gone_since: Option<Instant>,
    /// What is stored in its place and is none of its objects.
    pub unreadable: Unreadables,
}

impl Kind {
    pub fn new(resource: ResourceRef, floor: u64) -> Self {
        Self {
            resource,
            objects: OrdMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            floor,
            changed: watch::Sender::new(0),
            ended: CancellationToken::new(),
            events: 0,
            gone_since: None,
            unreadable: Unreadables::default(),
        }
    }

    /// A deleted object as it was seen last, under the version of its deletion.
    pub fn last_known(&self, last: &Cached, revision: u64) -> Arc<Cached> {
        Arc::new(Cached::of(&self.resource, last.key.clone(), &last.tree(), last.bytes_at(revision), revision, last.version_at))
    }

    pub fn push(&mut self, change: Arc<Change>) {
        self.ring_bytes += change.object.bytes.len();
        self.events += 1;
        let now = change.at;
        self.ring.push_back(change);
        self.trim(now);
    }

    /// Forgets changes beyond the limits.
    pub fn trim(&mut self, now: Instant) {
        while let Some(front) = self.ring.front() {
            let old = now.duration_since(front.at) > RING_AGE_MAX;
            if self.ring.len() <= RING_CHANGES_MAX && self.ring_bytes <= RING_BYTES_MAX && !old {
                break;
            }
            self.ring_bytes -= front.object.bytes.len();
            self.floor = front.revision;
            self.ring.pop_front();
        }
        // A burst leaves no room behind that nobody fills again.
        if self.ring.capacity() > 64 + 4 * self.ring.len() {
            self.ring.shrink_to(2 * self.ring.len());
        }
    }
}

/// Where a watcher stands.
pub struct Cursor {
    cache: Cache,
    id: KindId,
    after: u64,
    changed: watch::Receiver<u64>,
    ended: CancellationToken,
}

impl Cursor {
    /// Sees what comes after `after`.
    pub(super) fn new(cache: &Cache, id: KindId, kind: &Kind, after: u64) -> Self {
        Self { cache: cache.clone(), id, after, changed: kind.changed.subscribe(), ended: kind.ended.clone() }
    }

    /// Cancelled when the kind has gone or is served in another form.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The next changes in order, at most `max`; empty when there are none yet. The second value: everything up to here was seen.
    pub fn read(&mut self, max: usize) -> Result<(Vec<Arc<Change>>, u64), VersionError> {
        self.changed.borrow_and_update();
        let world = self.cache.0.world.read().expect("no panic under the lock");
        let kind = world.kind(self.id);
        if self.after < kind.floor {
            return Err(VersionError::TooOld { oldest: kind.floor });
        }
        let start = kind.ring.partition_point(|c| c.revision <= self.after);
        let changes: Vec<Arc<Change>> = kind.ring.range(start..).take(max).cloned().collect();
        self.after = if start + changes.len() == kind.ring.len() {
            world.revision
        } else {
            changes.last().map_or(self.after, |c| c.revision)
        };
        Ok((changes, self.after))
    }

    /// Returns when there may be more to read.
    pub async fn changed(&mut self) {
        // Fails only when the cache is gone, and this cursor holds it.
        let _ = self.changed.changed().await;
    }
}
