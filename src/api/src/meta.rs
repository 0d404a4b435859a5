//! Reads and writes ObjectMeta in a tree. Getters answer the zero value where a field is absent, as Go's accessors do.
use crate::tree::{Object, Tree};

const METADATA: &str = "metadata";

fn field<'a>(object: &'a Tree, key: &str) -> &'a str {
    object.str_at(&[METADATA, key])
}

fn set_or_remove(object: &mut Tree, key: &str, value: &str) {
    if value.is_empty() {
        object.remove(&[METADATA, key]);
    } else {
        object.set(&[METADATA, key], value);
    }
}

pub fn api_version(object: &Tree) -> &str {
    object.str_at(&["apiVersion"])
}

pub fn kind(object: &Tree) -> &str {
    object.str_at(&["kind"])
}

pub fn set_type(object: &mut Tree, api_version: &str, kind: &str) {
    object.set(&["apiVersion"], api_version);
    object.set(&["kind"], kind);
}

pub fn name(object: &Tree) -> &str {
    field(object, "name")
}

pub fn set_name(object: &mut Tree, name: &str) {
    set_or_remove(object, "name", name);
}

pub fn generate_name(object: &Tree) -> &str {
    field(object, "generateName")
}

pub fn namespace(object: &Tree) -> &str {
    field(object, "namespace")
}

pub fn set_namespace(object: &mut Tree, namespace: &str) {
    set_or_remove(object, "namespace", namespace);
}

pub fn uid(object: &Tree) -> &str {
    field(object, "uid")
}

pub fn set_uid(object: &mut Tree, uid: &str) {
    set_or_remove(object, "uid", uid);
}

pub fn resource_version(object: &Tree) -> &str {
    field(object, "resourceVersion")
}

pub fn set_resource_version(object: &mut Tree, version: &str) {
    set_or_remove(object, "resourceVersion", version);
}

pub fn generation(object: &Tree) -> i64 {
    object.at(&[METADATA, "generation"]).and_then(Tree::as_i64).unwrap_or(0)
}

/// Zero removes the field.
pub fn set_generation(object: &mut Tree, generation: i64) {
    if generation == 0 {
        object.remove(&[METADATA, "generation"]);
    } else {
        object.set(&[METADATA, "generation"], generation);
    }
}

/// RFC 3339, or `""`.
pub fn creation_timestamp(object: &Tree) -> &str {
    field(object, "creationTimestamp")
}

pub fn set_creation_timestamp(object: &mut Tree, timestamp: &str) {
    set_or_remove(object, "creationTimestamp", timestamp);
}

/// RFC 3339; `None` when the object is not being deleted.
pub fn deletion_timestamp(object: &Tree) -> Option<&str> {
    object.at(&[METADATA, "deletionTimestamp"])?.as_str()
}

pub fn set_deletion_timestamp(object: &mut Tree, timestamp: Option<&str>) {
    set_or_remove(object, "deletionTimestamp", timestamp.unwrap_or(""));
}

pub fn deletion_grace_period_seconds(object: &Tree) -> Option<i64> {
    object.at(&[METADATA, "deletionGracePeriodSeconds"])?.as_i64()
}

pub fn set_deletion_grace_period_seconds(object: &mut Tree, seconds: Option<i64>) {
    match seconds {
        Some(seconds) => object.set(&[METADATA, "deletionGracePeriodSeconds"], seconds),
        None => drop(object.remove(&[METADATA, "deletionGracePeriodSeconds"])),
    }
}

pub fn finalizers(object: &Tree) -> impl Iterator<Item = &str> {
    object.array_at(&[METADATA, "finalizers"]).iter().filter_map(Tree::as_str)
}

/// An empty list removes the field.
pub fn set_finalizers<S: AsRef<str>>(object: &mut Tree, finalizers: impl IntoIterator<Item = S>) {
    let finalizers: Vec<Tree> = finalizers.into_iter().map(|f| Tree::from(f.as_ref())).collect();
    if finalizers.is_empty() {
        object.remove(&[METADATA, "finalizers"]);
    } else {
        object.set(&[METADATA, "finalizers"], Tree::Array(finalizers));
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

pub fn owner_references(object: &Tree) -> impl Iterator<Item = OwnerReference<'_>> {
    object.array_at(&[METADATA, "ownerReferences"]).iter().map(|reference| OwnerReference {
        api_version: reference.str_at(&["apiVersion"]),
        kind: reference.str_at(&["kind"]),
        name: reference.str_at(&["name"]),
        uid: reference.str_at(&["uid"]),
        controller: reference.get("controller").and_then(Tree::as_bool).unwrap_or(false),
        block_owner_deletion: reference.get("blockOwnerDeletion").and_then(Tree::as_bool).unwrap_or(false),
    })
}

/// The owner that manages the object.
pub fn controller_of(object: &Tree) -> Option<OwnerReference<'_>> {
    owner_references(object).find(|reference| reference.controller)
}

static EMPTY: Object = Object::new();

pub fn labels(object: &Tree) -> &Object {
    object.at(&[METADATA, "labels"]).and_then(Tree::as_object).unwrap_or(&EMPTY)
}

pub fn annotations(object: &Tree) -> &Object {
    object.at(&[METADATA, "annotations"]).and_then(Tree::as_object).unwrap_or(&EMPTY)
}

pub fn label<'a>(object: &'a Tree, key: &str) -> Option<&'a str> {
    labels(object).get(key)?.as_str()
}

pub fn annotation<'a>(object: &'a Tree, key: &str) -> Option<&'a str> {
    annotations(object).get(key)?.as_str()
}

pub fn set_label(object: &mut Tree, key: &str, value: &str) {
    object.set(&[METADATA, "labels", key], value);
}

pub fn set_annotation(object: &mut Tree, key: &str, value: &str) {
    object.set(&[METADATA, "annotations", key], value);
}

/// Removes the annotation, and the map with its last entry.
pub fn remove_annotation(object: &mut Tree, key: &str) {
    object.remove(&[METADATA, "annotations", key]);
    if annotations(object).is_empty() {
        object.remove(&[METADATA, "annotations"]);
    }
}
