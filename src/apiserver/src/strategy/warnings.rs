//! Warnings about what is legal but old, of kinds that have a few words to say.
//!
//! Models WarningsOnCreate and WarningsOnUpdate of pkg/registry/{storage/csidriver,discovery/endpointslice,core/node,core/persistentvolume,core/
//! persistentvolumeclaim}/strategy.go, pkg/api/{persistentvolume,persistentvolumeclaim}/util.go and GetWarningsForIP of
//! apimachinery/pkg/util/validation/ip.go.
use std::net::IpAddr;

use api::field_error::quote;
use api::meta;
use api::names::parse_ip_sloppy;
use api::quantity;
use api::tree::Tree;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const CLASS_WARNING: &str = r#"deprecated since v1.8; use "storageClassName" attribute instead"#;

pub(super) fn csi_driver(object: &Tree, old: Option<&Tree>) -> Vec<String> {
    const TOKENS: [&str; 2] = ["spec", "tokenRequests"];
    let is_changed = old.is_none_or(|old| old.array_at(&TOKENS) != object.array_at(&TOKENS));
    let is_unset = object.at(&["spec", "serviceAccountTokenInSecrets"]).is_none_or(Tree::is_null);
    let warning = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";
    (is_changed && is_unset && !object.array_at(&TOKENS).is_empty()).then(|| warning.to_owned()).into_iter().collect()
}

/// An address that other programs may not read.
fn address(path: &str, value: &str) -> Option<String> {
    let sloppy = parse_ip_sloppy(value)?;
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let canonical = v6.to_string();
            (canonical != value).then(|| format!("{path}: IPv6 address {} should be in RFC 5952 canonical format ({})", quote(value), quote(&canonical)))
        }
        Ok(IpAddr::V4(_)) => None,
        _ => {
            let plain = match sloppy {
                IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(sloppy, IpAddr::V4),
                v4 => v4,
            };
            Some(format!("{path}: non-standard IP address {} is invalid: use {}", quote(value), quote(&plain.to_string())))
        }
    }
}

pub(super) fn endpoint_slice(object: &Tree, is_new: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_new && object.str_at(&["addressType"]) == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = object.str_at(&["metadata", "labels", "endpointslice.kubernetes.io/managed-by"]);
    if matches!(manager, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io") {
        return warnings;
    }
    for (i, endpoint) in object.array_at(&["endpoints"]).iter().enumerate() {
        let addresses = endpoint.array_at(&["addresses"]).iter().enumerate();
        warnings.extend(addresses.filter_map(|(j, value)| address(&format!("endpoints[{i}].addresses[{j}]"), value.as_str()?)));
    }
    warnings
}

pub(super) fn node(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    if object.at(&["spec", "configSource"]).is_some_and(|source| !source.is_null()) {
        warnings.push("spec.configSource: the feature is removed".to_owned());
    }
    if !object.str_at(&["spec", "externalID"]).is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    warnings
}

pub(super) fn persistent_volume(object: &Tree) -> Vec<String> {
    let annotations = [(CLASS_ANNOTATION, CLASS_WARNING), ("volume.beta.kubernetes.io/mount-options", r#"deprecated since v1.31; use "mountOptions" attribute instead"#)];
    let given = meta::annotations(object);
    let mut warnings: Vec<String> =
        annotations.iter().filter(|(key, _)| given.contains_key(key)).map(|(key, why)| format!("metadata.annotations[{key}]: {why}")).collect();
    if object.str_at(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
        let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("spec.persistentVolumeReclaimPolicy: {why}"));
    }
    let drivers = [
        ("cephfs", "cephfs", "v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "v1.28, non-functional in v1.31+"),
    ];
    let named = drivers.iter().filter(|(key, ..)| object.at(&["spec", key]).is_some_and(|source| !source.is_null()));
    warnings.extend(named.map(|(_, shown, since)| format!("spec.{shown}: deprecated in {since}")));
    warnings
}

pub(super) fn claim(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    if meta::annotations(object).contains_key(CLASS_ANNOTATION) {
        warnings.push(format!("metadata.annotations[{CLASS_ANNOTATION}]: {CLASS_WARNING}"));
    }
    warnings.extend(claim_spec(object.get("spec").unwrap_or(&Tree::Null), "spec"));
    warnings
}

fn claim_spec(spec: &Tree, path: &str) -> Vec<String> {
    let amounts = ["requests", "limits"].into_iter().filter_map(|kind| Some((kind, quantity::from_tree(spec.at(&["resources", kind, "storage"])?)?)));
    let in_pieces = amounts.filter(|(_, amount)| amount.milli_value() % 1000 != 0);
    let worded = in_pieces.map(|(kind, amount)| {
        let shown = quote(&amount.to_string());
        format!("{path}.resources.{kind}[storage]: fractional byte value {shown} is invalid, must be an integer")
    });
    worded.collect()
}

/// Of the claims that a StatefulSet makes; an update names them by another path.
pub(super) fn claim_templates(object: &Tree, is_new: bool) -> Vec<String> {
    let claims = object.array_at(&["spec", "volumeClaimTemplates"]).iter().enumerate();
    let path = |i: usize| format!("spec.volumeClaimTemplates[{i}]{}", if is_new { "" } else { ".Spec" });
    claims.flat_map(|(i, claim)| claim_spec(claim.get("spec").unwrap_or(&Tree::Null), &path(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_not_all_read_are_named_as_they_should_be() {
        assert_eq!(address("a", "10.0.0.1"), None);
        assert_eq!(address("a", "010.0.0.1").as_deref(), Some(r#"a: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#));
        assert_eq!(address("a", "::ffff:1.2.3.4").as_deref(), Some(r#"a: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4""#));
        assert_eq!(address("a", "2001:DB8::1").as_deref(), Some(r#"a: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#));
    }
}
