//! Namespaces. Models pkg/registry/core/namespace/{strategy.go,storage/storage.go}.
use api::meta;
use api::registry::Resource;
use api::tree::Tree;

const FINALIZER: &str = "kubernetes";

pub fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "namespaces"
}

pub fn prepare_create(object: &mut Tree) {
    object.set(&["status", "phase"], "Active");
    let mut finalizers: Vec<Tree> = object.array_at(&["spec", "finalizers"]).to_vec();
    if !finalizers.iter().any(|f| f.as_str() == Some(FINALIZER)) {
        finalizers.push(FINALIZER.into());
    }
    object.set(&["spec", "finalizers"], Tree::Array(finalizers));
}

/// Every namespace can be selected by its name.
pub fn label(object: &mut Tree) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        meta::set_label(object, "kubernetes.io/metadata.name", &name);
    }
}

pub fn has_finalizers(object: &Tree) -> bool {
    !object.array_at(&["spec", "finalizers"]).is_empty()
}

pub fn mark_deleted(object: &mut Tree) {
    object.set(&["status", "phase"], "Terminating");
}
