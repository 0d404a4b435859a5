//! Names, ordinals and storage of a StatefulSet's pods. Models stateful_set_utils.go.
use client::Named;
use client::k8s_openapi::api::apps::v1::StatefulSet;
use client::k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use crate::history::REVISION_LABEL;
use crate::ownership::controller_reference;
use crate::pods;

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The set's name and the ordinal in a pod's name; no name and no ordinal where it is not of that form.
pub(super) fn parent_and_ordinal(pod: &Pod) -> (&str, Option<i32>) {
    let Some((parent, digits)) = pod.name().rsplit_once('-') else { return ("", None) };
    match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        true => (parent, digits.parse().ok()),
        false => ("", None),
    }
}

pub(super) fn ordinal(pod: &Pod) -> Option<i32> {
    parent_and_ordinal(pod).1
}

pub(super) fn start(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

pub(super) fn replicas(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The ordinals that the set asks for.
pub(super) fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    start(set)..start(set).saturating_add(replicas(set))
}

pub(super) fn is_in_range(set: &StatefulSet, pod: &Pod) -> bool {
    ordinal(pod).is_some_and(|o| ordinals(set).contains(&o))
}

pub(super) fn revision(pod: &Pod) -> &str {
    pod.label(REVISION_LABEL).unwrap_or_default()
}

pub(super) fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

pub(super) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name(), set.name())
}

/// Whether name, namespace and label say which pod it is.
pub(super) fn identity_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let (parent, ordinal) = parent_and_ordinal(pod);
    ordinal.is_some_and(|o| pod.name() == format!("{}-{o}", set.name()))
        && parent == set.name()
        && pod.namespace() == set.namespace()
        && pod.label(NAME_LABEL) == Some(pod.name())
}

/// Whether each claim template has its volume.
pub(super) fn storage_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let Some(ordinal) = ordinal(pod) else { return false };
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    templates(set).iter().all(|template| {
        let volume = volumes.iter().find(|v| v.name == template.name());
        let claim = volume.and_then(|v| v.persistent_volume_claim.as_ref());
        claim.is_some_and(|c| c.claim_name == claim_name(set, template, ordinal))
    })
}

pub(super) fn update_identity(set: &StatefulSet, pod: &mut Pod) {
    let ordinal = ordinal(pod).unwrap_or(-1);
    let name = format!("{}-{ordinal}", set.name());
    pod.metadata.name = Some(name.clone());
    pod.metadata.namespace = set.metadata.namespace.clone();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name);
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
}

/// Puts the claims' volumes in front, in place of volumes of the same names.
pub(super) fn update_storage(set: &StatefulSet, pod: &mut Pod) {
    let ordinal = ordinal(pod).unwrap_or(-1);
    let templates = templates(set);
    let claimed = templates.iter().map(|template| Volume {
        name: template.name().to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Default::default()
    });
    let spec = pod.spec.get_or_insert_default();
    let others = spec.volumes.take().unwrap_or_default();
    let others = others.into_iter().filter(|v| !templates.iter().any(|t| t.name() == v.name));
    let all: Vec<_> = claimed.chain(others).collect();
    spec.volumes = (!all.is_empty()).then_some(all);
}

/// The pod of this ordinal, made of `template`, which is that of `revision`.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pods::from_template(template, set.namespace(), set.name(), controller_reference(set));
    pod.metadata.name = Some(format!("{}-{ordinal}", set.name()));
    update_identity(set, &mut pod);
    update_storage(set, &mut pod);
    // Only at creation: they cannot be changed later.
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = pod.metadata.name.clone();
    spec.subdomain = set.spec.service_name.clone();
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), revision.to_owned());
    pod
}
