//! CSIDrivers, CSINodes, CSIStorageCapacities, VolumeAttachments and VolumeAttributesClasses.
//!
//! Models pkg/apis/storage/validation/validation.go. Left out: `inlineVolumeSpec` of attachments, which only migration from drivers in the tree sets.
use std::collections::HashMap;

use super::check::*;
use super::storage::{inline_volume, parameters};
use super::volume::driver_name;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const NODE_ID_BYTES_MAX: usize = 256;

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "CSIDriver" => driver(errors, at(new, "spec"), old.map(|old| at(old, "spec"))),
        "CSINode" => node(errors, at(new, "spec"), old.map(|old| at(old, "spec"))),
        "CSIStorageCapacity" => capacity(errors, new, old),
        "VolumeAttachment" => attachment(errors, new, old),
        "VolumeAttributesClass" => attributes_class(errors, new, old),
        _ => {}
    }
}

fn driver(errors: &mut Errors, spec: &Tree, old: Option<&Tree>) {
    if let Some(policy) = set(spec, "fsGroupPolicy") {
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        supported(errors, policy.as_str().unwrap_or(""), &policies, &SPEC.child("fsGroupPolicy"));
    }
    let requests = list(spec, "tokenRequests");
    let requests_path = SPEC.child("tokenRequests");
    let again = repeated(requests.iter().map(|item| text(item, "audience")));
    for (i, request) in requests.iter().enumerate() {
        let path = requests_path.index(i);
        let audience = text(request, "audience");
        if again[i] {
            errors.push(FieldError::duplicate(path.child("audience"), audience));
            continue;
        }
        let Some(seconds) = int(request, "expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < TOKEN_SECONDS_MIN {
            errors.push(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > TOKEN_SECONDS_MAX {
            errors.push(FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
    }
    for mode in strings(spec, "volumeLifecycleModes") {
        supported(errors, mode, &["Persistent", "Ephemeral"], &SPEC.child("volumeLifecycleModes"));
    }
    if let Some(seconds) = int(spec, "nodeAllocatableUpdatePeriodSeconds").filter(|seconds| *seconds < 10) {
        let detail = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(SPEC.child("nodeAllocatableUpdatePeriodSeconds"), seconds, detail));
    }
    if let Some(in_secrets) = set(spec, "serviceAccountTokenInSecrets").filter(|_| requests.is_empty()) {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(SPEC.child("serviceAccountTokenInSecrets"), in_secrets, detail));
    }
    let Some(old) = old else { return };
    // The path is upstream's.
    immutable(errors, at(spec, "attachRequired"), at(old, "attachRequired"), &SPEC.child("attachedRequired"));
    immutable(errors, at(spec, "volumeLifecycleModes"), at(old, "volumeLifecycleModes"), &SPEC.child("volumeLifecycleModes"));
}

fn node(errors: &mut Errors, spec: &Tree, old: Option<&Tree>) {
    let drivers = list(spec, "drivers");
    let drivers_path = SPEC.child("drivers");
    let again = repeated(drivers.iter().map(|item| text(item, "name")));
    for (i, driver) in drivers.iter().enumerate() {
        let path = drivers_path.index(i);
        let (name, id) = (text(driver, "name"), text(driver, "nodeID"));
        driver_name(errors, name, &path.child("name"));
        if id.is_empty() {
            errors.push(FieldError::required(path.child("nodeID"), ""));
        }
        if id.len() > NODE_ID_BYTES_MAX {
            errors.push(FieldError::invalid(path.child("nodeID"), id, format!("must be {NODE_ID_BYTES_MAX} characters or less")));
        }
        let allocatable = path.child("allocatable");
        non_negative(errors, int(at(driver, "allocatable"), "count"), &allocatable.child("count"));
        if again[i] {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        let keys = strings(driver, "topologyKeys");
        let again = repeated(keys.iter());
        for (i, key) in keys.iter().enumerate() {
            if key.is_empty() {
                errors.push(FieldError::required(path, ""));
            }
            if again[i] {
                errors.push(FieldError::duplicate(path, *key));
            }
            label_name(errors, key, &path);
        }
    }
    let mut by_name: HashMap<&str, Vec<&Tree>> = HashMap::new();
    drivers.iter().for_each(|driver| by_name.entry(text(driver, "name")).or_default().push(driver));
    for before in old.map_or(&[][..], |old| list(old, "drivers")) {
        for driver in by_name.get(text(before, "name")).into_iter().flatten().copied() {
            if !["nodeID", "topologyKeys"].iter().all(|key| same_at(driver, before, key)) {
                errors.push(FieldError::invalid(drivers_path, driver, IMMUTABLE));
            }
        }
    }
}

fn capacity(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    label_selector(errors, at(new, "nodeTopology"), &Path::new("nodeTopology"));
    dns_subdomain(errors, text(new, "storageClassName"), &Path::new("storageClassName"));
    if let Some(capacity) = set(new, "capacity") {
        non_negative_quantity(errors, capacity, &Path::new("capacity"));
    }
    let Some(old) = old else { return };
    for key in ["nodeTopology", "storageClassName"] {
        immutable(errors, at(new, key), at(old, key), &Path::new(key));
    }
}

fn attachment(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    driver_name(errors, text(spec, "attacher"), &SPEC.child("attacher"));
    let source = at(spec, "source");
    let path = SPEC.child("source");
    let volume = set(source, "persistentVolumeName").map(|name| name.as_str().unwrap_or(""));
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (set(source, "inlineVolumeSpec"), volume) {
        (None, None) => errors.push(FieldError::required(path, detail)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(path, detail)),
        (None, Some("")) => {
            errors.push(FieldError::required(path.child("persistentVolumeName"), "must specify non empty persistentVolumeName"));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => inline_volume(errors, inline, &path.child("inlineVolumeSpec")),
    }
    dns_subdomain(errors, text(spec, "nodeName"), &SPEC.child("nodeName"));
    if let Some(name) = volume {
        dns_subdomain(errors, name, &path.child("persistentVolumeName"));
    }
    if let Some(old) = old {
        declared_immutable(errors, new, old, "spec");
    }
}

fn attributes_class(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    if let Some(old) = old {
        for key in ["driverName", "parameters"] {
            if !same_at(new, old, key) {
                errors.push(FieldError::forbidden(Path::new(key), format!("updates to {key} are forbidden.")));
            }
        }
    }
    let (driver, path) = (text(new, "driverName"), Path::new("driverName"));
    if driver.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        let driver = driver.to_lowercase();
        invalid(errors, &path, &driver, names::qualified_name(&driver));
    }
    parameters(errors, new, false);
}
