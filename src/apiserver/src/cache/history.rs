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
use super::{Cache, Cached, KindId, World};

/// Changes of one kind kept for watches and paged lists: at most so many, so old.
pub const RING_CHANGES_MAX: usize = 8192;
const RING_AGE_MAX: Duration = Duration::from_secs(300);
/// What the changes of all kinds may hold that no object does any more: so much while the oldest of them are fresh, so that a watcher who keeps up
/// may not have read them yet,
const RINGS_BYTES_MAX: usize = 32 << 20;
const RING_FRESH: Duration = Duration::from_secs(15);
/// so much while it is about as old as upstream's DefaultEventFreshDuration, within which watchers that lost their connection come back,
const RINGS_BYTES: usize = 8 << 20;
const RING_RECENT: Duration = Duration::from_secs(75);
/// and no more of what is older: after a burst its changes would lie all over the heap and keep its pages.
const RINGS_BYTES_LATER: usize = 2 << 20;
/// Changes forgotten in one hold of the world's lock: a burst leaves tens of thousands, and everybody waits meanwhile.
const FORGOTTEN_AT_ONCE: usize = 512;
/// A change itself, and the little that a superseded object holds beside its bytes.
const CHANGE_BYTES: usize = 512;

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

    /// What goes when it is forgotten: an object that is still there is held anyway.
    fn weight(&self) -> usize {
        let gone = self.previous.iter().chain(Some(&self.object).filter(|_| self.deleted));
        CHANGE_BYTES + gone.map(|object| object.bytes.len()).sum::<usize>()
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
        self.ring_bytes += change.weight();
        self.events += 1;
        let now = change.at;
        self.ring.push_back(change);
        self.trim(now);
    }

    /// Forgets changes beyond the limits.
    pub fn trim(&mut self, now: Instant) {
        while let Some(front) = self.ring.front() {
            if self.ring.len() <= RING_CHANGES_MAX && now.duration_since(front.at) <= RING_AGE_MAX {
                break;
            }
            self.forget_first();
        }
    }

    /// Forgets the oldest change; how much that was.
    fn forget_first(&mut self) -> usize {
        let Some(change) = self.ring.pop_front() else { return 0 };
        let weight = change.weight();
        self.ring_bytes -= weight;
        self.floor = change.revision;
        // A burst leaves no room behind that nobody fills again.
        if self.ring.capacity() > 64 + 4 * self.ring.len() {
            self.ring.shrink_to(2 * self.ring.len());
        }
        weight
    }
}

/// When there is more to forget, whether anything changes or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    After(Duration),
    Never,
}

impl World {
    fn ring_bytes(&self) -> usize {
        self.kinds.values().map(|kind| kind.ring_bytes).sum()
    }

    /// Keeps a change of a kind; what is too much of all kinds is forgotten for it, the oldest first.
    pub(super) fn keep(&mut self, id: KindId, change: Arc<Change>) {
        let now = change.at;
        if let Some(kind) = self.kinds.get_mut(&id) {
            kind.push(change);
        }
        let bytes = self.ring_bytes();
        if bytes > RINGS_BYTES {
            self.forget(now, RINGS_BYTES);
        }
        if bytes > RINGS_BYTES_LATER && !self.has_much {
            self.has_much = true;
            self.much.notify_one();
        }
    }

    /// Forgets what is too old or too much by now.
    pub(super) fn forget_old(&mut self, now: Instant) -> Due {
        self.kinds.values_mut().for_each(|kind| kind.trim(now));
        let due = self.forget(now, RINGS_BYTES_LATER);
        self.has_much = due != Due::Never;
        due
    }

    /// Forgets the oldest changes as long as all weigh more than `least`, and more than they may at their age.
    fn forget(&mut self, now: Instant, least: usize) -> Due {
        let mut bytes = self.ring_bytes();
        for _ in 0..FORGOTTEN_AT_ONCE {
            if bytes <= least {
                return Due::Never;
            }
            let oldest = self.kinds.values_mut().filter_map(|kind| Some((kind.ring.front()?.at, kind))).min_by_key(|(at, _)| *at);
            let Some((at, kind)) = oldest else { return Due::Never };
            let age = now.duration_since(at);
            let (limit, until) = match age {
                age if age <= RING_FRESH => (RINGS_BYTES_MAX, if bytes > RINGS_BYTES { RING_FRESH } else { RING_RECENT }),
                age if age <= RING_RECENT => (RINGS_BYTES, RING_RECENT),
                _ => (RINGS_BYTES_LATER, RING_RECENT),
            };
            if bytes <= limit {
                return Due::After(until.saturating_sub(age));
            }
            bytes -= kind.forget_first();
        }
        Due::Now
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

#[cfg(test)]
mod tests {
    use api::registry::Registry;
    use futures::FutureExt as _;

    use super::*;

    fn resource() -> ResourceRef {
        Registry::get().resource("", "v1", "configmaps").unwrap().into()
    }

    fn world(ids: &[KindId]) -> World {
        let kinds = ids.iter().map(|id| (*id, Kind::new(resource(), 0))).collect();
        World { revision: 0, compacted: 0, kinds, gone: Kind::new(resource(), 0), early: None, much: Arc::default(), has_much: false }
    }

    fn config_map(bytes: usize) -> Arc<Cached> {
        let json = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{}"}}}}"#, "v".repeat(bytes));
        Arc::new(Cached::written(&resource(), "/registry/core/configmaps/default/a".into(), json.as_bytes(), 1).unwrap())
    }

    #[test]
    fn changes_that_weigh_much_are_forgotten_once_nobody_can_be_reading_them() {
        let (quiet, busy) = (KindId(0), KindId(1));
        let mut world = world(&[quiet, busy]);
        let object = config_map(1 << 20);
        let began = Instant::now();
        let push = |world: &mut World, id, revision, is_update: bool, seconds| {
            let mut change = Change::new(revision, object.clone(), is_update.then(|| object.clone()), false);
            change.at = began + Duration::from_secs(seconds);
            world.keep(id, Arc::new(change));
            (world.kinds[&quiet].ring.len(), world.kinds[&busy].ring.len())
        };
        // What creates does not weigh: the object is there anyway.
        assert_eq!(push(&mut world, quiet, 1, false, 0), (1, 0));
        // 31 MiB in a burst stay.
        let burst = (2..33).map(|revision| push(&mut world, busy, revision, true, 20)).last();
        assert_eq!(burst, Some((0, 31)));
        // More do not, however fresh they are.
        assert_eq!((33..40).map(|revision| push(&mut world, busy, revision, true, 21)).last(), Some((0, 31)));
        // After a while all but the last few go.
        assert_eq!(push(&mut world, busy, 40, true, 60), (0, 7));
        assert_eq!((world.kinds[&busy].floor, world.kinds[&quiet].floor), (33, 1));
        // Time alone takes most of the rest, when it was said to.
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(world.much.notified().now_or_never().is_some() && world.has_much);
        assert_eq!(world.forget_old(at(90)), Due::After(Duration::from_secs(6)));
        assert_eq!((world.forget_old(at(97)), world.kinds[&busy].ring.len()), (Due::Never, 1));
        assert!(!world.has_much && world.forget_old(at(359)) == Due::Never && world.kinds[&busy].ring.len() == 1);
        assert!(world.forget_old(at(361)) == Due::Never && world.kinds[&busy].ring.is_empty());
    }

    #[test]
    fn many_changes_are_forgotten_a_few_at_a_time() {
        let id = KindId(0);
        let mut world = world(&[id]);
        let object = config_map(6 << 10);
        let (count, at) = (FORGOTTEN_AT_ONCE * 2, Instant::now());
        for revision in 0..count as u64 {
            world.keep(id, Arc::new(Change { at, ..Change::new(revision, object.clone(), Some(object.clone()), false) }));
        }
        let later = at + RING_RECENT + Duration::from_secs(1);
        assert_eq!((world.forget_old(later), world.kinds[&id].ring.len()), (Due::Now, count - FORGOTTEN_AT_ONCE));
        assert!(world.forget_old(later) == Due::Never && world.ring_bytes() <= RINGS_BYTES_LATER);
    }
}
