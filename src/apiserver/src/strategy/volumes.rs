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
        let claim_or_snapshot = [("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")];
        claim_or_snapshot.contains(&(source.str_at(&["kind"]), source.str_at(&["apiGroup"])))
    };
    let source = object.at(&["spec", "dataSource"]).filter(|source| !source.is_null()).cloned();
    let reference = object.at(&["spec", "dataSourceRef"]).filter(|reference| !reference.is_null()).cloned();
    match (source, reference) {
        (Some(source), None) if is_core(&source) => object.set(&["spec", "dataSourceRef"], source),
        // Anything else was never allowed in the old field, and goes without a word.
        (Some(_), None) => drop(object.remove(&["spec", "dataSource"])),
        (None, Some(reference)) if reference.str_at(&["namespace"]).is_empty() => object.set(&["spec", "dataSource"], reference),
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
