//! What a write of a part cannot set, and so cannot own.
//!
//! Models GetResetFields and GetResetFieldsFilter of pkg/registry/*/*/strategy.go and apiextensions-apiserver/pkg/registry.
use api::apply::{Filter, Pattern, Set};
use api::registry::Resource;

use crate::rest::storage::Part;

type Paths = &'static [&'static [&'static str]];

const STATUS: Paths = &[&["status"]];
const SPEC: Paths = &[&["spec"]];
const SPEC_AND_STATUS: Paths = &[&["spec"], &["status"]];
const METADATA_AND_SPEC: Paths = &[&["metadata"], &["spec"]];

const EPHEMERAL: &[Pattern] = &[&["spec", "ephemeralContainers"]];
const RESIZE: &[Pattern] = &[
    &["spec", "containers", "*", "resources"],
    &["spec", "containers", "*", "resizePolicy"],
    &["spec", "initContainers", "*", "resources"],
    &["spec", "initContainers", "*", "resizePolicy"],
];

pub fn resets(resource: &Resource, part: Part) -> Option<Filter> {
    let paths: Paths = match part {
        Part::EphemeralContainers => return Some(Filter::Only(EPHEMERAL)),
        Part::Resize => return Some(Filter::Only(RESIZE)),
        Part::Main => main(resource),
        Part::Status => status(resource),
        Part::Approval => &[&["spec"], &["status", "certificate"]],
        Part::Finalize => STATUS,
        Part::Binding | Part::Scale | Part::Deletion | Part::Other(_) => &[],
    };
    if paths.is_empty() {
        return None;
    }
    Some(Filter::Without(paths.iter().fold(Set::default(), |set, path| set.union(&Set::of_fields(path)))))
}

fn main(resource: &Resource) -> Paths {
    if resource.subresource("status").is_none() {
        return &[];
    }
    match (&*resource.group, &*resource.plural) {
        ("certificates.k8s.io", "certificatesigningrequests") => SPEC_AND_STATUS,
        // The gate that would wipe it, ServiceCIDRStatusFieldWiping, is on.
        _ => STATUS,
    }
}

/// Whether a write of the status leaves metadata as it is.
pub fn takes_metadata(resource: &Resource) -> bool {
    status(resource).contains(&METADATA_AND_SPEC[0])
}

fn status(resource: &Resource) -> Paths {
    if resource.custom.is_some() {
        return METADATA_AND_SPEC;
    }
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
        ("apps", "deployments") => &[&["spec"], &["metadata", "labels"]],
        ("certificates.k8s.io", "certificatesigningrequests") => &[&["spec"], &["status", "conditions"]],
        ("certificates.k8s.io", _) | ("resource.k8s.io", _) | ("scheduling.k8s.io", _) | ("storagemigration.k8s.io", _) => METADATA_AND_SPEC,
        ("flowcontrol.apiserver.k8s.io", _) | ("admissionregistration.k8s.io", _) | ("lifecycle.k8s.io", _) => METADATA_AND_SPEC,
        ("storage.k8s.io", _) | ("apiregistration.k8s.io", _) => METADATA_AND_SPEC,
        ("networking.k8s.io", "servicecidrs") | ("internal.apiserver.k8s.io", _) => METADATA_AND_SPEC,
        _ => SPEC,
    }
}
