//! What a field means when it is left out: upstream's `SetDefaults_*`, v1.37.
//!
//! Models pkg/apis/*/v1/defaults.go and the `+default` markers of k8s.io/api, one file per group. Go cannot tell an empty string or a
//! zero from an absent field where the field is no pointer; where that holds, they get the default too.
mod admissionregistration;
mod apiextensions;
mod apps;
mod autoscaling;
mod batch;
mod core;
mod flowcontrol;
mod image;
mod networking;
mod pod;
mod rbac;
mod resource;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod volume;

use crate::registry::Resource;
use crate::tree::{Object, Tree};

/// Fills in the defaults of an object of the given resource.
pub fn apply(resource: &Resource, object: &mut Tree) {
    match &resource.custom {
        Some(custom) => crate::crd::defaults(custom, object),
        None => apply_kind(&resource.group, &resource.version, &resource.kind, object),
    }
}

/// Fills in the defaults of an object of the given kind; kinds without defaults are left alone.
pub fn apply_kind(group: &str, version: &str, kind: &str, object: &mut Tree) {
    let Tree::Object(object) = object else { return };
    status::apply(group, kind, object);
    match group {
        "" => core::apply(kind, object),
        "apps" => apps::apply(kind, object),
        "batch" => batch::apply(kind, object),
        "autoscaling" => autoscaling::apply(version, kind, object),
        "networking.k8s.io" | "discovery.k8s.io" => networking::apply(kind, object),
        "rbac.authorization.k8s.io" => rbac::apply(kind, object),
        "scheduling.k8s.io" | "storage.k8s.io" => storage::apply(kind, object),
        "admissionregistration.k8s.io" => admissionregistration::apply(kind, object),
        "flowcontrol.apiserver.k8s.io" => flowcontrol::apply(kind, object),
        "apiextensions.k8s.io" | "apiregistration.k8s.io" => apiextensions::apply(kind, object),
        "resource.k8s.io" => resource::apply(kind, object),
        "certificates.k8s.io" if kind == "PodCertificateRequest" => {
            if let Some(spec) = object.get_mut("spec").and_then(Tree::as_object_mut) {
                absent(spec, "maxExpirationSeconds", 86400);
            }
        }
        "authentication.k8s.io" if kind == "TokenRequest" => {
            if let Some(spec) = object.get_mut("spec").and_then(Tree::as_object_mut) {
                absent(spec, "expirationSeconds", 3600);
            }
        }
        _ => {}
    }
}

/// Sets a pointer field that is absent.
fn absent(object: &mut Object, key: &str, value: impl Into<Tree>) {
    if object.get(key).is_none_or(Tree::is_null) {
        object.insert(key, value);
    }
}

fn is_zero(value: &Tree) -> bool {
    match value {
        Tree::Null => true,
        Tree::String(s) => s.is_empty(),
        Tree::Integer(i) => *i == 0,
        Tree::Float(f) => *f == 0.0,
        Tree::Bool(b) => !b,
        Tree::Array(items) => items.is_empty(),
        Tree::Object(o) => o.is_empty(),
    }
}

/// Sets a value field that is absent or has Go's zero value.
fn zero(object: &mut Object, key: &str, value: impl Into<Tree>) {
    if object.get(key).is_none_or(is_zero) {
        object.insert(key, value);
    }
}

/// The object at `key`, if there is one.
fn child<'t>(object: &'t mut Object, key: &str) -> Option<&'t mut Object> {
    object.get_mut(key)?.as_object_mut()
}

/// The object at `key`; a struct that is no pointer is always there in Go.
fn child_or_new<'t>(object: &'t mut Object, key: &str) -> &'t mut Object {
    object.entry(key, Tree::object).make_object()
}

fn text<'t>(object: &'t Object, key: &str) -> &'t str {
    object.get(key).and_then(Tree::as_str).unwrap_or("")
}

/// The objects in the list at `key`.
fn each<'t>(object: &'t mut Object, key: &str) -> impl Iterator<Item = &'t mut Object> {
    object.get_mut(key).and_then(Tree::as_array_mut).into_iter().flatten().filter_map(Tree::as_object_mut)
}

fn strings(values: &[&str]) -> Tree {
    Tree::Array(values.iter().map(|v| Tree::from(*v)).collect())
}

/// Rounds the amounts of a `ResourceList` up to thousandths and writes them in their canonical form.
fn resource_list(object: &mut Object, key: &str) {
    for (_, value) in child(object, key).into_iter().flat_map(|o| o.iter_mut()) {
        if let Some(amount) = crate::quantity::from_tree(value) {
            *value = amount.rounded_up_to_milli().into();
        }
    }
}

/// Writes one quantity in its canonical form.
fn quantity(object: &mut Object, key: &str) {
    if let Some(value) = object.get_mut(key)
        && let Some(amount) = crate::quantity::from_tree(value) {
            *value = amount.into();
        }
}

/// `limits` and `requests` of a `ResourceRequirements`.
fn requirements(object: &mut Object, key: &str) {
    if let Some(resources) = child(object, key) {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
}
