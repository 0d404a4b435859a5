//! The two kinds that are served in another version than they are stored in: Events (core/v1 and events.k8s.io/v1) and autoscaling v1.
//!
//! Models pkg/apis/events/v1/conversion.go and pkg/apis/autoscaling/v1/conversion.go. All other kinds have one version.
mod autoscaling;
mod events;

use api::registry::Resource;
use api::tree::Tree;
use bytes::Bytes;

use crate::cache::stored_as;

/// Whether `resource`'s bytes differ from the stored ones.
pub fn is_needed(resource: &'static Resource) -> bool {
    !std::ptr::eq(stored_as(resource), resource)
}

/// Stored bytes as `resource` shows them.
pub fn bytes(resource: &'static Resource, stored: &Bytes) -> Bytes {
    if !is_needed(resource) {
        return stored.clone();
    }
    let mut tree = Tree::from_json(stored).expect("checked when it entered the cache");
    from_stored(resource, &mut tree);
    tree.to_json().into()
}

pub fn from_stored(resource: &'static Resource, tree: &mut Tree) {
    if !is_needed(resource) {
        return;
    }
    match (resource.group, resource.plural) {
        ("events.k8s.io", "events") => events::from_core(tree),
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::v1_from_v2(tree),
        _ => {}
    }
    api::meta::set_type(tree, &resource.api_version(), resource.kind);
}

pub fn to_stored(resource: &'static Resource, tree: &mut Tree) {
    if !is_needed(resource) {
        return;
    }
    match (resource.group, resource.plural) {
        ("events.k8s.io", "events") => events::to_core(tree),
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::v2_from_v1(tree),
        _ => {}
    }
    let stored = stored_as(resource);
    api::meta::set_type(tree, &stored.api_version(), stored.kind);
}

/// Moves the field `from` to `to`.
fn rename(tree: &mut Tree, from: &str, to: &str) {
    if let Some(object) = tree.as_object_mut()
        && let Some(value) = object.remove(from)
    {
        object.insert(to, value);
    }
}
