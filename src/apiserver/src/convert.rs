//! Kinds that are served in another version than they are stored in: Events (core/v1 and events.k8s.io/v1), autoscaling v1, custom kinds.
//!
//! Models pkg/apis/events/v1/conversion.go and pkg/apis/autoscaling/v1/conversion.go. All other built-in kinds have
//! one version. Custom kinds are in [`custom`], because a webhook may have to be asked.
mod autoscaling;
mod custom;
mod events;
mod webhook;

use api::registry::Resource;
use api::tree::Tree;
use bytes::Bytes;

pub use custom::{is_viewed, to_stored as custom_to_stored, to_version, view, views};
pub use webhook::Webhooks;

use crate::cache::storage_group;

/// Whether the bytes of a built-in `resource` differ from the stored ones.
pub fn is_needed(resource: &Resource) -> bool {
    if resource.custom.is_some() {
        return false;
    }
    resource.version != resource.storage_version || (resource.group == "events.k8s.io" && resource.plural == "events")
}

/// Stored bytes as `resource` shows them.
pub fn bytes(resource: &Resource, stored: &Bytes) -> Bytes {
    if !is_needed(resource) {
        return stored.clone();
    }
    let mut tree = Tree::from_json(stored).expect("checked when it entered the cache");
    from_stored(resource, &mut tree);
    tree.to_json().into()
}

pub fn from_stored(resource: &Resource, tree: &mut Tree) {
    if !is_needed(resource) {
        return;
    }
    api::meta::set_type(tree, &resource.api_version(), &resource.kind);
    match (&*resource.group, &*resource.plural) {
        ("events.k8s.io", "events") => events::from_core(tree),
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::v1_from_v2(tree),
        _ => {}
    }
}

pub fn to_stored(resource: &Resource, tree: &mut Tree) {
    if !is_needed(resource) {
        return;
    }
    match (&*resource.group, &*resource.plural) {
        ("events.k8s.io", "events") => events::to_core(tree),
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::v2_from_v1(tree),
        _ => {}
    }
    let group = storage_group(&resource.group, &resource.plural);
    api::meta::set_type(tree, &api::registry::api_version(group, &resource.storage_version), &resource.kind);
}

/// Moves the field `from` to `to`.
fn rename(tree: &mut Tree, from: &str, to: &str) {
    if let Some(object) = tree.as_object_mut()
        && let Some(value) = object.remove(from)
    {
        object.insert(to, value);
    }
}
