//! Defaults of volumes, in pods and in PersistentVolumes.
//!
//! Models pkg/apis/core/v1/defaults.go `SetDefaults_Volume` and the volume sources.
use super::image::pull_policy;
use super::{absent, child, child_or_new, each, is_zero, quantity, requirements, resource_list, zero};
use crate::tree::{Object, Tree};

const FILE_MODE: i64 = 0o644;

/// One entry of `spec.volumes`.
pub(super) fn pod_volume(volume: &mut Object) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir", Tree::object());
    }
    sources(volume);
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            absent(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = child(volume, "downwardAPI") {
        each(source, "items").for_each(downward_item);
    }
    if let Some(source) = child(volume, "projected") {
        for projection in each(source, "sources") {
            if let Some(token) = child(projection, "serviceAccountToken") {
                absent(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = child(projection, "downwardAPI") {
                each(downward, "items").for_each(downward_item);
            }
        }
    }
    if let Some(source) = child(volume, "emptyDir") {
        quantity(source, "sizeLimit");
    }
    if let Some(template) = child(volume, "ephemeral").and_then(|e| child(e, "volumeClaimTemplate")) {
        claim_spec(child_or_new(template, "spec"));
    }
    if let Some(image) = child(volume, "image")
        && image.get("pullPolicy").is_none_or(is_zero) {
            let policy = pull_policy(super::text(image, "reference"));
            image.insert("pullPolicy", policy);
        }
}

fn downward_item(item: &mut Object) {
    if let Some(field) = child(item, "fieldRef") {
        zero(field, "apiVersion", "v1");
    }
    if let Some(field) = child(item, "resourceFieldRef") {
        resource_field(field);
    }
}

/// The divisor is no pointer in Go: an absent one is written as zero.
pub(super) fn resource_field(field: &mut Object) {
    absent(field, "divisor", "0");
    quantity(field, "divisor");
}

/// Sources that pods and PersistentVolumes share.
pub(super) fn sources(volume: &mut Object) {
    if let Some(source) = child(volume, "hostPath") {
        absent(source, "type", "");
    }
    if let Some(source) = child(volume, "iscsi") {
        zero(source, "iscsiInterface", "default");
    }
    if let Some(source) = child(volume, "rbd") {
        zero(source, "pool", "rbd");
        zero(source, "user", "admin");
        zero(source, "keyring", "/etc/ceph/keyring");
    }
    if let Some(source) = child(volume, "azureDisk") {
        absent(source, "cachingMode", "ReadWrite");
        absent(source, "kind", "Shared");
        absent(source, "fsType", "ext4");
        absent(source, "readOnly", false);
    }
    if let Some(source) = child(volume, "scaleIO") {
        zero(source, "storageMode", "ThinProvisioned");
        zero(source, "fsType", "xfs");
    }
}

pub(super) fn claim(claim: &mut Object) {
    claim_spec(child_or_new(claim, "spec"));
    let status = child_or_new(claim, "status");
    zero(status, "phase", "Pending");
    resource_list(status, "capacity");
    resource_list(status, "allocatedResources");
}

pub(super) fn claim_spec(spec: &mut Object) {
    absent(spec, "volumeMode", "Filesystem");
    child_or_new(spec, "resources");
    requirements(spec, "resources");
}

pub(super) fn persistent_volume(volume: &mut Object) {
    zero(child_or_new(volume, "status"), "phase", "Pending");
    let spec = child_or_new(volume, "spec");
    zero(spec, "persistentVolumeReclaimPolicy", "Retain");
    absent(spec, "volumeMode", "Filesystem");
    resource_list(spec, "capacity");
    sources(spec);
}
