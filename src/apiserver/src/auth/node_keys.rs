//! Whether a node's certificate is of the key that has the node's name.
//!
//! The approver of certificates records keys in ConfigMaps `kube-system/NAME.node-key` (`controllers/src/node_keys.rs`). A name without
//! a record is believed as upstream believes it: its certificate was approved by hand, or its Node was deleted and nobody else has
//! joined under the name since. So a machine that lost its name to another cannot come back with its old certificate; and what it has
//! open (watches of what is the other's now) ends with the record's change.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;

const NAMESPACE: &str = "kube-system";
const SUFFIX: &str = ".node-key";

/// `Err` says why not.
pub fn check(cache: &Cache, node: &str, certificate: &[u8]) -> Result<(), String> {
    let Some(record) = cache.get("", "configmaps", NAMESPACE, &format!("{node}{SUFFIX}")) else { return Ok(()) };
    let record = record.tree();
    let key = pki::key_fingerprint(certificate).ok_or("unreadable key")?;
    let good = ["key", "previous-key"].iter().any(|entry| record.str_at(&["data", entry]) == key);
    if good { Ok(()) } else { Err(format!("the name of node {node:?} belongs to another key")) }
}

/// What ends the connections of a node. At most one for each node that ever showed a certificate of ours.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, CancellationToken>>>);

impl Sessions {
    pub fn new(cache: &Cache) -> Self {
        let sessions = Self::default();
        let maps = Registry::get().resource("", "v1", "configmaps").and_then(|resource| cache.kind(resource));
        if let Some(maps) = maps {
            let sessions = sessions.clone();
            cache.listen(
                maps,
                Box::new(move |change| {
                    let node = change.object.name().strip_suffix(SUFFIX).filter(|_| change.object.namespace() == NAMESPACE);
                    if let Some(node) = node {
                        sessions.end(node);
                    }
                }),
            );
        }
        sessions
    }

    /// All connections, whatever their key: who still has the name connects again.
    fn end(&self, node: &str) {
        if let Some(open) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node) {
            open.cancel();
        }
    }

    pub fn of(&self, node: &str) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(node.to_owned()).or_default().clone()
    }
}
