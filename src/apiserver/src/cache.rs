//! Every stored object, once, as the bytes that clients read.
//!
//! Models k8s.io/apiserver/pkg/storage/cacher. Fed by the store's synchronous hook before a write is acknowledged, so a read after a write
//! sees it. For each kind: a persistent ordered map (a snapshot is a clone of its root) and a ring of recent changes. A watcher is only a
//! cursor into the ring: events are held once for all watchers, and one that is too slow falls off the end (410) instead of being waited for.
//! A list at an earlier revision undoes the ring's changes on a clone of the map, so paging holds no memory.
mod define;
mod splice;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use api::protobuf::{self, EncodeError, Form};
use api::registry::{Registry, Resource, ResourceRef};
use api::tree::Tree;
use api::schema::Name;
use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use store::{Event, EventKind, KeyValue, Revision, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kinds::Kinds;

/// Changes of one kind kept for watches and paged lists: at most so many, so large, so old.
const RING_CHANGES_MAX: usize = 8192;
const RING_BYTES_MAX: usize = 32 << 20;
const RING_AGE_MAX: Duration = Duration::from_secs(300);
const LOAD_PAGE: usize = 1000;
pub const PREFIX: &str = "/registry/";

/// One object as stored, with its resourceVersion spliced in.
#[derive(Debug)]
pub struct Cached {
    /// The storage key.
    pub key: Arc<str>,
    /// JSON in the storage version.
    pub bytes: Bytes,
    pub revision: u64,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(Name, Box<str>)]>,
    version_at: usize,
    /// The store holds it otherwise: in an old version, or as another schema had it.
    pub is_stored_otherwise: bool,
    /// Of its protobuf message; 0: not known yet.
    message_bytes: AtomicU32,
    /// The same object in other versions of its kind, as they were asked for.
    views: OnceLock<Box<Mutex<Vec<View>>>>,
}

/// One object as one resource shows it.
#[derive(Debug)]
struct View {
    resource: ResourceRef,
    object: Arc<Cached>,
}

impl Cached {
    fn new(resource: &Resource, key: Arc<str>, value: &[u8], revision: u64) -> Option<Self> {
        let mut tree = Tree::from_json(value).ok()?;
        // What was stored under another schema shows as the one of today has it.
        let is_stored_otherwise = resource.custom.as_ref().is_some_and(|custom| shows_otherwise(resource, custom, &mut tree));
        let (bytes, version_at) = match is_stored_otherwise {
            true => splice::resource_version(&tree.to_json(), revision)?,
            false => splice::resource_version(value, revision)?,
        };
        Some(Self { is_stored_otherwise, ..Self::of(resource, key, &tree, bytes, revision, version_at) })
    }

    /// The same of what this process has printed just now: nothing but what selectors read is parsed.
    fn written(resource: &Resource, key: Arc<str>, value: &[u8], revision: u64) -> Option<Self> {
        if resource.custom.is_some() {
            return Self::new(resource, key, value, revision);
        }
        let tree = api::selector::skim(value).ok()?;
        let (bytes, version_at) = splice::resource_version(value, revision)?;
        Some(Self::of(resource, key, &tree, bytes, revision, version_at))
    }

    fn of(resource: &Resource, key: Arc<str>, tree: &Tree, bytes: Bytes, revision: u64, version_at: usize) -> Self {
        let labels = tree.at(&["metadata", "labels"]).and_then(Tree::as_object).map_or_else(Box::default, |labels| {
            labels.iter().map(|(k, v)| (k.into(), v.as_str().unwrap_or("").into())).collect()
        });
        let fields = api::selector::fields(resource, tree)
            .into_iter()
            .filter(|(name, value)| !value.is_empty() && !name.starts_with("metadata."))
            .map(|(name, value)| (name, value.into_boxed_str()))
            .collect();
        let (views, message_bytes) = (OnceLock::new(), AtomicU32::new(0));
        Self { key, bytes, revision, labels, fields, version_at, is_stored_otherwise: false, message_bytes, views }
    }

    /// Whether the bytes say so where they mostly do, at their beginning; false does not mean that they don't.
    pub fn is_of_version(&self, api_version: &str) -> bool {
        let rest = self.bytes.strip_prefix(b"{\"apiVersion\":\"").and_then(|rest| rest.strip_prefix(api_version.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&b'"'))
    }

    /// The object as `resource` shows it, if that was made before.
    pub fn view(&self, resource: &ResourceRef) -> Option<Arc<Cached>> {
        let views = self.views.get()?.lock().expect("no panic under the lock");
        views.iter().find(|view| view.resource.is(resource)).map(|view| view.object.clone())
    }

    /// Keeps `tree`, which is this object as `resource` shows it. `None`: it is no object.
    pub fn add_view(&self, resource: &ResourceRef, mut tree: Tree) -> Option<Arc<Cached>> {
        tree.remove(&["metadata", "resourceVersion"]);
        let (bytes, version_at) = splice::resource_version(&tree.to_json(), self.revision)?;
        let object = Arc::new(Self::of(resource, self.key.clone(), &tree, bytes, self.revision, version_at));
        let mut views = self.views.get_or_init(Box::default).lock().expect("no panic under the lock");
        // Of an earlier definition, too: nobody asks for that any more.
        views.retain(|view| view.resource.version != resource.version);
        views.push(View { resource: resource.clone(), object: object.clone() });
        Some(object)
    }

    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or("")
    }

    /// `""` for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        let mut parts = self.key.rsplit('/');
        let (_, namespace, _) = (parts.next(), parts.next(), parts.next());
        // "/registry/<group>/<plural>/<name>" has no namespace: the part before the name is the plural.
        if self.key.bytes().filter(|b| *b == b'/').count() < 5 { "" } else { namespace.unwrap_or("") }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }

    /// The value that a field selector compares; `""` where the object has none.
    pub fn field(&self, name: &str) -> &str {
        match name {
            "metadata.name" => self.name(),
            "metadata.namespace" => self.namespace(),
            _ => self.fields.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_ref()),
        }
    }

    pub fn tree(&self) -> Tree {
        Tree::from_json(&self.bytes).expect("checked when it entered the cache")
    }

    /// The typed form; `Err` only where the stored object contradicts its schema.
    pub fn typed<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// The length of its protobuf message, found by writing the message to `scratch` if need be.
    pub fn message_length(&self, form: Form, scratch: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let known = self.message_bytes.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known as usize);
        }
        scratch.clear();
        form.message(&self.bytes, scratch)?;
        self.message_bytes.store(u32::try_from(scratch.len()).expect("objects are bounded"), Ordering::Relaxed);
        Ok(scratch.len())
    }

    /// The same object under a later version: what a DELETED event shows.
    pub fn bytes_at(&self, revision: u64) -> Bytes {
        if revision == self.revision {
            return self.bytes.clone();
        }
        splice::replace(&self.bytes, self.version_at, revision)
    }
}

/// Stored bytes with their version, as clients read them.
pub fn with_version(stored: &[u8], revision: u64) -> Option<Bytes> {
    splice::resource_version(stored, revision).map(|(bytes, _)| bytes)
}

fn shows_otherwise(resource: &Resource, custom: &api::crd::Custom, tree: &mut Tree) -> bool {
    // Only a webhook can say what it is in the version of today.
    if custom.conversion.is_some() && api::meta::api_version(tree) != resource.api_version() {
        return false;
    }
    let stored = tree.clone();
    api::meta::set_type(tree, &resource.api_version(), &resource.kind);
    api::crd::from_stored(custom, tree);
    *tree != stored
}

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
    /// The object as a protobuf document, made for the first watcher that asks and shared by all.
    pub fn protobuf(&self) -> Result<&Bytes, &EncodeError> {
        self.protobuf.get_or_init(|| protobuf::encode(&self.object.bytes).map(Bytes::from)).as_ref()
    }
}

impl Change {
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

/// A consistent view of one kind.
#[derive(Clone)]
pub struct Snapshot {
    pub objects: OrdMap<Arc<str>, Arc<Cached>>,
    pub revision: u64,
}

/// Names one stored kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindId(usize);

struct Kind {
    resource: ResourceRef,
    objects: OrdMap<Arc<str>, Arc<Cached>>,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// Every change after this one is in the ring.
    floor: u64,
    changed: watch::Sender<u64>,
    /// Ends the watches: the kind has gone, or is served in another form.
    ended: CancellationToken,
    /// Its definition has gone.
    gone_since: Option<Instant>,
}

struct World {
    revision: u64,
    /// Lists of an older state are refused, as upstream refuses them once etcd is compacted; watches may still begin there.
    compacted: u64,
    kinds: HashMap<KindId, Kind>,
    /// What is found in place of a kind that has gone.
    gone: Kind,
    /// Events that arrived before the load was done.
    early: Option<Vec<(Event, u64)>>,
}

struct Inner {
    world: RwLock<World>,
    names: ArcSwap<Names>,
    kinds: ArcSwap<Kinds>,
    /// Kinds whose objects are held in the form of an earlier schema.
    stale: Mutex<Vec<KindId>>,
    /// Called after each change, on the writer's thread (allocators and the like).
    listeners: Mutex<Vec<(KindId, Box<dyn Fn(&Change) + Send>)>>,
}

/// The kinds that are held, by the middle of their storage keys.
#[derive(Clone, Default)]
struct Names {
    ids: HashMap<Box<str>, KindId>,
    resources: HashMap<KindId, ResourceRef>,
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
        let world = RwLock::new(World { revision: 0, compacted: 0, kinds, gone, early: Some(Vec::new()) });
        let cache = Self(Arc::new(Inner {
            world,
            names: ArcSwap::from_pointee(names),
            kinds: ArcSwap::default(),
            stale: Mutex::default(),
            listeners: Mutex::default(),
        }));
        let hook = cache.clone();
        store.subscribe(Box::new(move |events: &[Event]| hook.feed(events)));
        cache.load(store).await.map_err(StartError)?;
        Ok(cache)
    }

    async fn load(&self, store: &Arc<dyn Store>) -> Result<(), store::StoreError> {
        // Definitions first: they say how the objects of their kinds are read.
        let definitions = format!("{PREFIX}{}/{}/", api::crd::GROUP, api::crd::PLURAL);
        let at = self.load_range(store, definitions, None, |world, item| {
            self.define_stored(world, &item.key, Some(&item.value));
        });
        let at = at.await?;
        self.load_range(store, PREFIX.to_owned(), Some(at), |world, item| self.place(world, item)).await?;
        let mut world = self.0.world.write().expect("no panic under the lock");
        self.finish_load(&mut world, at.0);
        Ok(())
    }

    /// Reads all below a prefix at one revision, which is the answer.
    async fn load_range(
        &self,
        store: &Arc<dyn Store>,
        prefix: String,
        mut at: Option<Revision>,
        mut each: impl FnMut(&mut World, &KeyValue),
    ) -> Result<Revision, store::StoreError> {
        let mut start_after: Option<String> = None;
        loop {
            let range = store::Range { prefix: prefix.clone(), start_after, limit: Some(LOAD_PAGE), at };
            let page = store.range(range).await?;
            at = Some(page.revision);
            let mut world = self.0.world.write().expect("no panic under the lock");
            page.items.iter().for_each(|item| each(&mut world, item));
            drop(world);
            if !page.more {
                return Ok(page.revision);
            }
            start_after = page.items.last().map(|item| item.key.as_ref().to_owned());
        }
    }

    fn place(&self, world: &mut World, item: &KeyValue) {
        let Some(id) = self.kind_of_key(&item.key) else {
            tracing::warn!(key = %item.key, "stored object of an unknown kind is left alone");
            return;
        };
        let Some(kind) = world.kinds.get_mut(&id) else { return };
        match Cached::new(&kind.resource, item.key.clone(), &item.value, item.mod_revision.0) {
            Some(cached) => {
                kind.objects.insert(item.key.clone(), Arc::new(cached));
            }
            None => tracing::error!(key = %item.key, "stored object is unreadable and is not served"),
        }
    }

    fn finish_load(&self, world: &mut World, revision: u64) {
        world.revision = revision;
        for kind in world.kinds.values_mut() {
            kind.floor = revision;
        }
        let early = world.early.take().unwrap_or_default();
        for (event, at) in early {
            if at > revision {
                if is_definition(&event.key) {
                    self.define_event(world, &event);
                }
                let object = self.parse(&event);
                self.apply(world, &event, object);
            }
        }
    }

    /// The store's hook.
    fn feed(&self, events: &[Event]) {
        // Before the lock: readers must not wait for parsing. Definitions first: their kinds are looked up while parsing.
        for event in events.iter().filter(|event| is_definition(&event.key)) {
            let mut world = self.0.world.write().expect("no panic under the lock");
            if world.early.is_none() {
                self.define_event(&mut world, event);
            }
        }
        let objects: Vec<_> = events.iter().map(|event| self.parse(event)).collect();
        let mut world = self.0.world.write().expect("no panic under the lock");
        if let Some(early) = &mut world.early {
            early.extend(events.iter().map(|e| (e.clone(), e.revision.0)));
            return;
        }
        let mut touched: Vec<KindId> = Vec::new();
        let mut changes = Vec::new();
        for (event, object) in events.iter().zip(objects) {
            if let Some((id, change)) = self.apply(&mut world, event, object) {
                if !touched.contains(&id) {
                    touched.push(id);
                }
                changes.push((id, change));
            }
        }
        // Before anybody can read the changes: a node that sees its pod may at once ask for what the pod names, and whoever
        // decides on that follows the pods here.
        let listeners = self.0.listeners.lock().expect("no panic under the lock");
        for (id, change) in &changes {
            listeners.iter().filter(|(listens, _)| listens == id).for_each(|(_, listener)| listener(change));
        }
        drop(listeners);
        let revision = world.revision;
        for id in touched {
            world.kind(id).changed.send_replace(revision);
        }
    }

    fn parse(&self, event: &Event) -> Option<(KindId, Arc<Cached>)> {
        let id = self.kind_of_key(&event.key)?;
        let names = self.0.names.load();
        let parsed = Cached::written(names.resources.get(&id)?, event.key.clone(), &event.value, event.revision.0);
        if parsed.is_none() && !(matches!(event.kind, EventKind::Delete) && event.value.is_empty()) {
            tracing::error!(key = %event.key, "written object is unreadable and is not served");
        }
        Some((id, Arc::new(parsed?)))
    }

    fn apply(&self, world: &mut World, event: &Event, object: Option<(KindId, Arc<Cached>)>) -> Option<(KindId, Arc<Change>)> {
        let revision = event.revision.0;
        world.revision = world.revision.max(revision);
        let deleted = matches!(event.kind, EventKind::Delete);
        let (id, object) = match object {
            Some(parsed) => parsed,
            // The store does not always know any more what it was.
            None if deleted => self.last_known(world, event)?,
            None => return None,
        };
        let kind = world.kinds.get_mut(&id)?;
        let previous = kind.objects.get(event.key.as_ref()).cloned();
        if deleted {
            kind.objects.remove(event.key.as_ref());
        } else {
            kind.objects.insert(event.key.clone(), object.clone());
        }
        let change = Arc::new(Change { revision, object, previous, deleted, at: Instant::now(), protobuf: OnceLock::new() });
        kind.push(change.clone());
        Some((id, change))
    }

    /// A deleted object as it is here, under the version of its deletion.
    fn last_known(&self, world: &World, event: &Event) -> Option<(KindId, Arc<Cached>)> {
        let id = self.kind_of_key(&event.key)?;
        let kind = world.kinds.get(&id)?;
        let last = kind.objects.get(event.key.as_ref())?;
        let (bytes, at) = (last.bytes_at(event.revision.0), event.revision.0);
        Some((id, Arc::new(Cached::of(&kind.resource, last.key.clone(), &last.tree(), bytes, at, last.version_at))))
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

    /// Forgets changes that are too old, of kinds of which nothing new comes to push them out.
    pub fn forget_old(&self) {
        let mut world = self.0.world.write().expect("no panic under the lock");
        let now = Instant::now();
        world.kinds.values_mut().for_each(|kind| kind.trim(now));
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
        Ok(Cursor { cache: self.clone(), id, after, changed: kind.changed.subscribe(), ended: kind.ended.clone() })
    }

    /// A snapshot and the cursor that goes on from it.
    pub fn snapshot_and_watch(&self, id: KindId) -> (Snapshot, Cursor) {
        let world = self.0.world.read().expect("no panic under the lock");
        let kind = world.kind(id);
        let snapshot = Snapshot { objects: kind.objects.clone(), revision: world.revision };
        let cursor = Cursor { cache: self.clone(), id, after: world.revision, changed: kind.changed.subscribe(), ended: kind.ended.clone() };
        (snapshot, cursor)
    }

    /// How many objects a kind holds, and how large some of them are on average.
    pub fn size_of(&self, id: KindId) -> (usize, usize) {
        const SAMPLE: usize = 8;
        let objects = self.snapshot(id).objects;
        let sample: Vec<usize> = objects.values().take(SAMPLE).map(|object| object.bytes.len()).collect();
        (objects.len(), sample.iter().sum::<usize>() / sample.len().max(1))
    }

    /// How many objects each kind holds (metrics).
    pub fn counts(&self) -> Vec<(ResourceRef, usize)> {
        let world = self.0.world.read().expect("no panic under the lock");
        let mut kinds: Vec<_> = world.kinds.iter().collect();
        kinds.sort_by_key(|(id, _)| **id);
        kinds.into_iter().filter(|(_, kind)| kind.gone_since.is_none()).map(|(_, kind)| (kind.resource.clone(), kind.objects.len())).collect()
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

fn is_definition(key: &str) -> bool {
    key.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(api::crd::GROUP)).is_some_and(|rest| rest.starts_with('/') && rest[1..].starts_with(api::crd::PLURAL))
}

impl Kind {
    fn new(resource: ResourceRef, floor: u64) -> Self {
        Self {
            resource,
            objects: OrdMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            floor,
            changed: watch::Sender::new(0),
            ended: CancellationToken::new(),
            gone_since: None,
        }
    }

    fn push(&mut self, change: Arc<Change>) {
        self.ring_bytes += change.object.bytes.len();
        let now = change.at;
        self.ring.push_back(change);
        self.trim(now);
    }

    /// Forgets changes beyond the limits.
    fn trim(&mut self, now: Instant) {
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

impl Snapshot {
    /// The objects whose key begins with `prefix`, after the key `start_after` where given.
    pub fn under<'a>(&'a self, prefix: &'a str, start_after: Option<&'a str>) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Cached>)> {
        let from = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        self.objects.range::<(Bound<&str>, Bound<&str>), str>((from, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
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
    /// Cancelled when the kind has gone or is served in another form.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
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
