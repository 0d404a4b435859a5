//! PersistentVolumes and claims. Models pkg/registry/core/{persistentvolume,persistentvolumeclaim}/strategy.go.
use api::tree::Tree;

use crate::rest::storage::now;

const SINCE: [&str; 2] = ["status", "lastPhaseTransitionTime"];

pub fn prepare_create(plural: &str, object: &mut Tree) {
    object.set(&["status", "phase"], "Pending");
    if plural != "persistentvolumeclaims" {
        object.set(&SINCE, now());
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

/// A volume remembers since when it has its phase.
pub fn stamp_phase(new: &mut Tree, old: &Tree) {
    let changed = new.str_at(&["status", "phase"]) != old.str_at(&["status", "phase"]);
    let (asked, before) = (new.at(&SINCE).cloned(), old.at(&SINCE).cloned());
    if changed && (asked.is_none() || asked == before) {
        new.set(&SINCE, now());
    } else if let (false, None, Some(before)) = (changed, asked, before) {
        new.set(&SINCE, before);
    }
}
