//! What makes an object invalid: upstream's validation, v1.37, with its exact texts.
//!
//! Models pkg/apis/*/validation and apimachinery/pkg/api/validation, one file per group or kind. Objects come here decoded and with
//! their defaults set. Kinds without a file have their metadata checked only.
mod admission_policies;
mod affinity;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod check;
mod conditions;
mod container;
mod core;
mod csi;
mod devices;
mod diff;
mod endpoints;
mod events;
mod expressions;
mod flowcontrol;
mod meta;
mod networking;
mod pod;
mod pod_agreement;
mod pod_annotations;
mod pod_resize;
mod pod_update;
mod pod_warnings;
mod policy;
mod probe;
mod projected;
mod rbac;
mod resources;
mod review;
mod security;
mod service;
mod service_cidr;
mod signer;
mod storage;
mod storagemigration;
#[cfg(test)]
mod tests;
mod trust;
mod volume;
mod volume_drivers;
mod volume_paths;
pub mod warnings;
mod webhooks;

pub use meta::NameRule;
pub use networking::domain_prefixed_path;
pub use pod_annotations::{APP_ARMOR, app_armor_profile};
pub use pod_warnings::{APP_ARMOR_WARNING, pod_warnings};
pub(crate) use webhooks::client as check_webhook_client;

use check::Errors;

use crate::field_error::FieldError;
use crate::registry::Resource;
use crate::tree::Tree;

/// Everything wrong with `new`; `old` is the stored object when this is an update.
pub fn validate(resource: &Resource, new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    match &resource.custom {
        Some(custom) => crate::crd::validate_object(resource, custom, new, old),
        None => validate_kind(&resource.group, &resource.kind, resource.namespaced, new, old),
    }
}

/// Everything wrong with an update of the `status` subresource.
pub fn validate_status(resource: &Resource, new: &Tree, old: &Tree) -> Vec<FieldError> {
    match &resource.custom {
        Some(custom) => crate::crd::validate_object_status(resource, custom, new, old),
        None => validate_status_kind(&resource.group, &resource.kind, new, old),
    }
}

/// `metadata` of a new object under a rule for its name.
pub(crate) fn validate_new_meta(errors: &mut Vec<FieldError>, object: &Tree, namespaced: bool, rule: NameRule) {
    meta::create(errors, object, namespaced, rule);
}

/// `metadata` of a custom object.
pub(crate) fn validate_meta(errors: &mut Vec<FieldError>, new: &Tree, old: Option<&Tree>, namespaced: bool) {
    match old {
        None => meta::create(errors, new, namespaced, NameRule::DnsSubdomain),
        Some(old) => meta::update(errors, new, old),
    }
}

/// What is wrong with the metadata of a new object, whatever its kind.
pub fn validate_metadata(resource: &Resource, object: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::create(&mut errors, object, resource.namespaced, NameRule::of(&resource.group, &resource.kind));
    errors
}

/// What is wrong with the metadata of an updated object, whatever its kind.
pub fn validate_metadata_update(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::update(&mut errors, new, old);
    errors
}

/// What is wrong with labels that somebody changed on the way.
pub fn validate_labels(labels: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    check::labels(&mut errors, labels, &crate::field_error::Path::new("metadata").child("labels"));
    errors
}

/// What is wrong with annotations that somebody changed on the way; under the name by which upstream reports them there.
pub fn validate_annotations(annotations: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::annotations(&mut errors, annotations, &crate::field_error::Path::new("metadata").child("annotation"));
    errors
}

/// What is wrong with the addresses of a Service, their families and the policy about them.
pub fn validate_cluster_ips(service: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    service::cluster_ips(&mut errors, check::at(service, "spec"));
    errors
}

/// An update of `pods/ephemeralcontainers`.
pub fn validate_ephemeral_containers(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    pod_update::ephemeral_containers(&mut errors, new, old);
    errors
}

/// An update of `pods/resize`.
pub fn validate_resize(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    pod_resize::resize(&mut errors, new, old);
    errors
}

/// A `Binding`, on its own or as `pods/binding`.
pub fn validate_binding(binding: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    pod_update::binding(&mut errors, binding);
    errors
}

/// An update of `certificatesigningrequests/approval`.
pub fn validate_approval(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::update(&mut errors, new, old);
    certificates::update(&mut errors, new, old, certificates::By::Approval);
    errors
}

/// An update of `namespaces/finalize`.
pub fn validate_finalize(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    core::namespace_finalize(&mut errors, new, old);
    errors
}

/// As [`validate`], by names.
pub fn validate_kind(group: &str, kind: &str, namespaced: bool, new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let mut errors = findings(group, kind, namespaced, new, old);
    // Kinds whose types declare checks have what was written by hand said once, however often it was found.
    if errors.len() > 1 && !matches!(group, crate::crd::GROUP | "apiregistration.k8s.io") {
        let mut said = std::collections::HashSet::new();
        errors.retain(|error| said.insert(error.to_string()));
    }
    errors
}

fn findings(group: &str, kind: &str, namespaced: bool, new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let e = &mut errors;
    // Pods order their checks in a way of their own; Events have their own rules for names.
    match (group, kind, old) {
        ("", "Pod", None) => {
            pod::create(e, new);
            return errors;
        }
        ("", "Pod", Some(old)) => {
            pod_update::update(e, new, old);
            return errors;
        }
        ("", "Binding", _) => {
            pod_update::binding(e, new);
            return errors;
        }
        (crate::crd::GROUP, "CustomResourceDefinition", old) => return crate::crd::validate(new, old),
        // Named after what it serves.
        ("apiregistration.k8s.io", "APIService", old) => {
            apiregistration::api_service(e, new, old);
            return errors;
        }
        // Questions, not objects: they have no name and are never stored.
        ("authentication.k8s.io" | "authorization.k8s.io", _, _) => {
            review::check(e, kind, new);
            return errors;
        }
        ("" | "events.k8s.io", "Event", _) => {
            events::event(e, group, new, old);
            return errors;
        }
        ("resource.k8s.io", _, _) => {
            devices::metadata(e, kind, namespaced, new, old);
            devices::check(e, kind, new, old);
            return errors;
        }
        // Named after its signer.
        ("certificates.k8s.io", "ClusterTrustBundle", None) => {
            trust::new_bundle(e, new);
            return errors;
        }
        _ => {}
    }
    match old {
        // Of these, metadata are looked at where all else is right.
        None if (group, kind) == ("policy", "PodDisruptionBudget") => {
            policy::check(e, kind, new, old);
            if e.is_empty() {
                meta::create(e, new, namespaced, NameRule::of(group, kind));
            }
            return errors;
        }
        None => meta::create(e, new, namespaced, NameRule::of(group, kind)),
        Some(old) => meta::update(e, new, old),
    }
    match group {
        "" => core::check(e, kind, new, old),
        "apps" => apps::check(e, kind, new, old),
        "batch" => batch::check(e, kind, new, old),
        "autoscaling" if kind == "HorizontalPodAutoscaler" => autoscaling::autoscaler(e, new, old),
        "networking.k8s.io" => networking::check(e, kind, new, old),
        "discovery.k8s.io" if kind == "EndpointSlice" => endpoints::endpoint_slice(e, new, old),
        "rbac.authorization.k8s.io" => rbac::check(e, kind, new, old),
        "policy" | "scheduling.k8s.io" | "coordination.k8s.io" => policy::check(e, kind, new, old),
        "storage.k8s.io" => storage::check(e, kind, new, old),
        "storagemigration.k8s.io" => storagemigration::check(e, new, old),
        "flowcontrol.apiserver.k8s.io" => flowcontrol::check(e, kind, new),
        "node.k8s.io" if kind == "RuntimeClass" => policy::runtime_class(e, new, old),
        "admissionregistration.k8s.io" => {
            match kind {
                "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks::configuration(e, new, old),
                _ if kind.ends_with("AdmissionPolicyBinding") => admission_policies::binding(e, kind, new),
                _ if kind.ends_with("AdmissionPolicy") => admission_policies::policy(e, kind, new, old),
                _ => {}
            }
            if old.is_none() {
                admission_policies::new_name(e, new);
            }
        }
        "certificates.k8s.io" => match (kind, old) {
            ("CertificateSigningRequest", None) => certificates::create(e, new),
            ("CertificateSigningRequest", Some(old)) => certificates::update(e, new, old, certificates::By::Main),
            ("ClusterTrustBundle", Some(old)) => trust::bundle_update(e, new, old),
            ("PodCertificateRequest", None) => trust::new_request(e, new),
            ("PodCertificateRequest", Some(old)) => trust::request_update(e, new, old),
            _ => {}
        },
        _ => {}
    }
    errors
}

/// As [`validate_status`], by names.
pub fn validate_status_kind(group: &str, kind: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let e = &mut errors;
    if (group, kind) == ("", "Pod") {
        pod_update::status(e, new, old);
        return errors;
    }
    if (group, kind) == (crate::crd::GROUP, "CustomResourceDefinition") {
        return crate::crd::validate_status(new, old);
    }
    meta::update(e, new, old);
    match group {
        "" => core::status(e, kind, new, old),
        "apps" => apps::status(e, kind, new, old),
        "apiregistration.k8s.io" => apiregistration::status(e, new),
        "batch" if kind == "Job" => batch::job_status::check(e, new, old),
        "policy" if kind == "PodDisruptionBudget" => policy::disruption_budget_status(e, new),
        "autoscaling" if kind == "HorizontalPodAutoscaler" => autoscaling::autoscaler_status(e, new),
        "networking.k8s.io" if kind == "Ingress" => networking::ingress_status(e, new),
        "resource.k8s.io" => devices::status(e, kind, new, old),
        "storagemigration.k8s.io" => storagemigration::status(e, new, old),
        "admissionregistration.k8s.io" if kind == "ValidatingAdmissionPolicy" => admission_policies::status(e, new),
        "certificates.k8s.io" if kind == "CertificateSigningRequest" => certificates::update(e, new, old, certificates::By::Status),
        "certificates.k8s.io" if kind == "PodCertificateRequest" => trust::request_status(e, new, old),
        _ => {}
    }
    errors
}
