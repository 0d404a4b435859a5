//! What changed.
use std::sync::Arc;

use bytes::Bytes;

use crate::{KeyValue, Revision};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put {
        /// Whether the key was absent before.
        created: bool,
    },
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub key: Arc<str>,
    /// The new value; of a deletion the last one, or nothing where that is not known any more (etcd has compacted it).
    pub value: Bytes,
    pub create_revision: Revision,
    pub revision: Revision,
    /// The key before the change; `None` for a creation, and where it is not known any more.
    pub previous: Option<KeyValue>,
}
