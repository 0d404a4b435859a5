//! What a server in the same process holds anyway.
use bytes::Bytes;

use crate::object::{ApiResource, ObjectKey};

/// Objects as a server in this process holds them. An informer whose client has this keeps the server's bytes, and no copy of its own.
pub trait HeldObjects: Send + Sync {
    /// The JSON of an object, if its version is exactly `version` now and it is held in the version of `resource`. Asked only for what the
    /// client was shown before, so it tells nobody anything new.
    fn text(&self, resource: &ApiResource, key: &ObjectKey, version: &str) -> Option<Bytes>;
}
