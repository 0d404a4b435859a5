//! Kinds that come and go with CustomResourceDefinitions.
//!
//! A definition's kind is held as soon as the definition is stored, and served once it is established. Where its schema changes, the
//! objects at hand are read again from the store in their new form, off the path of writes.
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::registry::{Registry, ResourceRef};
use api::tree::Tree;
use store::{Event, EventKind, Store};

use super::{Cache, Cached, Kind, KindId, LOAD_PAGE, World, name_of, prefix};
use crate::kinds::Defined;

/// How long the last changes of a kind that has gone can be read.
pub const GONE_KEPT: Duration = Duration::from_secs(30);
/// Kinds that may come without the table of kinds growing.
const ROOM: usize = 64;

impl Cache {
    /// The definition that an event brings, read before anybody is kept waiting for it; `None`: it has gone, or is none.
    pub(super) fn defined(&self, key: &str, value: Option<&[u8]>) -> Option<Defined> {
        let tree = Tree::from_json(value?).ok()?;
        Defined::new(&tree, self.0.kinds.load().definition(key.rsplit('/').next()?))
    }

    pub(super) fn defined_by(&self, event: &Event) -> Option<Defined> {
        self.defined(&event.key, (!matches!(event.kind, EventKind::Delete)).then_some(&*event.value))
    }

    /// Takes in a definition, or its end. The revision moves on only with the change itself: who reads in between must not believe that this
    /// event was seen.
    pub(super) fn define(&self, world: &mut World, key: &str, defined: Option<Defined>) {
        let Some(name) = key.rsplit('/').next() else { return };
        let kinds = self.0.kinds.load_full();
        let before = kinds.definition(name);
        match (&defined, before) {
            (Some(defined), before) => self.hold(world, defined, before),
            (None, Some(before)) => self.let_go(world, before),
            (None, None) => return,
        }
        let next = kinds.with(name, defined);
        self.0.kinds.store(Arc::new(next));
    }

    /// Drops the kinds that have been gone for longer than `kept`; whether others that have gone are still there.
    pub fn forget_gone(&self, kept: Duration) -> bool {
        let mut world = self.0.world.write().expect("no panic under the lock");
        world.kinds.retain(|_, kind| kind.gone_since.is_none_or(|since| since.elapsed() < kept));
        if world.kinds.capacity() > 2 * ROOM + 4 * world.kinds.len() {
            let room = ROOM + world.kinds.len();
            world.kinds.shrink_to(room);
        }
        world.kinds.values().any(|kind| kind.gone_since.is_some())
    }

    /// How many kinds are held, those that have gone included, how many are known by name, and how many listeners there are.
    #[cfg(test)]
    pub fn counts(&self) -> [usize; 4] {
        let (kinds, names) = (self.0.world.read().unwrap().kinds.len(), self.0.names.load_full());
        [kinds, names.ids.len(), names.resources.len(), self.0.listeners.lock().unwrap().len()]
    }

    fn hold(&self, world: &mut World, defined: &Defined, before: Option<&Defined>) {
        let stored = &defined.stored;
        // Objects of a built-in kind stand at these keys.
        if Registry::get().served().any(|r| r.group == stored.group && r.plural == stored.plural) {
            return;
        }
        let resource = ResourceRef::Custom(stored.clone());
        let mut names = (*self.0.names.load_full()).clone();
        let id = match names.ids.get(&name_of(stored)) {
            Some(id) => *id,
            None => {
                let id = names.add(name_of(stored), resource.clone());
                world.kinds.insert(id, Kind::new(resource.clone(), world.revision));
                id
            }
        };
        names.resources.insert(id, resource.clone());
        self.0.names.store(Arc::new(names));
        let Some(kind) = world.kinds.get_mut(&id) else { return };
        kind.resource = resource;
        let Some(before) = before else { return };
        if !defined.serves_the_same_as(before) {
            std::mem::take(&mut kind.ended).cancel();
        }
        if (defined.generation, &defined.uid) != (before.generation, &before.uid) && !kind.objects.is_empty() {
            self.0.stale.lock().expect("no panic under the lock").push(id);
        }
    }

    /// Objects that outlive their definition (somebody took its finalizer away) are kept for one that comes back, as they are in the store.
    fn let_go(&self, world: &mut World, before: &Defined) {
        let mut names = (*self.0.names.load_full()).clone();
        let name = name_of(&before.stored);
        let Some(id) = names.ids.get(&name).copied() else { return };
        // Its schema, and what was compiled of it, weighs more than the changes for which it is kept, and nobody asks for it here any more.
        let nothing = world.gone.resource.clone();
        let Some(kind) = world.kinds.get_mut(&id).filter(|kind| matches!(kind.resource, ResourceRef::Custom(_))) else { return };
        std::mem::take(&mut kind.ended).cancel();
        if !kind.objects.is_empty() {
            return;
        }
        kind.gone_since = Some(Instant::now());
        kind.resource = nothing;
        names.ids.remove(&name);
        names.resources.remove(&id);
        self.0.names.store(Arc::new(names));
        self.0.listeners.lock().expect("no panic under the lock").retain(|(listens, _)| *listens != id);
    }

    /// Reads the objects again whose schema has changed since they were read.
    pub async fn refresh(&self, store: &Arc<dyn Store>) -> Result<(), store::StoreError> {
        let stale = std::mem::take(&mut *self.0.stale.lock().expect("no panic under the lock"));
        for id in stale {
            self.refresh_kind(store, id).await?;
        }
        Ok(())
    }

    async fn refresh_kind(&self, store: &Arc<dyn Store>, id: KindId) -> Result<(), store::StoreError> {
        let Some(resource) = self.0.names.load().resources.get(&id).cloned() else { return Ok(()) };
        let mut start_after: Option<String> = None;
        loop {
            let range = store::Range { prefix: prefix(&resource), start_after, limit: Some(LOAD_PAGE), at: None };
            let page = store.range(range).await?;
            let read = |item: &store::KeyValue| {
                let read = Cached::stored(&resource, item.key.clone(), &item.value, item.mod_revision.0, self.0.source);
                read.map(Arc::new).inspect_err(|error| tracing::error!(key = %item.key, error, "a stored object cannot be read again")).ok()
            };
            let fresh: Vec<Arc<Cached>> = page.items.iter().filter_map(read).collect();
            let mut world = self.0.world.write().expect("no panic under the lock");
            if let Some(kind) = world.kinds.get_mut(&id) {
                for cached in fresh {
                    // What was written meanwhile is in the new form already.
                    if kind.objects.get(&cached.key).is_some_and(|held| held.revision == cached.revision) {
                        kind.objects.insert(cached.key.clone(), cached);
                    }
                }
            }
            drop(world);
            if !page.more {
                return Ok(());
            }
            start_after = page.items.last().map(|item| item.key.as_ref().to_owned());
        }
    }
}
