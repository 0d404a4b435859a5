//! Volumes of drivers that pods and PersistentVolumes name alike; most of them left the tree.
//!
//! Models the `validate..VolumeSource` functions of pkg/apis/core/validation/validation.go.
use super::check::*;
use super::volume::no_backsteps;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

/// Who names the volume: PersistentVolumes say of which namespace a secret is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of<'n> {
    Pod,
    /// By its name.
    PersistentVolume(&'n str),
}

const ADDRESSES: &str = "must be a host:port pair or multiple pairs separated by commas";
pub(super) const PORTAL_TOO_LONG: &str =
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

pub(super) fn is_portal_too_long(volume: &str, portal: &str) -> bool {
    volume.len() + 1 + portal.len() > 64
}

pub(super) fn source(errors: &mut Errors, name: &str, source: &Tree, of: Of, path: &Path) {
    let is_pod = of == Of::Pod;
    let required: &[&str] = match name {
        "hostPath" => {
            let target = text(source, "path");
            if target.is_empty() {
                errors.push(FieldError::required(path.child("path"), ""));
                return;
            }
            no_backsteps(errors, target, &path.child("path"));
            let types = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            supported(errors, text(source, "type"), &types, &path.child("type"));
            &[]
        }
        "nfs" => {
            require(errors, source, "server", path);
            require(errors, source, "path", path);
            if !text(source, "path").starts_with('/') {
                errors.push(FieldError::invalid(path.child("path"), text(source, "path"), "must be an absolute path"));
            }
            &[]
        }
        "iscsi" => {
            iscsi(errors, source, of, path);
            &[]
        }
        "gcePersistentDisk" => {
            partition(errors, source, path);
            &["pdName"]
        }
        "awsElasticBlockStore" => {
            partition(errors, source, path);
            &["volumeID"]
        }
        "fc" => {
            fibre_channel(errors, source, path);
            &[]
        }
        "rbd" | "cephfs" => {
            if list(source, "monitors").is_empty() {
                errors.push(FieldError::required(path.child("monitors"), ""));
            }
            if name == "rbd" { &["image"] } else { &[] }
        }
        "cinder" => {
            secret(errors, source, is_pod, path);
            &["volumeID"]
        }
        "glusterfs" => {
            if let (false, Some(namespace)) = (is_pod, set(source, "endpointsNamespace")) {
                let (namespace, path) = (namespace.as_str().unwrap_or(""), path.child("endpointsNamespace"));
                if namespace.is_empty() {
                    let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.push(FieldError::invalid(path, namespace, detail));
                } else {
                    dns_label(errors, namespace, &path);
                }
            }
            &["endpoints", "path"]
        }
        "flexVolume" => {
            let path = path.child("options");
            for (key, _) in entries(source, "options") {
                let domain = format!(".{}", key.split('/').next().unwrap_or("").to_lowercase());
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    errors.push(FieldError::invalid(path.key(key), key, "kubernetes.io and k8s.io namespaces are reserved"));
                }
            }
            &["driver"]
        }
        "azureFile" => {
            if !is_pod && set(source, "secretNamespace").is_some() { &["secretName", "shareName", "secretNamespace"] } else { &["secretName", "shareName"] }
        }
        "azureDisk" => {
            azure_disk(errors, source, path);
            &["diskName", "diskURI"]
        }
        "flocker" => {
            let (dataset, id) = (text(source, "datasetName"), text(source, "datasetUUID"));
            match (dataset.is_empty(), id.is_empty()) {
                (true, true) => errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required")),
                (false, false) => {
                    errors.push(FieldError::invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"));
                }
                _ => {}
            }
            if dataset.contains('/') {
                errors.push(FieldError::invalid(path.child("datasetName"), dataset, "must not contain '/'"));
            }
            &[]
        }
        "quobyte" => {
            quobyte(errors, source, path);
            &["volume"]
        }
        "storageos" => {
            for key in ["volumeName", "volumeNamespace"].into_iter().filter(|key| !text(source, key).is_empty()) {
                dns_label(errors, text(source, key), &path.child(key));
            }
            secret(errors, source, is_pod, path);
            &["volumeName"]
        }
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        _ => &[],
    };
    required.iter().for_each(|key| require(errors, source, key, path));
}

/// The secret that a driver needs, where one is named.
fn secret(errors: &mut Errors, source: &Tree, is_pod: bool, path: &Path) {
    let Some(secret) = set(source, "secretRef") else { return };
    require(errors, secret, "name", &path.child("secretRef"));
    if !is_pod {
        require(errors, secret, "namespace", &path.child("secretRef"));
    }
}

fn partition(errors: &mut Errors, source: &Tree, path: &Path) {
    if let Some(partition) = int(source, "partition").filter(|number| !(0..=255).contains(number)) {
        errors.push(FieldError::invalid(path.child("partition"), partition, names::inclusive_range(1, 255)));
    }
}

fn iscsi(errors: &mut Errors, source: &Tree, of: Of, path: &Path) {
    let lun = int(source, "lun").unwrap_or(0);
    if !(0..=255).contains(&lun) {
        errors.push(FieldError::invalid(path.child("lun"), lun, names::inclusive_range(0, 255)));
    }
    require(errors, source, "targetPortal", path);
    require(errors, source, "iqn", path);
    let initiator = set(source, "initiatorName").map(|name| name.as_str().unwrap_or(""));
    let target = Some(text(source, "iqn")).filter(|name| !name.is_empty());
    for (name, shown) in [(target, "iqn"), (initiator, "initiatorname")] {
        let Some(name) = name else { continue };
        let is_known = ["iqn", "eui", "naa"].iter().any(|start| name.starts_with(start));
        if !is_known && of == Of::Pod {
            errors.push(FieldError::invalid(path.child(shown), name, "must be valid format starting with iqn, eui, or naa"));
        } else if !is_known || !is_iscsi_name(name) {
            errors.push(FieldError::invalid(path.child(shown), name, "must be valid format"));
        }
    }
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && set(source, "secretRef").is_none() {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
    if let Of::PersistentVolume(volume) = of {
        secret(errors, source, true, path);
        let portal = text(source, "targetPortal");
        if initiator.is_some() && is_portal_too_long(volume, portal) {
            errors.push(FieldError::invalid(path.child("targetportal"), portal, PORTAL_TOO_LONG));
        }
    }
}

/// `iqn.2026-01.com.example:name`, `eui.` and 16 or `naa.` and 32 letters and digits.
fn is_iscsi_name(name: &str) -> bool {
    let letters = |count: usize| name.len() == 4 + count && name.bytes().skip(4).all(|b| b.is_ascii_alphanumeric());
    match name.get(..3) {
        Some("eui") => letters(16),
        Some("naa") => letters(32),
        // Upstream's expression is bound to the end alone.
        _ => name.match_indices("iqn.").any(|(at, _)| is_qualified(&name[at + "iqn.".len()..])),
    }
}

fn is_qualified(rest: &str) -> bool {
    let (date, rest) = rest.as_bytes().split_at_checked(8).unwrap_or((b"", b""));
    let is_date = date.iter().enumerate().all(|(i, b)| match i {
        4 => *b == b'-',
        7 => *b == b'.',
        _ => b.is_ascii_digit(),
    });
    let Some(colon) = rest.iter().position(|b| *b == b':') else { return false };
    let (authority, name) = (&rest[..colon], &rest[colon + 1..]);
    let is_space = |b: &u8| matches!(b, b'\t' | b'\n' | 0x0c | b'\r' | b' ');
    date.len() == 8
        && is_date
        && !authority.is_empty()
        && authority.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !name.is_empty()
        && !name.iter().any(|b| b",;*&$|".contains(b) || is_space(b))
}

fn fibre_channel(errors: &mut Errors, source: &Tree, path: &Path) {
    let (targets, ids) = (list(source, "targetWWNs"), list(source, "wwids"));
    let targets_path = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.push(FieldError::required(targets_path, "must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(targets_path, at(source, "targetWWNs"), detail));
    }
    if targets.is_empty() {
        return;
    }
    match int(source, "lun") {
        None => errors.push(FieldError::required(path.child("lun"), "lun is required if targetWWNs is specified")),
        Some(lun) if !(0..=255).contains(&lun) => {
            errors.push(FieldError::invalid(path.child("lun"), lun, names::inclusive_range(0, 255)));
        }
        Some(_) => {}
    }
}

fn azure_disk(errors: &mut Errors, source: &Tree, path: &Path) {
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    const MANAGED: &str = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    if let Some(mode) = set(source, "cachingMode") {
        supported(errors, mode.as_str().unwrap_or(""), &["None", "ReadOnly", "ReadWrite"], &path.child("cachingMode"));
    }
    let Some(kind) = set(source, "kind").map(|kind| kind.as_str().unwrap_or("")) else { return };
    supported(errors, kind, &["Dedicated", "Managed", "Shared"], &path.child("kind"));
    let (form, start) = if kind == "Managed" { (MANAGED, "/subscriptions/") } else { (BLOB, "https://") };
    if !text(source, "diskURI").starts_with(start) {
        errors.push(FieldError::not_supported(path.child("diskURI"), text(source, "diskURI"), &[form]));
    }
}

fn quobyte(errors: &mut Errors, source: &Tree, path: &Path) {
    let registry = text(source, "registry");
    if registry.is_empty() {
        errors.push(FieldError::required(path.child("registry"), ADDRESSES));
    } else if text(source, "tenant").len() >= 65 {
        errors.push(FieldError::required(path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters"));
    } else {
        let wrong = registry.split(',').filter(|pair| !has_port(pair));
        errors.extend(wrong.map(|_| FieldError::invalid(path.child("registry"), registry, ADDRESSES)));
    }
}

/// Whether Go's net.SplitHostPort takes it.
fn has_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let host = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((inner, "")) => inner.replace(':', ""),
            _ => return false,
        },
        None => host.to_owned(),
    };
    !host.contains([':', '[', ']']) && !port.contains(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_iscsi_have_three_forms() {
        for sound in ["iqn.2026-01.com.example:a", "eui.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef"] {
            assert!(is_iscsi_name(sound), "{sound}");
        }
        for wrong in ["iqn.2026-01.com.example", "iqn.26-01.com:a", "iqn.2026-01.com:a b", "eui.0", "iqn", "iqn.2026-01.:a"] {
            assert!(!is_iscsi_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert!(["a:1", ":1", "a:", "[::1]:2"].into_iter().all(has_port));
        assert!(!["a", "::1", "[::1]", "a:1:2", "[a"].into_iter().any(has_port));
    }
}
