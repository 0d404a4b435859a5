//! `metadata`, and the names of each kind.
//!
//! Models apimachinery/pkg/api/validation/objectmeta.go and the `ValidateObjectMeta` of pkg/apis/core/validation.
use super::check::*;
use crate::field_error::{FieldError, Path, quote};
use crate::names;
use crate::registry::Registry;
use crate::tree::Tree;

const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
const PATH: Path<'static> = Path::new("metadata");

/// What a kind's names must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    DnsSubdomain,
    DnsLabel,
    /// Anything that can be one segment of a URL's path.
    PathSegment,
    /// An address as it is printed.
    Address,
}

impl NameRule {
    pub fn of(group: &str, kind: &str) -> NameRule {
        match (group, kind) {
            // Services since v1.37 too: KEP-5311 allows a leading digit.
            ("", "Namespace" | "Service") => NameRule::DnsLabel,
            // The names of its pods become host names.
            ("apps", "StatefulSet") => NameRule::DnsLabel,
            ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", _) | ("policy", "PodDisruptionBudget") => NameRule::PathSegment,
            ("certificates.k8s.io", "CertificateSigningRequest") => NameRule::PathSegment,
            ("networking.k8s.io", "IPAddress") => NameRule::Address,
            _ => NameRule::DnsSubdomain,
        }
    }

    /// What is wrong with a name. A prefix will have something appended, so it may end in a dash.
    pub fn check(self, name: &str, is_prefix: bool) -> Vec<String> {
        let masked;
        let checked = if is_prefix && self != NameRule::PathSegment {
            masked = names::mask_trailing_dash(name);
            masked.as_str()
        } else {
            name
        };
        match self {
            NameRule::DnsSubdomain => names::dns1123_subdomain(checked),
            NameRule::DnsLabel => names::dns1123_label(checked),
            NameRule::PathSegment => names::path_segment(checked),
            NameRule::Address => match name.parse::<std::net::IpAddr>() {
                Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
                Ok(address) if address.to_string() != name => vec![format!("must be in canonical form ({})", quote(&address.to_string()))],
                Ok(_) => Vec::new(),
            },
        }
    }
}

/// `metadata` of a new object, after its name was generated.
pub(super) fn create(errors: &mut Errors, object: &Tree, namespaced: bool, rule: NameRule) {
    create_with(errors, object, namespaced, &|name, is_prefix| rule.check(name, is_prefix));
}

/// The same where more than the kind decides what a name must be.
pub(super) fn create_with(errors: &mut Errors, object: &Tree, namespaced: bool, rule: &dyn Fn(&str, bool) -> Vec<String>) {
    let meta = at(object, "metadata");
    let prefix = text(meta, "generateName");
    if !prefix.is_empty() {
        invalid(errors, &PATH.child("generateName"), prefix, rule(prefix, true));
    }
    let name = text(meta, "name");
    if name.is_empty() {
        errors.push(FieldError::required(PATH.child("name"), "name or generateName is required"));
    } else {
        invalid(errors, &PATH.child("name"), name, rule(name, false));
    }
    let namespace = text(meta, "namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(PATH.child("namespace"), "")),
        (true, false) => dns_label(errors, namespace, &PATH.child("namespace")),
        (false, false) => errors.push(FieldError::forbidden(PATH.child("namespace"), "not allowed on this type")),
        (false, true) => {}
    }
    non_negative(errors, int(meta, "generation"), &PATH.child("generation"));
    common(errors, object, false);
}

/// `metadata` of an update.
pub(super) fn update(errors: &mut Errors, new: &Tree, old: &Tree) {
    let object = new;
    let (new, old) = (at(new, "metadata"), at(old, "metadata"));
    if set(old, "deletionTimestamp").is_some() {
        let known = strings(old, "finalizers");
        let mut added: Vec<&str> = strings(new, "finalizers").into_iter().filter(|f| !known.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let list = added.into_iter().map(quote).collect::<Vec<_>>().join(", ");
            let detail = format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}");
            errors.push(FieldError::forbidden(PATH.child("finalizers"), detail));
        }
    }
    if text(new, "resourceVersion").is_empty() {
        errors.push(FieldError::invalid(PATH.child("resourceVersion"), "", "must be specified for an update"));
    }
    let generation = int(new, "generation").unwrap_or(0);
    if generation < int(old, "generation").unwrap_or(0) {
        errors.push(FieldError::invalid(PATH.child("generation"), generation, "must not be decremented"));
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(errors, at(new, key), at(old, key), &PATH.child(key));
    }
    common(errors, object, true);
}

/// What holds for new and updated objects alike; also for the metadata of a template.
fn common(errors: &mut Errors, object: &Tree, is_update: bool) {
    let meta = at(object, "metadata");
    let (group, _) = crate::registry::split_api_version(text(object, "apiVersion"));
    let kind = text(object, "kind");
    labels(errors, at(meta, "labels"), &PATH.child("labels"));
    annotations(errors, at(meta, "annotations"), &PATH.child("annotations"));
    owner_references(errors, meta);
    if !is_update {
        finalizers(errors, meta);
    }
    managed_fields(errors, meta);
    if has_kube_finalizers(group, kind) {
        kube_finalizers(errors, meta);
    }
}

pub(super) fn annotations(errors: &mut Errors, annotations: &Tree, path: &Path) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flat_map(|o| o.iter()) {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        invalid(errors, path, key, names::qualified_name(&key.to_lowercase()));
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATION_BYTES_MAX));
    }
}

/// The metadata of an object that others are made of: labels and annotations, and nothing else.
pub(super) fn of_template(errors: &mut Errors, meta: &Tree, path: &Path) {
    annotations(errors, at(meta, "annotations"), &path.child("annotations"));
    labels(errors, at(meta, "labels"), &path.child("labels"));
    for (key, value) in meta.as_object().into_iter().flat_map(|o| o.iter()) {
        let is_zero = value.is_null() || matches!(value, Tree::String(s) if s.is_empty()) || value.as_i64() == Some(0);
        if !matches!(key, "annotations" | "labels") && !is_zero {
            errors.push(FieldError::forbidden(path.child(key), "cannot be set"));
        }
    }
}

fn owner_references(errors: &mut Errors, meta: &Tree) {
    let all = PATH.child("ownerReferences");
    let mut controller: Option<String> = None;
    for (i, owner) in list(meta, "ownerReferences").iter().enumerate() {
        let path = all.index(i);
        let (api_version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
        if api_version.is_empty() {
            errors.push(FieldError::required(path.child("apiVersion"), "must not be empty"));
        } else if api_version.ends_with('/') || api_version.matches('/').count() > 1 {
            errors.push(FieldError::invalid(path.child("apiVersion"), api_version, "must be <group>/<version> or <version>"));
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.push(FieldError::required(path.child(key), "must not be empty"));
            }
        }
        if (api_version, kind) == ("v1", "Event") {
            errors.push(FieldError::invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if flag(owner, "controller") {
            let this = format!("{kind}/{}", text(owner, "name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(FieldError::invalid(all, at(meta, "ownerReferences"), detail));
                }
            }
        }
    }
}

/// Only new objects are asked for these.
fn finalizers(errors: &mut Errors, meta: &Tree) {
    let path = PATH.child("finalizers");
    let finalizers = strings(meta, "finalizers");
    for finalizer in &finalizers {
        label_name(errors, finalizer, &path);
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, at(meta, "finalizers"), detail));
    }
}

/// Models pkg/apis/core/validation `validateKubeFinalizerName`.
fn kube_finalizers(errors: &mut Errors, meta: &Tree) {
    let path = PATH.child("finalizers");
    for (i, finalizer) in strings(meta, "finalizers").into_iter().enumerate() {
        if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path.index(i), finalizer, detail));
        }
    }
}

/// Whether a kind's finalizers must be qualified: of some kinds upstream asks apimachinery alone.
fn has_kube_finalizers(group: &str, kind: &str) -> bool {
    match (group, kind) {
        ("apiregistration.k8s.io" | "admissionregistration.k8s.io" | "node.k8s.io" | "coordination.k8s.io" | "apiextensions.k8s.io", _) => false,
        ("policy", "PodDisruptionBudget") | ("", "Event") => false,
        // Custom resources: their controllers call theirs what they like.
        _ => Registry::get().groups().iter().any(|built_in| built_in.name == group),
    }
}

/// Models apimachinery/pkg/apis/meta/v1/validation `ValidateManagedFields`.
fn managed_fields(errors: &mut Errors, meta: &Tree) {
    let all = PATH.child("managedFields");
    for (i, entry) in list(meta, "managedFields").iter().enumerate() {
        let path = all.index(i);
        match text(entry, "operation") {
            "Apply" | "Update" => {}
            "" => errors.push(FieldError::required(path.child("operation"), "must not be empty")),
            other => errors.push(FieldError::not_supported(path.child("operation"), other, &["Apply", "Update"])),
        }
        let fields_type = text(entry, "fieldsType");
        if !fields_type.is_empty() && fields_type != "FieldsV1" {
            errors.push(FieldError::invalid(path.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        let manager = text(entry, "manager");
        if manager.len() > 128 {
            errors.push(FieldError::too_long(path.child("manager"), 128));
        }
        for (j, c) in manager.chars().enumerate() {
            if c.is_control() {
                let detail = format!("invalid character U+{:04X} (at position {j})", c as u32);
                errors.push(FieldError::invalid(path.child("manager"), manager, detail));
            }
        }
        if text(entry, "subresource").len() > 256 {
            errors.push(FieldError::too_long(path.child("subresource"), 256));
        }
    }
}
