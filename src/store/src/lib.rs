//! Keeps the cluster's objects: a durable, ordered, watchable key-value store in etcd's terms.
//!
//! Every change gets a [`Revision`], larger than all before it. An acknowledged [`Durability::Synced`] write survives a
//! crash; a revision is never given twice, not even after one. [`Store::watch`] delivers every change once and in order,
//! or says [`WatchError::Compacted`]; it never leaves a gap.
//!
//! Enter by [`sqlite::open`] or [`etcd::open`]. Invariants: nothing here knows Kubernetes; an idle store does no I/O and has no timer
//! (but for the keep-alives of a connection to etcd).
pub mod etcd;
mod event;
pub mod sqlite;
mod write;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

pub use event::{Event, EventKind};
pub use write::{Durability, Expect, Operation, Write, WriteError, Written};

/// The number of one change. Larger is later; zero is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key as it stood at `mod_revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The change that created the key (after its last deletion).
    pub create_revision: Revision,
    /// The change that gave it this value.
    pub mod_revision: Revision,
}

/// Which keys [`Store::range`] returns, in the order of their bytes.
#[derive(Clone, Debug, Default)]
pub struct Range {
    pub prefix: String,
    /// Only keys after this one.
    pub start_after: Option<String>,
    /// At most so many items; `None` is all.
    pub limit: Option<usize>,
    /// As of this revision; `None` is now.
    pub at: Option<Revision>,
}

impl Range {
    /// Everything under `prefix`, as of now.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

#[derive(Clone, Debug)]
pub struct RangeResult {
    pub items: Vec<KeyValue>,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// The revision that the answer shows.
    pub revision: Revision,
}

/// A read that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than the history that is kept. Never worth a retry.
    #[error("required revision {requested} has been compacted, the oldest is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The revision asked for has not been reached.
    #[error("required revision {requested} is a future revision, the current is {current}")]
    Future { requested: Revision, current: Revision },
    /// The storage below does not answer; worth a retry.
    #[error("store is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// A watch that could not start or go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// Events between the place asked for and now are no longer kept; list again.
    #[error("required revision {requested} has been compacted, the oldest is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The storage below does not answer; watching again from the last event seen is worth a retry.
    #[error("store is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Called with the events of each commit, in order, before any write of that commit is acknowledged.
/// It runs on the writer's thread: whatever it does delays every write.
pub type Hook = Box<dyn Fn(&[Event]) + Send>;

/// Batches of events; it ends after an error and when the store is closed.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Arc<[Event]>, WatchError>> + Send>>;

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies one conditional write. The condition is evaluated by the single writer, so there is no race.
    /// A caller that goes away does not undo the write.
    async fn write(&self, write: Write) -> Result<Written, WriteError>;

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;

    /// Every event under `prefix` after the revision `after`, in order, none skipped.
    /// Nothing is buffered for a slow reader: it reads on in the history, until that is compacted.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError>;

    /// Whether others may write here, too. Where not, a hook sees nothing but what was written through this handle.
    fn is_shared(&self) -> bool;

    /// The revision of the last visible change.
    fn revision(&self) -> Revision;

    /// Forgets history: afterwards nothing before `before` can be asked for. Done in small steps between commits.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;

    /// Registers `hook`; it sees every event after the returned revision, and none up to it.
    fn subscribe(&self, hook: Hook) -> Revision;

    /// Commits what is not yet durable and stops: later writes are refused. Not needed for correctness.
    async fn close(&self);
}
