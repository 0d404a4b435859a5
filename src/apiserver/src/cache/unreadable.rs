//! What is stored under a kind's keys and is none of its objects: written by a foreign hand, or under a key that is lost.
//!
//! Models k8s.io/apiserver/pkg/storage/etcd3/corrupt_obj_deleter.go. It is not served, and who asks for it, or for all of its kind, is told so:
//! a list that leaves it out would say that it is gone, and others would be cleaned up after it. Whoever watches keeps what was seen last.
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use store::{Durability, Expect, Operation, Store, StoreError, Write, WriteError};

use super::{Cache, Cached, KindId};

/// One of them.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub key: Arc<str>,
    pub revision: u64,
    pub reason: Arc<str>,
    /// The object as it was before.
    last: Option<Arc<Cached>>,
}

#[derive(Default)]
pub struct Unreadables(BTreeMap<Arc<str>, Unreadable>);

impl Unreadables {
    pub fn add(&mut self, key: Arc<str>, revision: u64, reason: String, last: Option<Arc<Cached>>) {
        tracing::error!(%key, revision, reason, "a stored object is unreadable and is not served");
        self.0.insert(key.clone(), Unreadable { key, revision, reason: reason.into(), last });
    }

    /// The object as it was before it became unreadable.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Cached>> {
        self.0.remove(key)?.last
    }
}

impl Cache {
    /// Looks once more at what could not be read: its key may be known now. What can be read is written as it is, and so comes as a change like
    /// any other to whoever watches.
    pub async fn read_again(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        for (id, one) in self.unreadables() {
            let Some(resource) = self.0.names.load().resources.get(&id).cloned() else { continue };
            let Some(item) = store.get(&one.key).await?.filter(|item| item.mod_revision.0 == one.revision) else { continue };
            if Cached::stored(&resource, item.key.clone(), &item.value, one.revision, self.0.source).is_err() {
                continue;
            }
            let (operation, expect) = (Operation::Put(item.value), Expect::Revision(item.mod_revision));
            match store.write(Write { key: item.key, operation, expect, durability: Durability::Synced }).await {
                Ok(_) => tracing::info!(key = %one.key, "an object that was unreadable is served again"),
                // Written meanwhile: that came by itself.
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(StoreError::Unavailable(error.to_string().into())),
            }
        }
        Ok(())
    }

    fn unreadables(&self) -> Vec<(KindId, Unreadable)> {
        let world = self.0.world.read().expect("no panic under the lock");
        let all = world.kinds.iter().flat_map(|(id, kind)| kind.unreadable.0.values().map(|one| (*id, one.clone())));
        all.collect()
    }

    /// What stands at the key instead of an object.
    pub fn unreadable(&self, id: KindId, key: &str) -> Option<Unreadable> {
        let world = self.0.world.read().expect("no panic under the lock");
        world.kind(id).unreadable.0.get(key).cloned()
    }

    /// At most `max` of those whose key begins with `prefix`.
    pub fn unreadable_under(&self, id: KindId, prefix: &str, max: usize) -> Vec<Unreadable> {
        let world = self.0.world.read().expect("no panic under the lock");
        let from = world.kind(id).unreadable.0.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(_, one)| one).take_while(|one| one.key.starts_with(prefix)).take(max).cloned().collect()
    }
}
