//! A store whose values are encrypted on their way in and decrypted on their way out; nobody above it knows.
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use store::{Event, Expect, Hook, KeyValue, Operation, Range, RangeResult, Revision, Store, StoreError, Watch, WatchError, Write, WriteError, Written};

use super::rules::Rules;

/// The store around another one.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    rules: Arc<ArcSwap<Rules>>,
}

impl EncryptedStore {
    pub fn new(inner: Arc<dyn Store>, rules: Arc<ArcSwap<Rules>>) -> Self {
        Self { inner, rules }
    }
}

/// What cannot be decrypted stays as it is: whoever reads it finds that it is no object, and says so.
fn open(rules: &Rules, key: &str, value: &mut Bytes) {
    match rules.open(key, value) {
        Ok(None) => {}
        Ok(Some(opened)) => *value = opened.into(),
        Err(error) => tracing::error!(key, %error, "a stored value cannot be decrypted"),
    }
}

fn open_item(rules: &Rules, item: &mut KeyValue) {
    open(rules, &item.key.clone(), &mut item.value);
}

fn open_events(rules: &Rules, events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    for event in &mut events {
        open(rules, &event.key.clone(), &mut event.value);
        event.previous.iter_mut().for_each(|previous| open_item(rules, previous));
    }
    events
}

fn is_sealed(events: &[Event]) -> bool {
    let is = |value: &[u8]| value.starts_with(b"k8s:enc:");
    events.iter().any(|event| is(&event.value) || event.previous.as_ref().is_some_and(|previous| is(&previous.value)))
}

#[async_trait]
impl Store for EncryptedStore {
    async fn write(&self, mut write: Write) -> Result<Written, WriteError> {
        let rules = self.rules.load_full();
        // What the caller holds is not what is stored.
        if let Expect::Unchanged { revision, .. } = write.expect {
            write.expect = Expect::Revision(revision);
        }
        if let Operation::Put(value) = &mut write.operation {
            match rules.seal(&write.key, value) {
                Ok(None) => {}
                Ok(Some(sealed)) => *value = sealed.into(),
                Err(error) => return Err(WriteError::Unavailable(format!("encrypt {}: {error}", write.key).into())),
            }
        }
        match self.inner.write(write).await {
            Ok(mut written) => {
                written.previous.iter_mut().for_each(|previous| open_item(&rules, previous));
                Ok(written)
            }
            Err(WriteError::Conflict { mut current }) => {
                current.iter_mut().for_each(|current| open_item(&rules, current));
                Err(WriteError::Conflict { current })
            }
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let mut found = self.inner.get(key).await?;
        found.iter_mut().for_each(|item| open_item(&self.rules.load(), item));
        Ok(found)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let mut result = self.inner.range(range).await?;
        let rules = self.rules.load();
        result.items.iter_mut().for_each(|item| open_item(&rules, item));
        Ok(result)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        let rules = self.rules.clone();
        let watch = self.inner.watch(prefix, after).await?;
        Ok(Box::pin(watch.map(move |batch| batch.map(|events| if is_sealed(&events) { open_events(&rules.load(), &events).into() } else { events }))))
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }

    fn subscribe(&self, hook: Hook) -> Revision {
        let rules = self.rules.clone();
        self.inner.subscribe(Box::new(move |events: &[Event]| {
            if is_sealed(events) {
                hook(&open_events(&rules.load(), events));
            } else {
                hook(events);
            }
        }))
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
