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
    agree_on_sources(object, None);
}

/// What a claim is filled with: the old field and the new one say the same, where they can.
///
/// Models pkg/api/persistentvolumeclaim/util.go DropDisabledFields (CrossNamespaceVolumeDataSource is off by default),
/// EnforceDataSourceBackwardsCompatibility and NormalizeDataSources.
pub fn agree_on_sources(object: &mut Tree, old: Option<&Tree>) {
    let given = |object: &Tree, key: &str| object.at(&["spec", key]).filter(|source| !source.is_null()).cloned();
    let is_core = |source: &Tree| {
        let claim_or_snapshot = [("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")];
        claim_or_snapshot.contains(&(source.str_at(&["kind"]), source.str_at(&["apiGroup"])))
    };
    let had = |key: &str| old.is_some_and(|old| given(old, key).is_some());
    let is_foreign = |reference: &Tree| !reference.str_at(&["namespace"]).is_empty();
    let mut reference = given(object, "dataSourceRef");
    if reference.as_ref().is_some_and(is_foreign) && !had("dataSourceRef") {
        object.remove(&["spec", "dataSourceRef"]);
        reference = None;
    }
    match (given(object, "dataSource"), reference) {
        // Anything else was never allowed in the old field, and goes without a word.
        (Some(source), None) if !is_core(&source) && !had("dataSource") && !had("dataSourceRef") => {
            object.remove(&["spec", "dataSource"]);
        }
        (Some(source), None) => object.set(&["spec", "dataSourceRef"], source),
        (None, Some(reference)) if !is_foreign(&reference) => object.set(&["spec", "dataSource"], reference),
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
