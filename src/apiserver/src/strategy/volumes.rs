//! PersistentVolumes and claims. Models pkg/registry/core/{persistentvolume,persistentvolumeclaim}/strategy.go.
use api::tree::Tree;

pub fn prepare_create(plural: &str, object: &mut Tree) {
    object.set(&["status", "phase"], "Pending");
    if plural != "persistentvolumeclaims" {
        return;
    }
    // The old field and the new one say the same, where they can.
    let is_core = |source: &Tree| {
        source.str_at(&["kind"]) == "PersistentVolumeClaim" || source.str_at(&["apiGroup"]) == "snapshot.storage.k8s.io"
    };
    let source = object.at(&["spec", "dataSource"]).cloned();
    let reference = object.at(&["spec", "dataSourceRef"]).cloned();
    match (source, reference) {
        (Some(source), None) => object.set(&["spec", "dataSourceRef"], source),
        (None, Some(reference)) if is_core(&reference) && reference.get("namespace").is_none() => object.set(&["spec", "dataSource"], reference),
        _ => {}
    }
}
