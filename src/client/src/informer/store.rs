//! The objects, their indices, and whom to tell of a change.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::watch;

use super::Event;
use crate::object::{Kind, Named, ObjectKey};

/// Index by the uid of the owner that says `controller: true`.
pub const CONTROLLER_UID: &str = "controller-uid";

type Values<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

struct Index<K> {
    values: Values<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
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
                }
            }
        }
    }
}

struct Objects<K> {
    by_key: BTreeMap<ObjectKey, Arc<K>>,
    indices: HashMap<&'static str, Index<K>>,
}

impl<K> Objects<K> {
    fn put(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.by_key.get(&key).cloned();
        for index in self.indices.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        self.by_key.insert(key, object);
        old
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.by_key.remove(key)?;
        for index in self.indices.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
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
    pub(super) synced: watch::Sender<bool>,
}

const POISON: &str = "neither handlers nor index functions panic";

impl<K: Kind> Mirror<K> {
    pub(super) fn new(synced: watch::Sender<bool>) -> Self {
        Self {
            objects: RwLock::new(Objects { by_key: BTreeMap::new(), indices: HashMap::new() }),
            handlers: Mutex::new(Handlers { next_id: 0, handlers: Vec::new() }),
            synced,
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.read().expect(POISON).by_key.get(key).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects.read().expect(POISON).by_key.values().cloned().collect()
    }

    pub(super) fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = ObjectKey::new(namespace, "");
        let objects = self.objects.read().expect(POISON);
        let range = objects.by_key.range((Bound::Included(start), Bound::Unbounded));
        range.take_while(|(k, _)| k.namespace == namespace).map(|(_, o)| o.clone()).collect()
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
        for (key, object) in &objects.by_key {
            index.insert(key, object);
        }
        objects.indices.insert(name, index);
    }

    pub(super) fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read().expect(POISON);
        let index = objects.indices.get(name);
        debug_assert!(index.is_some(), "no index {name}");
        let keys = index.and_then(|i| i.keys.get(value));
        keys.into_iter().flatten().filter_map(|k| objects.by_key.get(k).cloned()).collect()
    }

    pub(super) fn count_by_index(&self, name: &'static str, value: &str) -> usize {
        let objects = self.objects.read().expect(POISON);
        let index = objects.indices.get(name);
        debug_assert!(index.is_some(), "no index {name}");
        index.and_then(|i| i.keys.get(value)).map_or(0, BTreeSet::len)
    }

    pub(super) fn has_any_in(&self, namespace: &str) -> bool {
        let objects = self.objects.read().expect(POISON);
        let mut range = objects.by_key.range((Bound::Included(ObjectKey::new(namespace, "")), Bound::Unbounded));
        range.next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    pub(super) fn add_handler(&self, handler: Handler<K>) -> u64 {
        let mut handlers = self.handlers.lock().expect(POISON);
        for object in self.list() {
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

    /// Stores the newest state of an object and tells the handlers.
    pub(super) fn put(&self, object: K) {
        let handlers = self.handlers.lock().expect(POISON);
        self.put_with(&handlers, object);
    }

    fn put_with(&self, handlers: &Handlers<K>, object: K) {
        let object = Arc::new(object);
        let old = self.objects.write().expect(POISON).put(ObjectKey::of(&*object), object.clone());
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

    pub(super) fn delete(&self, object: K) {
        let handlers = self.handlers.lock().expect(POISON);
        let known = self.objects.write().expect(POISON).take(&ObjectKey::of(&object));
        if known.is_some() {
            tell(&handlers, &Event::Deleted(Arc::new(object)));
        }
    }

    /// Takes over a fresh list: what is unchanged is not told, what has vanished is told as deleted.
    pub(super) fn replace(&self, listed: Vec<K>) {
        let handlers = self.handlers.lock().expect(POISON);
        let keys: BTreeSet<ObjectKey> = listed.iter().map(ObjectKey::of).collect();
        let vanished: Vec<_> = {
            let mut objects = self.objects.write().expect(POISON);
            let gone: Vec<_> = objects.by_key.keys().filter(|k| !keys.contains(*k)).cloned().collect();
            gone.iter().filter_map(|k| objects.take(k)).collect()
        };
        for object in vanished {
            tell(&handlers, &Event::Deleted(object));
        }
        for object in listed {
            let known = self.get(&ObjectKey::of(&object));
            if !known.is_some_and(|k| k.uid() == object.uid() && k.resource_version() == object.resource_version()) {
                self.put_with(&handlers, object);
            }
        }
        drop(handlers);
        self.synced.send_replace(true);
    }
}

fn tell<K>(handlers: &Handlers<K>, event: &Event<K>) {
    for (_, handler) in &handlers.handlers {
        handler(event);
    }
}
