//! Whether a node's certificate is of the key that has the node's name.
//!
//! The approver of certificates records keys in ConfigMaps `kube-system/NAME.node-key` (`controllers/src/node_keys.rs`). A name without
//! a record is believed as upstream believes it: its certificate was approved by hand, or its Node was deleted and nobody else has
//! joined under the name since. So a machine that lost its name to another cannot come back with its old certificate.
use crate::cache::Cache;

/// `Err` says why not.
pub fn check(cache: &Cache, node: &str, certificate: &[u8]) -> Result<(), String> {
    let Some(record) = cache.get("", "configmaps", "kube-system", &format!("{node}.node-key")) else { return Ok(()) };
    let record = record.tree();
    let key = pki::key_fingerprint(certificate).ok_or("unreadable key")?;
    let good = ["key", "previous-key"].iter().any(|entry| record.str_at(&["data", entry]) == key);
    if good { Ok(()) } else { Err(format!("the name of node {node:?} belongs to another key")) }
}
