//! Every stored object, once, as the bytes that clients read.
//!
//! Models k8s.io/apiserver/pkg/storage/cacher. Fed by the store's synchronous hook before a write is acknowledged, so a read after a write
//! sees it. For each kind: a persistent ordered map (a snapshot is a clone of its root) and a ring of recent changes. A watcher is only a
//! cursor into the ring: events are held once for all watchers, and one that is too slow falls off the end (410) instead of being waited for.
//! A list at an earlier revision undoes the ring's changes on a clone of the map, so paging holds no memory.
mod define;
mod feed;
mod history;
mod object;
mod pairs;
mod splice;
mod stored;
#[cfg(test)]
mod tests;
mod unreadable;

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use api::registry::{Registry, Resource, ResourceRef};
use arc_swap::ArcSwap;
use imbl::OrdMap;
use store::{Event, Store};
use tokio::sync::{Notify, watch};

use crate::convert::Webhooks;
use crate::kinds::Kinds;
pub use define::GONE_KEPT;
use history::{Due, Kind};
pub use history::{Change, Cursor, VersionError};
pub use object::{Cached, with_version};
use stored::Source;
pub use unreadable::Unreadable;

const LOAD_PAGE: usize = 1000;
pub const PREFIX: &str = "/registry/";

/// A consistent view of one kind.
#[derive(Clone)]
pub struct Snapshot {
    pub objects: OrdMap<Arc<str>, Arc<Cached>>,
    pub revision: u64,
}

/// What there is of one kind.
pub struct Figures {
    pub resource: ResourceRef,
    pub objects: u64,
    /// Changes since the start.
    pub events: u64,
    pub revision: u64,
    /// So many changes are kept, if they are small.
    pub capacity: u64,
}

/// Names one stored kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindId(usize);

struct World {
    revision: u64,
    /// Lists of an older state are refused, as upstream refuses them once etcd is compacted; watches may still begin there.
    compacted: u64,
    kinds: HashMap<KindId, Kind>,
    /// What is found in place of a kind that has gone.
    gone: Kind,
    /// Events that arrived before the load was done.
    early: Option<Vec<(Event, u64)>>,
    /// Told when the changes that are kept have come to weigh so much that some of them go by time alone.
    much: Arc<Notify>,
    has_much: bool,
}

struct Inner {
    world: RwLock<World>,
    much: Arc<Notify>,
    names: ArcSwap<Names>,
    kinds: ArcSwap<Kinds>,
    /// Kinds whose objects are held in the form of an earlier schema.
    stale: Mutex<Vec<KindId>>,
    source: Source,
    webhooks: Webhooks,
    /// Called after each change, on the writer's thread (allocators and the like).
    listeners: Mutex<Vec<(KindId, Box<dyn Fn(&Change) + Send>)>>,
}

/// The kinds that are held, by the middle of their storage keys. Cheap to clone: a definition that comes or goes makes new ones.
#[derive(Clone, Default)]
struct Names {
    ids: imbl::HashMap<Box<str>, KindId>,
    resources: imbl::HashMap<KindId, ResourceRef>,
    /// An id is never given twice.
    next: usize,
}

impl Names {
    fn add(&mut self, name: Box<str>, resource: ResourceRef) -> KindId {
        let id = KindId(self.next);
        self.next += 1;
        self.ids.insert(name, id);
        self.resources.insert(id, resource);
        id
    }
}

/// The watch cache; clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("load the watch cache from the store")]
pub struct StartError(#[source] store::StoreError);

/// The group under which a kind is stored: Events of both groups are the same objects.
pub fn storage_group<'g>(group: &'g str, plural: &str) -> &'g str {
    if plural == "events" && group == "events.k8s.io" { "" } else { group }
}

fn group_segment(group: &str) -> &str {
    if group.is_empty() { "core" } else { group }
}

/// `/registry/<group-or-core>/<plural>/`
pub fn prefix(resource: &Resource) -> String {
    format!("{PREFIX}{}/{}/", group_segment(storage_group(&resource.group, &resource.plural)), resource.plural)
}

/// The storage key of an object.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> Arc<str> {
    let prefix = prefix(resource);
    if resource.namespaced { format!("{prefix}{namespace}/{name}").into() } else { format!("{prefix}{name}").into() }
}

/// The built-in resource in whose version the objects of `resource` are stored.
pub fn stored_as(resource: &'static Resource) -> &'static Resource {
    if resource.group == "events.k8s.io" && resource.plural == "events" {
        return Registry::get().resource("", "v1", "events").unwrap_or(resource);
    }
    if resource.version == resource.storage_version {
        return resource;
    }
    Registry::get().resource(&resource.group, &resource.storage_version, &resource.plural).unwrap_or(resource)
}

/// The middle of a kind's storage keys: `core/pods`.
fn name_of(resource: &Resource) -> Box<str> {
    prefix(resource)[PREFIX.len()..].trim_end_matches('/').into()
}

impl Cache {
    /// Subscribes to the store and loads what is in it. Call once for a store, before anything is written.
    pub async fn start(store: &Arc<dyn Store>) -> Result<Self, StartError> {
        let mut names = Names::default();
        let mut kinds = HashMap::new();
        for resource in Registry::get().served() {
            let stored = stored_as(resource);
            let name = name_of(stored);
            if !names.ids.contains_key(&name) {
                kinds.insert(names.add(name, stored.into()), Kind::new(stored.into(), 0));
            }
        }
        let gone = Kind::new(Registry::get().served().next().expect("the core group is served").into(), 0);
        gone.ended.cancel();
        let much = Arc::new(Notify::new());
        let world = RwLock::new(World { revision: 0, compacted: 0, kinds, gone, early: Some(Vec::new()), much: much.clone(), has_much: false });
        let cache = Self(Arc::new(Inner {
            world,
            much,
            names: ArcSwap::from_pointee(names),
            kinds: ArcSwap::default(),
            stale: Mutex::default(),
            source: if store.is_shared() { Source::Others } else { Source::Own },
            webhooks: Webhooks::default(),
            listeners: Mutex::default(),
        }));
        let hook = cache.clone();
        store.subscribe(Box::new(move |events: &[Event]| hook.feed(events)));
        cache.load(store).await.map_err(StartError)?;
        Ok(cache)
    }

    fn kind_of_key(&self, key: &str) -> Option<KindId> {
        let rest = key.strip_prefix(PREFIX)?;
        let first = rest.find('/')?;
        let second = first + 1 + rest[first + 1..].find('/')?;
        self.0.names.load().ids.get(&rest[..second]).copied()
    }

    /// `None` for kinds that are not stored (reviews).
    pub fn kind(&self, resource: &Resource) -> Option<KindId> {
        self.0.names.load().ids.get(&name_of(resource)).copied()
    }

    fn kind_named(&self, group: &str, plural: &str) -> Option<KindId> {
        self.0.names.load().ids.get(format!("{}/{plural}", group_segment(storage_group(group, plural))).as_str()).copied()
    }

    /// The latest revision seen.
    pub fn revision(&self) -> u64 {
        self.0.world.read().expect("no panic under the lock").revision
    }

    /// One object by group (`""` is core), plural, namespace (`""` for cluster-scoped kinds) and name.
    pub fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Cached>> {
        let id = self.kind_named(group, plural)?;
        let group = group_segment(storage_group(group, plural));
        let key = if namespace.is_empty() {
            format!("{PREFIX}{group}/{plural}/{name}")
        } else {
            format!("{PREFIX}{group}/{plural}/{namespace}/{name}")
        };
        self.get_key(id, &key).0
    }

    /// One object by its key, and the revision at which that was the answer.
    pub fn get_key(&self, id: KindId, key: &str) -> (Option<Arc<Cached>>, u64) {
        let world = self.0.world.read().expect("no panic under the lock");
        (world.kind(id).objects.get(key).cloned(), world.revision)
    }

    /// All objects of a kind, of one namespace where given; ordered by key.
    pub fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<Arc<Cached>> {
        let Some(id) = self.kind_named(group, plural) else { return Vec::new() };
        let group = group_segment(storage_group(group, plural));
        let prefix = match namespace {
            Some(namespace) if !namespace.is_empty() => format!("{PREFIX}{group}/{plural}/{namespace}/"),
            _ => format!("{PREFIX}{group}/{plural}/"),
        };
        self.snapshot(id).under(&prefix, None).map(|(_, object)| object.clone()).collect()
    }

    /// Marked changed at every change of the kind (value: the revision). `None`: no such stored kind.
    pub fn changes(&self, group: &str, plural: &str) -> Option<watch::Receiver<u64>> {
        let id = self.kind_named(group, plural)?;
        Some(self.0.world.read().expect("no panic under the lock").kind(id).changed.subscribe())
    }

    /// Calls `listener` for every later change of the kind, in order, before anybody sees the change. It must neither block nor
    /// read the cache.
    pub fn listen(&self, id: KindId, listener: Box<dyn Fn(&Change) + Send>) {
        self.0.listeners.lock().expect("no panic under the lock").push((id, listener));
    }

    pub fn snapshot(&self, id: KindId) -> Snapshot {
        let world = self.0.world.read().expect("no panic under the lock");
        Snapshot { objects: world.kind(id).objects.clone(), revision: world.revision }
    }

    /// The kind as it was at `revision`.
    pub fn snapshot_at(&self, id: KindId, revision: u64) -> Result<Snapshot, VersionError> {
        let (mut objects, undo) = {
            let world = self.0.world.read().expect("no panic under the lock");
            let kind = world.kind(id);
            if revision > world.revision {
                return Err(VersionError::TooNew { current: world.revision });
            }
            let oldest = kind.floor.max(world.compacted);
            if revision < oldest {
                return Err(VersionError::TooOld { oldest });
            }
            let undo: Vec<Arc<Change>> = kind.ring.iter().rev().take_while(|c| c.revision > revision).cloned().collect();
            (kind.objects.clone(), undo)
        };
        for change in undo {
            match &change.previous {
                Some(previous) => objects.insert(previous.key.clone(), previous.clone()),
                None => objects.remove(&change.object.key),
            };
        }
        Ok(Snapshot { objects, revision })
    }

    /// History up to `revision` is given up.
    pub fn compact(&self, revision: u64) {
        let mut world = self.0.world.write().expect("no panic under the lock");
        world.compacted = world.compacted.max(revision);
    }

    /// Forgets changes that are too old, of kinds of which nothing new comes to push them out; after how long it is due again, if anything is
    /// left that will go before it is old.
    pub async fn forget_old(&self) -> Option<Duration> {
        loop {
            let due = self.0.world.write().expect("no panic under the lock").forget_old(Instant::now());
            match due {
                Due::Now => tokio::task::yield_now().await,
                Due::After(wait) => return Some(wait),
                Due::Never => return None,
            }
        }
    }

    /// Returns when the changes that are kept weigh so much that [`Cache::forget_old`] is due before they are old. For one who waits.
    pub async fn has_much(&self) {
        self.0.much.notified().await;
    }

    /// A cursor that sees every change of the kind after `after`.
    pub fn watch(&self, id: KindId, after: u64) -> Result<Cursor, VersionError> {
        let world = self.0.world.read().expect("no panic under the lock");
        let kind = world.kind(id);
        if after > world.revision {
            return Err(VersionError::TooNew { current: world.revision });
        }
        if after < kind.floor {
            return Err(VersionError::TooOld { oldest: kind.floor });
        }
        Ok(Cursor::new(self, id, kind, after))
    }

    /// A snapshot and the cursor that goes on from it.
    pub fn snapshot_and_watch(&self, id: KindId) -> (Snapshot, Cursor) {
        let world = self.0.world.read().expect("no panic under the lock");
        let kind = world.kind(id);
        let snapshot = Snapshot { objects: kind.objects.clone(), revision: world.revision };
        (snapshot, Cursor::new(self, id, kind, world.revision))
    }

    /// How many objects a kind holds, and how large some of them are on average.
    pub fn size_of(&self, id: KindId) -> (usize, usize) {
        const SAMPLE: usize = 8;
        let objects = self.snapshot(id).objects;
        let sample: Vec<usize> = objects.values().take(SAMPLE).map(|object| object.bytes.len()).collect();
        (objects.len(), sample.iter().sum::<usize>() / sample.len().max(1))
    }

    /// How many objects each kind holds (metrics).
    pub fn figures(&self) -> Vec<Figures> {
        let world = self.0.world.read().expect("no panic under the lock");
        let mut kinds: Vec<_> = world.kinds.iter().collect();
        kinds.sort_by_key(|(id, _)| **id);
        let known = kinds.into_iter().filter(|(_, kind)| kind.gone_since.is_none()).map(|(_, kind)| Figures {
            resource: kind.resource.clone(),
            objects: kind.objects.len() as u64,
            events: kind.events,
            revision: world.revision,
            capacity: history::RING_CHANGES_MAX as u64,
        });
        known.collect()
    }

    /// Who converts objects of custom kinds.
    pub fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    /// The kinds that are served now.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.0.kinds.load_full()
    }

    /// A served resource, built in or custom.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<ResourceRef> {
        self.0.kinds.load().resource(group, version, plural)
    }
}

impl World {
    fn kind(&self, id: KindId) -> &Kind {
        self.kinds.get(&id).unwrap_or(&self.gone)
    }
}

impl Snapshot {
    /// The objects whose key begins with `prefix`, which ends with a slash, after the key `start_after` where given. No key is looked at on the
    /// way, which would be one more place in memory for each.
    pub fn under<'a>(&'a self, prefix: &str, start_after: Option<&str>) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Cached>)> + use<'a> {
        const AFTER_SLASH: &str = "0";
        let end = [prefix.strip_suffix('/').expect("prefixes end with a slash"), AFTER_SLASH].concat();
        let from = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        self.objects.range::<(Bound<&str>, Bound<&str>), str>((from, Bound::Excluded(&end)))
    }
}
