//! PersistentVolumes, claims and StorageClasses.
//!
//! Models pkg/apis/core/validation/validation.go `ValidatePersistentVolumeSpec`, `ValidatePersistentVolumeClaimSpec` and
//! pkg/apis/storage/validation.
use std::collections::{BTreeMap, HashMap};

use super::check::*;
use super::diff::diff;
use super::{affinity, resources, volume, volume_drivers};
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

const METADATA: Path<'static> = Path::new("metadata");
const SPEC: Path<'static> = Path::new("spec");
const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

fn access_modes(errors: &mut Errors, spec: &Tree, required: &str, path: &Path) {
    let modes = strings(spec, "accessModes");
    let modes_path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(modes_path, required));
    }
    for mode in &modes {
        supported(errors, mode, ACCESS_MODES, &modes_path);
    }
    let single = modes.contains(&"ReadWriteOncePod");
    if single && modes.iter().any(|m| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m)) {
        errors.push(FieldError::forbidden(modes_path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn class_and_mode(errors: &mut Errors, spec: &Tree, path: &Path) {
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let name = text(spec, key);
        if !name.is_empty() {
            dns_subdomain(errors, name, &path.child(key));
        }
    }
    if let Some(mode) = set(spec, "volumeMode") {
        supported(errors, mode.as_str().unwrap_or(""), VOLUME_MODES, &path.child("volumeMode"));
    }
}

/// The spec of a claim, also of one in a pod.
pub(super) fn claim_spec(errors: &mut Errors, spec: &Tree, path: &Path) {
    access_modes(errors, spec, "at least 1 access mode is required", path);
    label_selector(errors, at(spec, "selector"), &path.child("selector"));
    let resources_path = path.child("resources");
    let storage_path = resources_path.key("storage");
    match spec.at(&["resources", "requests", "storage"]) {
        None => errors.push(FieldError::required(storage_path, "")),
        Some(value) if quantity(value).sign() <= 0 => {
            errors.push(FieldError::invalid(storage_path, quantity(value).to_string(), "must be greater than zero"));
        }
        Some(value) => resources::amount(errors, "storage", value, &storage_path),
    }
    class_and_mode(errors, spec, path);
    for key in ["dataSource", "dataSourceRef"] {
        let Some(source) = set(spec, key) else { continue };
        let path = path.child(key);
        require(errors, source, "name", &path);
        require(errors, source, "kind", &path);
        let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(path, kind, detail));
        } else if !group.is_empty() {
            dns_subdomain(errors, group, &path.child("apiGroup"));
        }
        if !text(source, "namespace").is_empty() {
            dns_label(errors, text(source, "namespace"), &path.child("namespace"));
        }
    }
    if let (Some(source), Some(reference)) = (set(spec, "dataSource"), set(spec, "dataSourceRef")) {
        let shown = path.child("dataSource").to_string();
        if !text(reference, "namespace").is_empty() {
            errors.push(FieldError::invalid(path, shown, "may not be specified when dataSourceRef.namespace is specified"));
        } else if !["apiGroup", "kind", "name"].iter().all(|k| same_at(source, reference, k)) {
            errors.push(FieldError::invalid(path, shown, "must match dataSourceRef"));
        }
    }
}

/// A class may be said by an annotation, as it once was, and then by its field: `munged` loses it where that is no change.
/// Models validateStorageClassUpgradeFromAnnotation and validateStorageClassUpgradeFromNil.
fn class_by_annotation(errors: &mut Errors, new: &Tree, old: &Tree, munged: &mut Tree) {
    let annotation = |claim: &'_ Tree| crate::meta::annotation(claim, CLASS).map(str::to_owned);
    let (before, after) = (annotation(old), annotation(new));
    let class = |claim: &Tree| set(at(claim, "spec"), "storageClassName").and_then(Tree::as_str).map(str::to_owned);
    let (old_class, new_class) = (class(old), class(new));
    let is_moved = before.is_some() && old_class.is_none() && new_class == before && (after.is_none() || after == before);
    if !is_moved && before.as_deref().unwrap_or("") != after.as_deref().unwrap_or("") {
        let path = METADATA.child("annotations");
        errors.push(FieldError::invalid(path.child(CLASS), after.as_deref().unwrap_or(""), IMMUTABLE));
    }
    if is_moved || (old_class.is_none() && (before.is_none() || new_class == before)) {
        munged.remove(&["storageClassName"]);
    }
}

pub(super) fn claim(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    claim_spec(errors, spec, &SPEC);
    let Some(old) = old else { return };
    let old_spec = at(old, "spec");
    let mut munged = spec.clone();
    let mut before = old_spec.clone();
    if text(old_spec, "volumeName").is_empty() {
        // The controller binds once.
        match spec.get("volumeName") {
            Some(name) => before.set(&["volumeName"], name.clone()),
            None => {
                before.remove(&["volumeName"]);
            }
        }
    }
    class_by_annotation(errors, new, old, &mut munged);
    let size = ["resources", "requests", "storage"];
    if new.str_at(&["status", "phase"]) == "Bound" {
        if let Some(old_size) = old_spec.at(&size) {
            munged.set(&size, old_size.clone());
        }
        match old_spec.get("volumeAttributesClassName") {
            Some(class) => munged.set(&["volumeAttributesClassName"], class.clone()),
            None => {
                munged.remove(&["volumeAttributesClassName"]);
            }
        }
    }
    if !same(&munged, &before) {
        let report = diff(&before, &munged, "core.PersistentVolumeClaimSpec");
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{report}"
        );
        errors.push(FieldError::forbidden(SPEC, detail));
    }
    let amount = |tree: &Tree, path: &[&str]| tree.at(path).map(quantity).unwrap_or_default();
    let (new_size, old_size) = (amount(spec, &size), amount(old_spec, &size));
    if new_size < old_size && new_size <= amount(old, &["status", "capacity", "storage"]) {
        let resources = SPEC.child("resources");
        let requests = resources.child("requests");
        errors.push(FieldError::forbidden(requests.child("storage"), "field can not be less than status.capacity"));
    }
    immutable(errors, at(spec, "volumeMode"), at(old_spec, "volumeMode"), &Path::new("volumeMode"));
    // Once a class is in force it can be changed, and not taken back.
    let class = set(spec, "volumeAttributesClassName");
    let is_changed = !same_at(spec, old_spec, "volumeAttributesClassName");
    if is_changed && old.at(&["status", "currentVolumeAttributesClassName"]).is_some_and(|class| !class.is_null()) {
        let path = SPEC.child("volumeAttributesClassName");
        let refused = |to: &str| format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
        match class.map(|class| class.as_str().unwrap_or("")) {
            None => errors.push(FieldError::forbidden(path, refused("nil"))),
            Some("") => errors.push(FieldError::forbidden(path, refused("empty string"))),
            Some(_) => {}
        }
    }
}

const VOLUME_SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Models pkg/volume/validation/pv_validation.go checkMountOption.
const MOUNTED_WITH_OPTIONS: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn persistent_volume(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    access_modes(errors, spec, "", &SPEC);
    let capacity_path = SPEC.child("capacity");
    let capacity = at(spec, "capacity");
    let sizes = capacity.as_object().map_or(0, |sizes| sizes.len());
    if sizes == 0 {
        errors.push(FieldError::required(capacity_path, ""));
    }
    if sizes > 1 || capacity.get("storage").is_none() {
        errors.push(FieldError::not_supported(capacity_path, capacity, &["storage"]));
    }
    for (name, value) in entries(spec, "capacity") {
        let path = capacity_path.key(name);
        if quantity(value).value() < 0 {
            errors.push(FieldError::invalid(path, quantity(value).value(), "must be a valid resource quantity"));
        }
        if quantity(value).sign() <= 0 {
            errors.push(FieldError::invalid(path, quantity(value).to_string(), "must be greater than zero"));
        }
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    one_of_or_empty(errors, policy, &["Delete", "Recycle", "Retain"], &SPEC.child("persistentVolumeReclaimPolicy"));
    let node_affinity = set(spec, "nodeAffinity");
    if let Some(affinity_) = node_affinity {
        let path = SPEC.child("nodeAffinity");
        match set(affinity_, "required") {
            Some(required) => affinity::node_selector(errors, required, &path.child("required")),
            None => errors.push(FieldError::required(path.child("required"), "must specify required node constraints")),
        }
    }
    one_source(errors, spec, new.str_at(&["metadata", "name"]), node_affinity.is_some(), &SPEC);
    class_and_mode(errors, spec, &SPEC);
    if let Some(class) = set(spec, "volumeAttributesClassName") {
        if class.as_str() == Some("") {
            errors.push(FieldError::required(SPEC.child("volumeAttributesClassName"), "an empty string is disallowed"));
        }
        if set(spec, "csi").is_none() {
            errors.push(FieldError::required(SPEC.child("csi"), "has to be specified when using volumeAttributesClassName"));
        }
    }
    if !MOUNTED_WITH_OPTIONS.iter().any(|name| set(spec, name).is_some()) && crate::meta::annotation(new, MOUNT_OPTIONS).is_some() {
        let path = METADATA.child("annotations");
        errors.push(FieldError::forbidden(path.child(MOUNT_OPTIONS), "may not specify mount options for this volume type"));
    }
    let Some(old) = old.map(|o| at(o, "spec")) else { return };
    const EXPANSION_SECRET: [&str; 2] = ["csi", "controllerExpandSecretRef"];
    let mut spec = std::borrow::Cow::Borrowed(spec);
    if old.at(&EXPANSION_SECRET).is_none_or(Tree::is_null) && set(old, "csi").is_some() && spec.at(&EXPANSION_SECRET).is_some() {
        spec.to_mut().remove(&EXPANSION_SECRET);
    }
    let spec = &*spec;
    let is_same = |name: &&str| set(spec, name).is_some() == set(old, name).is_some() && same_at(spec, old, name);
    if !VOLUME_SOURCES.iter().all(is_same) {
        let sources = |spec: &Tree| {
            let mut spec = spec.clone();
            spec.make_object().retain(|key, _| VOLUME_SOURCES.contains(&key));
            spec
        };
        let report = diff(&sources(old), &sources(spec), "core.PersistentVolumeSource");
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{report}");
        errors.push(FieldError::forbidden(SPEC.child("persistentvolumesource"), detail));
    }
    immutable(errors, at(spec, "volumeMode"), at(old, "volumeMode"), &Path::new("volumeMode"));
    if set(old, "volumeAttributesClassName").is_some() && set(spec, "volumeAttributesClassName").is_none() {
        let path = SPEC.child("volumeAttributesClassName");
        errors.push(FieldError::forbidden(path, "update from non-nil value to nil is forbidden"));
    }
    if set(old, "nodeAffinity").is_some() && !same_at(spec, old, "nodeAffinity") {
        let detail = "field is immutable, except for updating from beta label to GA";
        errors.push(FieldError::invalid(Path::new("nodeAffinity"), at(spec, "nodeAffinity"), detail));
    }
}

/// The one thing that a volume is of.
fn one_source(errors: &mut Errors, spec: &Tree, volume: &str, has_node_affinity: bool, all: &Path) {
    let mut found = false;
    for name in VOLUME_SOURCES {
        let Some(source) = set(spec, name) else { continue };
        let path = all.child(if *name == "gcePersistentDisk" { "persistentDisk" } else { *name });
        // Upstream counts this one, whatever stands before it.
        if found && *name != "flexVolume" {
            let path = all.child(if *name == "cephfs" { "cephFS" } else { *name });
            errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        volume_source(errors, name, source, volume, &path);
        if *name == "local" && !has_node_affinity {
            errors.push(FieldError::required(all.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
    if !found {
        errors.push(FieldError::required(*all, "must specify a volume type"));
    }
    if text(at(spec, "hostPath"), "path") == "/" && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(all.child("persistentVolumeReclaimPolicy"), detail));
    }
}

/// The spec of a volume that stands in a VolumeAttachment. Models ValidatePersistentVolumeSpec for inline volumes.
pub(super) fn inline_volume(errors: &mut Errors, spec: &Tree, path: &Path) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if set(spec, "claimRef").is_some() {
        errors.push(FieldError::forbidden(path.child("claimRef"), INLINE));
    }
    if entries(spec, "capacity").next().is_some() {
        errors.push(FieldError::forbidden(path.child("capacity"), INLINE));
    }
    if set(spec, "csi").is_none() {
        errors.push(FieldError::required(path.child("csi"), "has to be specified in the context of inline volumes"));
    }
    access_modes(errors, spec, "", path);
    if !matches!(text(spec, "persistentVolumeReclaimPolicy"), "" | "Retain") {
        errors.push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), "may only be Retain in the context of inline volumes"));
    }
    if set(spec, "nodeAffinity").is_some() {
        errors.push(FieldError::forbidden(path.child("nodeAffinity"), INLINE));
    }
    one_source(errors, spec, "", false, path);
    if !text(spec, "storageClassName").is_empty() {
        errors.push(FieldError::forbidden(path.child("storageClassName"), INLINE));
    }
    if set(spec, "volumeMode").is_some_and(|mode| mode.as_str() != Some("Filesystem")) {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(FieldError::forbidden(path.child("volumeMode"), detail));
    }
}

fn volume_source(errors: &mut Errors, name: &str, source: &Tree, volume: &str, path: &Path) {
    match name {
        "local" => {
            let target = text(source, "path");
            if target.is_empty() {
                errors.push(FieldError::required(path.child("path"), ""));
            } else {
                volume::no_backsteps(errors, target, &path.child("path"));
            }
        }
        "csi" => {
            volume::driver_name(errors, text(source, "driver"), &path.child("driver"));
            require(errors, source, "volumeHandle", path);
            let secrets = [
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ];
            for key in secrets {
                let (Some(secret), path) = (set(source, key), path.child(key)) else { continue };
                match text(secret, "name") {
                    "" => errors.push(FieldError::required(path.child("name"), "")),
                    name => dns_subdomain(errors, name, &path.child("name")),
                }
                match text(secret, "namespace") {
                    "" => errors.push(FieldError::required(path.child("namespace"), "")),
                    namespace => dns_label(errors, namespace, &path.child("namespace")),
                }
            }
        }
        other => volume_drivers::source(errors, other, source, volume_drivers::Of::PersistentVolume(volume), path),
    }
}

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "StorageClass" => storage_class(errors, new, old),
        _ => super::csi::check(errors, kind, new, old),
    }
}

fn storage_class(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let provisioner = text(new, "provisioner");
    let path = Path::new("provisioner");
    if provisioner.is_empty() {
        errors.push(FieldError::required(path, provisioner));
    } else {
        label_name(errors, &provisioner.to_lowercase(), &path);
    }
    parameters(errors, new, true);
    one_of_or_empty(errors, text(new, "reclaimPolicy"), &["Delete", "Retain"], &Path::new("reclaimPolicy"));
    let mode_path = Path::new("volumeBindingMode");
    match set(new, "volumeBindingMode") {
        None => errors.push(FieldError::required(mode_path, "")),
        Some(mode) => supported(errors, mode.as_str().unwrap_or(""), &["Immediate", "WaitForFirstConsumer"], &mode_path),
    }
    allowed_topologies(errors, new);
    let Some(old) = old else { return };
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        declared_immutable(errors, new, old, key);
    }
}

/// What a driver is told of a class.
pub(super) fn parameters(errors: &mut Errors, class: &Tree, may_be_empty: bool) {
    let path = Path::new("parameters");
    let count = entries(class, "parameters").count();
    if count > 512 {
        errors.push(FieldError::too_long(path, 512));
        return;
    }
    let bytes: usize = entries(class, "parameters").map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if entries(class, "parameters").any(|(k, _)| k.is_empty()) {
        errors.push(FieldError::invalid(path, "", "field can not be empty."));
    }
    if bytes > 256 * 1024 {
        errors.push(FieldError::too_long(path, 256 * 1024));
    }
    if !may_be_empty && count == 0 {
        errors.push(FieldError::required(path, "must contain at least one key/value pair"));
    }
}

/// Terms that say the same are told of once for each pair; beyond so many pairs upstream goes on.
const REPEATS_MAX: usize = 1000;

/// Models pkg/apis/core/validation `ValidateTopologySelectorTerm`; two terms must not say the same.
fn allowed_topologies(errors: &mut Errors, class: &Tree) {
    let all = Path::new("allowedTopologies");
    let mut terms: HashMap<BTreeMap<&str, Vec<&str>>, usize> = HashMap::new();
    let mut left = REPEATS_MAX;
    for (i, term) in list(class, "allowedTopologies").iter().enumerate() {
        let path = all.index(i);
        let expressions_path = path.child("matchLabelExpressions");
        let mut expressions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (i, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
            let path = expressions_path.index(i);
            let (key, mut values) = (text(expression, "key"), strings(expression, "values"));
            if values.is_empty() {
                errors.push(FieldError::required(path.child("values"), ""));
            }
            let values_path = path.child("values");
            for ((i, value), _) in values.iter().enumerate().zip(repeated(&values)).filter(|(_, again)| *again) {
                errors.push(FieldError::duplicate(values_path.index(i), *value));
            }
            label_name(errors, key, &path.child("key"));
            values.sort_unstable();
            values.dedup();
            if expressions.insert(key, values).is_some() {
                errors.push(FieldError::duplicate(path.child("key"), key));
            }
        }
        // Upstream compares with one empty term for each that there is.
        let count = if expressions.is_empty() { list(class, "allowedTopologies").len() } else { 0 };
        let same = terms.entry(expressions).or_default();
        let told = (count + *same).min(left);
        (0..told).for_each(|_| errors.push(FieldError::duplicate(expressions_path, "")));
        left -= told;
        *same += 1;
    }
}
