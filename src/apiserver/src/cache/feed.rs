//! How objects come into the cache: once from the store as it is found, then from its hook, with every commit.
use std::sync::Arc;

use store::{Event, EventKind, KeyValue, Revision, Store};

use super::stored::{Parsed, Source};
use super::{Cache, Cached, Change, KindId, LOAD_PAGE, PREFIX, World};

impl Cache {
    /// Reads what the store holds.
    pub(super) async fn load(&self, store: &Arc<dyn Store>) -> Result<(), store::StoreError> {
        // Definitions first: they say how the objects of their kinds are read.
        let definitions = format!("{PREFIX}{}/{}/", api::crd::GROUP, api::crd::PLURAL);
        let at = self.load_range(store, definitions, None, |world, item| {
            self.define(world, &item.key, self.defined(&item.key, Some(&item.value)));
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
        match Cached::stored(&kind.resource, item.key.clone(), &item.value, item.mod_revision.0, self.0.source) {
            Ok(cached) => {
                kind.objects.insert(item.key.clone(), Arc::new(cached));
            }
            Err(error) => kind.unreadable.add(item.key.clone(), item.mod_revision.0, error, None),
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
                    self.define(world, &event.key, self.defined_by(&event));
                }
                let object = self.parse(&event);
                self.apply(world, &event, object);
            }
        }
    }

    /// The store's hook.
    pub(super) fn feed(&self, events: &[Event]) {
        // Before the lock: readers must not wait for parsing. Definitions first: their kinds are looked up while parsing.
        for event in events.iter().filter(|event| is_definition(&event.key)) {
            let defined = self.defined_by(event);
            let mut world = self.0.world.write().expect("no panic under the lock");
            if world.early.is_none() {
                self.define(&mut world, &event.key, defined);
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

    fn parse(&self, event: &Event) -> Option<(KindId, Parsed)> {
        let id = self.kind_of_key(&event.key)?;
        let names = self.0.names.load();
        let (resource, key) = (names.resources.get(&id)?, event.key.clone());
        let parsed = match self.0.source {
            Source::Own => Cached::written(resource, key, &event.value, event.revision.0),
            Source::Others => Cached::stored(resource, key, &event.value, event.revision.0, Source::Others),
        };
        Some((id, parsed.map(Arc::new)))
    }

    fn apply(&self, world: &mut World, event: &Event, object: Option<(KindId, Parsed)>) -> Option<(KindId, Arc<Change>)> {
        let revision = event.revision.0;
        world.revision = world.revision.max(revision);
        let deleted = matches!(event.kind, EventKind::Delete);
        let (id, parsed) = object?;
        let kind = world.kinds.get_mut(&id)?;
        let unreadable = kind.unreadable.remove(&event.key);
        let previous = kind.objects.get(event.key.as_ref()).cloned().or(unreadable);
        let object = match parsed {
            Ok(object) => object,
            // The store does not always know any more what it was.
            Err(_) if deleted => kind.last_known(previous.as_ref()?, revision),
            Err(error) => {
                // Watchers keep what they know: it is not gone.
                kind.objects.remove(event.key.as_ref());
                kind.unreadable.add(event.key.clone(), revision, error, previous);
                return None;
            }
        };
        if deleted {
            kind.objects.remove(event.key.as_ref());
        } else {
            kind.objects.insert(event.key.clone(), object.clone());
        }
        let change = Arc::new(Change::new(revision, object, previous, deleted));
        world.keep(id, change.clone());
        Some((id, change))
    }
}

fn is_definition(key: &str) -> bool {
    key.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(api::crd::GROUP)).is_some_and(|rest| rest.starts_with('/') && rest[1..].starts_with(api::crd::PLURAL))
}
