//! What a caller asks for, and what it gets.
use std::sync::Arc;

use bytes::Bytes;

use crate::{KeyValue, Revision};

/// The condition under which a write happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist, last changed by exactly this revision.
    Revision(Revision),
    /// The same, from a caller who holds the value of that revision: it need not be read to say what was replaced.
    Unchanged { revision: Revision, value: Bytes },
    /// No condition. (Deleting a key that does not exist is a conflict all the same: nothing changes.)
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before it is acknowledged.
    Synced,
    /// Acknowledged from memory and committed with the next commit, or a few seconds later: a crash may lose it.
    Relaxed,
}

#[derive(Clone, Debug)]
pub enum Operation {
    Put(Bytes),
    Delete,
}

#[derive(Clone, Debug)]
pub struct Write {
    pub key: Arc<str>,
    pub operation: Operation,
    pub expect: Expect,
    pub durability: Durability,
}

#[derive(Clone, Debug)]
pub struct Written {
    /// The revision of this change (of a deletion, too).
    pub revision: Revision,
    pub create_revision: Revision,
    pub previous: Option<KeyValue>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The condition does not hold. Read again, then decide.
    #[error("the key is not at the expected revision")]
    Conflict { current: Option<KeyValue> },
    /// Nothing was acknowledged (disk full, I/O error, store closed, etcd unreachable). Worth a retry later. With SQLite nothing was
    /// written either; with etcd, as for all its clients, that is unknown after a lost connection.
    #[error("store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// Larger than the store takes; never worth a retry.
    #[error("value of {size_bytes} bytes is larger than the limit of {limit_bytes} bytes")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
}
