//! Volumes of pods, and the sources that they share with PersistentVolumes.
//!
//! Models pkg/apis/core/validation/validation.go `ValidateVolumes`, `validateVolumeSource` and what they call. Left out: the sources
//! of in-tree drivers that no longer exist are checked for their required fields only.
use std::collections::{HashMap, HashSet};

use super::check::*;
use super::container::{object_field, resource_field};
use super::{projected, volume_drivers};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const VOLUME_FIELDS: &[&str] = &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The order in which upstream looks at the sources; all but the first one found are refused.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Checks the volumes; returns those that are valid, to which mounts may refer. `pod_name` is empty for a template.
pub(super) fn volumes<'t>(errors: &mut Errors, volumes: &'t [Tree], pod_name: &str, path: &Path) -> HashMap<&'t str, &'t Tree> {
    let mut valid: HashMap<&str, &Tree> = HashMap::new();
    let created: HashSet<String> = volumes
        .iter()
        .filter(|v| !pod_name.is_empty() && set(v, "ephemeral").is_some())
        .map(|v| format!("{pod_name}-{}", text(v, "name")))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        source(errors, volume, pod_name, &path);
        let name = text(volume, "name");
        let name_path = path.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(name_path, ""));
        } else {
            dns_label(errors, name, &name_path);
        }
        if valid.contains_key(name) {
            errors.push(FieldError::duplicate(name_path, name));
        }
        if errors.len() == before {
            valid.insert(name, volume);
        }
        if let Some(claim) = set(volume, "persistentVolumeClaim") {
            let name = text(claim, "claimName");
            if created.contains(name) {
                let claim_path = path.child("persistentVolumeClaim");
                let detail = "must not reference a PVC that gets created for an ephemeral volume";
                errors.push(FieldError::invalid(claim_path.child("claimName"), name, detail));
            }
        }
    }
    valid
}

fn source(errors: &mut Errors, volume: &Tree, pod_name: &str, path: &Path) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = set(volume, name) else { continue };
        let source_path = path.child(if *name == "gcePersistentDisk" { "persistentDisk" } else { *name });
        if found {
            // Upstream's spelling of these two is another when they come second.
            let shown = match *name {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                other => other,
            };
            errors.push(FieldError::forbidden(path.child(shown), "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        one_source(errors, name, source, &source_path);
        let portal = text(source, "targetPortal");
        if *name == "iscsi" && set(source, "initiatorName").is_some() && volume_drivers::is_portal_too_long(text(volume, "name"), portal) {
            errors.push(FieldError::invalid(path.child("name"), text(volume, "name"), volume_drivers::PORTAL_TOO_LONG));
        }
        if *name == "ephemeral" && !pod_name.is_empty() && !text(volume, "name").is_empty() {
            let claim = format!("{pod_name}-{}", text(volume, "name"));
            for text_ in names::dns1123_subdomain(&claim) {
                let detail = format!("PVC name \"{claim}\": {text_}");
                errors.push(FieldError::invalid(path.child("name"), text(volume, "name"), detail));
            }
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn one_source(errors: &mut Errors, name: &str, source: &Tree, path: &Path) {
    match name {
        "emptyDir" => {
            if set(source, "sizeLimit").is_some_and(|l| quantity(l).sign() < 0) {
                errors.push(FieldError::forbidden(path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity"));
            }
        }
        "gitRepo" => {
            require(errors, source, "repository", path);
            descending_path(errors, text(source, "directory"), &path.child("directory"));
        }
        "secret" => {
            require(errors, source, "secretName", path);
            file_mode(errors, source, "defaultMode", path);
            items(errors, source, path);
        }
        "configMap" => {
            require(errors, source, "name", path);
            file_mode(errors, source, "defaultMode", path);
            items(errors, source, path);
        }
        "downwardAPI" => {
            file_mode(errors, source, "defaultMode", path);
            list(source, "items").iter().for_each(|file| downward_file(errors, file, path));
        }
        "projected" => projection(errors, source, path),
        "persistentVolumeClaim" => require(errors, source, "claimName", path),
        "csi" => {
            let driver = text(source, "driver");
            driver_name(errors, driver, &path.child("driver"));
            if let Some(secret) = set(source, "nodePublishSecretRef") {
                require(errors, secret, "name", &path.child("nodePublishSecretRef"));
            }
        }
        "ephemeral" => {
            let template_path = path.child("volumeClaimTemplate");
            match set(source, "volumeClaimTemplate") {
                None => errors.push(FieldError::required(template_path, "")),
                Some(template) => {
                    super::meta::of_template(errors, at(template, "metadata"), &template_path.child("metadata"));
                    super::storage::claim_spec(errors, at(template, "spec"), &template_path.child("spec"));
                }
            }
        }
        "image" => {
            one_of(errors, text(source, "pullPolicy"), &["Always", "IfNotPresent", "Never"], &path.child("pullPolicy"));
            require(errors, source, "reference", path);
        }
        other => volume_drivers::source(errors, other, source, volume_drivers::Of::Pod, path),
    }
}

pub(super) fn driver_name(errors: &mut Errors, driver: &str, path: &Path) {
    if driver.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if driver.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    for text in names::dns1123_subdomain(&driver.to_lowercase()) {
        errors.push(FieldError::invalid(path, driver, text));
    }
}

fn file_mode(errors: &mut Errors, source: &Tree, key: &str, path: &Path) {
    if let Some(mode) = int(source, key).filter(|m| !(0..=0o777).contains(m)) {
        errors.push(FieldError::invalid(path.child(key), mode, FILE_MODE));
    }
}

fn items(errors: &mut Errors, source: &Tree, path: &Path) {
    let items_path = path.child("items");
    for (i, item) in list(source, "items").iter().enumerate() {
        let path = items_path.index(i);
        require(errors, item, "key", &path);
        require(errors, item, "path", &path);
        non_reserved_path(errors, text(item, "path"), &path.child("path"));
        file_mode(errors, item, "mode", &path);
    }
}

fn downward_file(errors: &mut Errors, file: &Tree, path: &Path) {
    require(errors, file, "path", path);
    non_reserved_path(errors, text(file, "path"), &path.child("path"));
    match (set(file, "fieldRef"), set(file, "resourceFieldRef")) {
        (Some(field), other) => {
            object_field(errors, field, VOLUME_FIELDS, &path.child("fieldRef"));
            if other.is_some() {
                errors.push(FieldError::invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"));
            }
        }
        (None, Some(field)) => resource_field(errors, field, true, &path.child("resourceFieldRef")),
        (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    file_mode(errors, file, "mode", path);
}

fn projection(errors: &mut Errors, projection: &Tree, path: &Path) {
    file_mode(errors, projection, "defaultMode", path);
    let sources = path.child("sources");
    let mut paths: Seen<&str> = Seen::new();
    let mut take = |errors: &mut Errors, target, value: &str| {
        if paths.contains(&target) {
            errors.push(FieldError::invalid(path, value, "conflicting duplicate paths"));
        } else {
            paths.push(target);
        }
    };
    for (i, source) in list(projection, "sources").iter().enumerate() {
        let source_path = sources.index(i);
        let mut count = 0;
        for name in ["secret", "configMap"] {
            let Some(source) = set(source, name) else { continue };
            count += 1;
            let path = source_path.child(name);
            require(errors, source, "name", &path);
            items(errors, source, &path);
            for target in list(source, "items").iter().map(|i| text(i, "path")).filter(|p| !p.is_empty()) {
                take(errors, target, text(source, "name"));
            }
        }
        if let Some(downward) = set(source, "downwardAPI") {
            count += 1;
            for file in list(downward, "items") {
                downward_file(errors, file, &source_path.child("downwardAPI"));
                if !text(file, "path").is_empty() {
                    take(errors, text(file, "path"), text(file, "path"));
                }
            }
        }
        if let Some(token) = set(source, "serviceAccountToken") {
            count += 1;
            let token_path = source_path.child("serviceAccountToken");
            let seconds = int(token, "expirationSeconds").unwrap_or(3600);
            let seconds_path = token_path.child("expirationSeconds");
            if seconds < 600 {
                errors.push(FieldError::invalid(seconds_path, seconds, "may not specify a duration less than 10 minutes"));
            }
            if seconds > 1 << 32 {
                errors.push(FieldError::invalid(seconds_path, seconds, "may not specify a duration larger than 2^32 seconds"));
            }
            // Upstream reports these at the volume, not at the source.
            if text(token, "path").is_empty() {
                errors.push(FieldError::required(path.child("path"), ""));
            } else {
                non_reserved_path(errors, text(token, "path"), &path.child("path"));
            }
        }
        if let Some(bundle) = set(source, "clusterTrustBundle") {
            count += 1;
            projected::trust_bundle(errors, bundle, &source_path.child("clusterTrustBundle"));
            take(errors, text(bundle, "path"), text(bundle, "path"));
        }
        if let Some(certificate) = set(source, "podCertificate") {
            count += 1;
            projected::pod_certificate(errors, certificate, &source_path.child("podCertificate"));
            for key in projected::CERTIFICATE_PATHS {
                let target = text(certificate, key);
                if !target.is_empty() {
                    take(errors, target, target);
                }
            }
        }
        if count > 1 {
            errors.push(FieldError::forbidden(source_path, "may not specify more than 1 volume type per source"));
        }
    }
}

/// A relative path without `..`.
pub(super) fn descending_path(errors: &mut Errors, target: &str, path: &Path) {
    if target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(errors, target, path);
}

pub(super) fn no_backsteps(errors: &mut Errors, target: &str, path: &Path) {
    if target.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, target, "must not contain '..'"));
    }
}

pub(super) fn non_reserved_path(errors: &mut Errors, target: &str, path: &Path) {
    descending_path(errors, target, path);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(FieldError::invalid(path, target, "must not start with '..'"));
    }
}
