//! The objects, their indices, and whom to tell of a change.
//!
//! Of an object whose text the server in this process holds anyway only a reference to the text is kept: a decoded pod weighs six times its
//! text. Decoded are beside it those that came last and those that are in use, so that a small collection always is.
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use tokio::sync::watch;

use super::Event;
use super::kept::{Found, Kept};
use super::labels::labels;
use crate::decode;
use crate::object::{Kind, Named, ObjectKey};
use crate::room::Room;

/// Index by the uid of the owner that says `controller: true`.
pub const CONTROLLER_UID: &str = "controller-uid";

/// So many objects with a shared text stay decoded, used or not.
const DECODED_MIN: usize = 256;
/// So many at most, while all of them are in use.
const DECODED_MAX: usize = 1024;
/// So many of them are looked at when one is added.
const LOOKS: usize = 4;

type Values<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;
/// Decodes an object's text as this mirror wants it.
pub(super) type Read<K> = Box<dyn Fn(&[u8]) -> Option<K> + Send + Sync>;

/// An object of a list.
pub(super) enum Listed<K> {
    /// Decoded already: its text is held nowhere.
    Decoded(K),
    Shared(ObjectKey, Bytes),
}

struct Index<K> {
    values: Values<K>,
    keys: HashMap<String, BTreeSet<Arc<ObjectKey>>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Arc<ObjectKey>, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                    self.keys.give_back();
                }
            }
        }
    }
}

struct Objects<K> {
    by_key: BTreeMap<Arc<ObjectKey>, Kept<K>>,
    indices: HashMap<&'static str, Index<K>>,
    /// Those that are decoded beside their text, the oldest first; some may have gone.
    decoded: VecDeque<Arc<ObjectKey>>,
}

impl<K> Objects<K> {
    fn put(&mut self, key: ObjectKey, object: Arc<K>, text: Option<Bytes>, old: Option<&K>) {
        let known = self.by_key.get_key_value(&key).map(|(key, kept)| (key.clone(), kept.is_decoded_as_well()));
        let (key, was_decoded) = known.unwrap_or_else(|| (Arc::new(key), false));
        for index in self.indices.values_mut() {
            if let Some(old) = old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        let Some(text) = text else {
            self.by_key.insert(key, Kept::Decoded(object));
            return;
        };
        self.by_key.insert(key.clone(), Kept::shared(text));
        self.keep_decoded(&key, object, was_decoded);
    }

    fn take(&mut self, key: &ObjectKey, old: &K) {
        self.by_key.remove(key);
        for index in self.indices.values_mut() {
            index.remove(key, old);
        }
    }

    fn keep_decoded(&mut self, key: &Arc<ObjectKey>, object: Arc<K>, is_queued: bool) {
        let Some(Kept::Shared { decoded, .. }) = self.by_key.get_mut(key) else { return };
        *decoded = Some(object);
        if !is_queued {
            self.decoded.push_back(key.clone());
        }
        for _ in 0..LOOKS {
            if self.decoded.len() <= DECODED_MIN {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Gives up the oldest decoded object, unless it is in use.
    fn forget_oldest(&mut self) {
        let may_stay = self.decoded.len() <= DECODED_MAX;
        let Some(key) = self.decoded.pop_front() else { return };
        let Some(Kept::Shared { decoded, used, .. }) = self.by_key.get_mut(&key) else { return };
        if may_stay && *used.get_mut() && decoded.is_some() {
            self.decoded.push_back(key);
        } else {
            *decoded = None;
        }
    }

    /// Takes over what a reader has decoded, if the object is still the same. A scan of very many does not push out those in use.
    fn was_read(&mut self, key: &Arc<ObjectKey>, text: &Bytes, object: &Arc<K>) {
        if self.decoded.len() < DECODED_MAX && self.by_key.get(key).is_some_and(|kept| kept.is(text) && !kept.is_decoded_as_well()) {
            self.keep_decoded(key, object.clone(), false);
        }
    }

    fn in_namespace<'o>(&'o self, namespace: &'o str) -> impl Iterator<Item = (&'o Arc<ObjectKey>, &'o Kept<K>)> {
        let start = ObjectKey::new(namespace, "");
        let range = self.by_key.range::<ObjectKey, _>((Bound::Included(&start), Bound::Unbounded));
        range.take_while(move |(key, _)| key.namespace == namespace)
    }
}

struct Handlers<K> {
    next_id: u64,
    handlers: Vec<(u64, Handler<K>)>,
}

pub(super) struct Mirror<K> {
    objects: RwLock<Objects<K>>,
    /// Held while a change is made and told, so that a new handler misses nothing and hears nothing twice.
    handlers: Mutex<Handlers<K>>,
    decode: Read<K>,
    newest_only: bool,
    /// All up to here has been taken in.
    version: AtomicU64,
    pub(super) synced: watch::Sender<bool>,
}

const POISON: &str = "neither handlers nor index functions panic";

impl<K: Kind> Mirror<K> {
    /// `newest_only`: see [`super::InformerBuilder::newest_only`].
    pub(super) fn new(synced: watch::Sender<bool>, decode: Read<K>, newest_only: bool) -> Self {
        Self {
            objects: RwLock::new(Objects { by_key: BTreeMap::new(), indices: HashMap::new(), decoded: VecDeque::new() }),
            handlers: Mutex::new(Handlers { next_id: 0, handlers: Vec::new() }),
            decode,
            newest_only,
            version: AtomicU64::new(0),
            synced,
        }
    }

    pub(super) fn read(&self, text: &[u8]) -> Option<Arc<K>> {
        (self.decode)(text).map(Arc::new)
    }

    fn decoded(&self, found: Found<K>) -> Option<Arc<K>> {
        match found {
            Found::Decoded(object) => Some(object),
            Found::Text(text) => self.read(&text),
        }
    }

    /// The text that is shared, where it is.
    pub(super) fn text(&self, key: &ObjectKey) -> Option<Bytes> {
        self.objects.read().expect(POISON).by_key.get(key).and_then(Kept::text)
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let (key, found) = self.objects.read().expect(POISON).by_key.get_key_value(key).map(|(key, kept)| (key.clone(), kept.find()))?;
        self.decoded_and_kept(key, found)
    }

    fn decoded_and_kept(&self, key: Arc<ObjectKey>, found: Found<K>) -> Option<Arc<K>> {
        let text = match found {
            Found::Decoded(object) => return Some(object),
            Found::Text(text) => text,
        };
        let object = self.read(&text)?;
        self.objects.write().expect(POISON).was_read(&key, &text, &object);
        Some(object)
    }

    /// As [`Self::get`], for a look that leaves no trace.
    fn peek(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let found = self.objects.read().expect(POISON).by_key.get(key).map(Kept::peek)?;
        self.decoded(found)
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        let found: Vec<_> = self.objects.read().expect(POISON).by_key.values().map(Kept::peek).collect();
        found.into_iter().filter_map(|found| self.decoded(found)).collect()
    }

    pub(super) fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.found_in(namespace).into_iter().filter_map(|(_, found)| self.decoded(found)).collect()
    }

    pub(super) fn each_in(&self, namespace: &str, mut visit: impl FnMut(&K)) {
        self.found_in(namespace).into_iter().filter_map(|(_, found)| self.decoded(found)).for_each(|object| visit(&object));
    }

    fn found_in(&self, namespace: &str) -> Vec<(Arc<ObjectKey>, Found<K>)> {
        self.objects.read().expect(POISON).in_namespace(namespace).map(|(key, kept)| (key.clone(), kept.peek())).collect()
    }

    pub(super) fn list_labelled(&self, namespace: &str, matches: impl Fn(&BTreeMap<String, String>) -> bool) -> Vec<Arc<K>> {
        let none = BTreeMap::new();
        let wanted = self.found_in(namespace).into_iter().filter(|(_, found)| match found {
            Found::Decoded(object) => matches(object.meta().labels.as_ref().unwrap_or(&none)),
            Found::Text(text) => matches(&labels(text)),
        });
        wanted.filter_map(|(key, found)| self.decoded_and_kept(key, found)).collect()
    }

    /// Whoever reads it sees in the objects all that it promises.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Everything up to this version has been put and deleted.
    pub(super) fn reached(&self, version: &str) {
        if let Ok(version) = version.parse() {
            self.version.store(version, Ordering::Release);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.read().expect(POISON).by_key.len()
    }

    pub(super) fn add_index(&self, name: &'static str, values: Values<K>) {
        let mut objects = self.objects.write().expect(POISON);
        if objects.indices.contains_key(name) {
            return;
        }
        let mut index = Index { values, keys: HashMap::new() };
        for (key, kept) in &objects.by_key {
            if let Some(object) = self.decoded(kept.peek()) {
                index.insert(key, &object);
            }
        }
        objects.indices.insert(name, index);
    }

    pub(super) fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        self.found_by_index(name, value, Kept::find).into_iter().filter_map(|(key, found)| self.decoded_and_kept(key, found)).collect()
    }

    pub(super) fn each_by_index(&self, name: &'static str, value: &str, mut visit: impl FnMut(&K)) {
        let found = self.found_by_index(name, value, Kept::peek);
        found.into_iter().filter_map(|(_, found)| self.decoded(found)).for_each(|object| visit(&object));
    }

    fn found_by_index(&self, name: &'static str, value: &str, look: impl Fn(&Kept<K>) -> Found<K>) -> Vec<(Arc<ObjectKey>, Found<K>)> {
        let objects = self.objects.read().expect(POISON);
        let index = objects.indices.get(name);
        debug_assert!(index.is_some(), "no index {name}");
        let keys = index.and_then(|i| i.keys.get(value));
        keys.into_iter().flatten().filter_map(|k| Some((k.clone(), look(objects.by_key.get(k)?)))).collect()
    }

    pub(super) fn count_by_index(&self, name: &'static str, value: &str) -> usize {
        let objects = self.objects.read().expect(POISON);
        let index = objects.indices.get(name);
        debug_assert!(index.is_some(), "no index {name}");
        index.and_then(|i| i.keys.get(value)).map_or(0, BTreeSet::len)
    }

    pub(super) fn has_any_in(&self, namespace: &str) -> bool {
        self.objects.read().expect(POISON).in_namespace(namespace).next().is_some()
    }

    /// What was not used since the last call is not kept decoded, beyond a small number.
    pub(super) fn cool(&self) {
        let mut objects = self.objects.write().expect(POISON);
        for _ in DECODED_MIN..objects.decoded.len() {
            objects.forget_oldest();
        }
        for kept in objects.by_key.values_mut() {
            if let Kept::Shared { used, .. } = kept {
                *used.get_mut() = false;
            }
        }
    }

    pub(super) fn add_handler(&self, handler: Handler<K>) -> u64 {
        let mut handlers = self.handlers.lock().expect(POISON);
        let keys: Vec<_> = self.objects.read().expect(POISON).by_key.keys().cloned().collect();
        for object in keys.iter().filter_map(|key| self.peek(key)) {
            handler(&Event::Added(object));
        }
        let id = handlers.next_id;
        handlers.next_id += 1;
        handlers.handlers.push((id, handler));
        id
    }

    pub(super) fn remove_handler(&self, id: u64) {
        self.handlers.lock().expect(POISON).handlers.retain(|(i, _)| *i != id);
    }

    /// Stores the newest state of an object, under its text where that is shared, and tells the handlers.
    pub(super) fn put(&self, object: K, text: Option<Bytes>) {
        let handlers = self.handlers.lock().expect(POISON);
        self.put_with(&handlers, object, text);
    }

    fn put_with(&self, handlers: &Handlers<K>, object: K, text: Option<Bytes>) {
        let (key, object) = (ObjectKey::of(&object), Arc::new(object));
        let old = self.known(&key, &object);
        self.objects.write().expect(POISON).put(key, object.clone(), text, old.as_deref());
        match old {
            None => tell(handlers, &Event::Added(object)),
            // The same name, another object: its deletion fell into a gap.
            Some(old) if old.uid() != object.uid() => {
                tell(handlers, &Event::Deleted(old));
                tell(handlers, &Event::Added(object));
            }
            Some(old) => tell(handlers, &Event::Updated { old, new: object }),
        }
    }

    /// What was known of an object before `new`; with `newest_only` that is told in its place where there is but a text.
    fn known(&self, key: &ObjectKey, new: &Arc<K>) -> Option<Arc<K>> {
        let (found, is_indexed) = {
            let objects = self.objects.read().expect(POISON);
            (objects.by_key.get(key).map(Kept::peek)?, !objects.indices.is_empty())
        };
        if let (Found::Text(text), true) = (&found, self.newest_only && !is_indexed)
            && decode::identity(text).is_ok_and(|identity| identity.uid == new.uid())
        {
            return Some(new.clone());
        }
        self.decoded(found)
    }

    pub(super) fn delete(&self, object: K) {
        let handlers = self.handlers.lock().expect(POISON);
        if self.remove(&ObjectKey::of(&object)) {
            tell(&handlers, &Event::Deleted(Arc::new(object)));
        }
    }

    /// Whether it was there.
    fn remove(&self, key: &ObjectKey) -> bool {
        let mut objects = self.objects.write().expect(POISON);
        if objects.indices.is_empty() {
            return objects.by_key.remove(key).is_some();
        }
        drop(objects);
        self.take(key).is_some()
    }

    fn take(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let known = self.peek(key)?;
        self.objects.write().expect(POISON).take(key, &known);
        Some(known)
    }

    /// Takes over a fresh list: what is unchanged is not told, what has vanished is told as deleted.
    pub(super) fn replace(&self, listed: Vec<Listed<K>>, version: &str) {
        let handlers = self.handlers.lock().expect(POISON);
        let vanished: Vec<_> = {
            let keys: BTreeSet<ObjectKey> = listed.iter().map(Listed::key).collect();
            let objects = self.objects.read().expect(POISON);
            objects.by_key.keys().filter(|key| !keys.contains(&***key)).cloned().collect()
        };
        for object in vanished.iter().filter_map(|key| self.take(key)) {
            tell(&handlers, &Event::Deleted(object));
        }
        for item in listed {
            self.take_over(&handlers, item);
        }
        drop(handlers);
        self.reached(version);
        self.synced.send_replace(true);
    }

    fn take_over(&self, handlers: &Handlers<K>, item: Listed<K>) {
        let (object, text) = match item {
            Listed::Decoded(object) => (object, None),
            Listed::Shared(key, text) => {
                if self.objects.read().expect(POISON).by_key.get(&key).is_some_and(|kept| kept.is(&text)) {
                    return;
                }
                match (self.decode)(&text) {
                    Some(object) => (object, Some(text)),
                    None => return self.take(&key).into_iter().for_each(|object| tell(handlers, &Event::Deleted(object))),
                }
            }
        };
        let known = self.peek(&ObjectKey::of(&object));
        if !known.is_some_and(|k| k.uid() == object.uid() && k.resource_version() == object.resource_version()) {
            self.put_with(handlers, object, text);
        }
    }
}

impl<K: Kind> Listed<K> {
    fn key(&self) -> ObjectKey {
        match self {
            Self::Decoded(object) => ObjectKey::of(object),
            Self::Shared(key, _) => key.clone(),
        }
    }
}

fn tell<K>(handlers: &Handlers<K>, event: &Event<K>) {
    for (_, handler) in &handlers.handlers {
        handler(event);
    }
}
