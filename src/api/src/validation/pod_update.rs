//! What may change in a pod, through the pod itself and through its subresources.
//!
//! Models pkg/apis/core/validation/validation.go `ValidatePodUpdate`, `ValidatePodStatusUpdate`,
//! `ValidatePodEphemeralContainersUpdate`, `ValidatePodBinding`.
use super::check::*;
use super::diff::diff;
use super::pod_annotations::MIRROR;
use super::{affinity, meta, pod, pod_annotations};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const META: Path<'static> = Path::new("metadata");
const SPEC: Path<'static> = Path::new("spec");
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself.
pub(super) fn update(errors: &mut Errors, new: &Tree, old: &Tree) {
    meta::update(errors, new, old);
    pod::metadata_and_spec(errors, new);
    pod_annotations::update(errors, new, old, &META.child("annotations"));
    let (spec, old_spec) = (at(new, "spec"), at(old, "spec"));
    for key in ["containers", "initContainers"] {
        let path = SPEC.child(key);
        if list(spec, key).len() != list(old_spec, key).len() {
            errors.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
            return;
        }
    }
    if !deadline(errors, spec, old_spec) {
        return;
    }
    only_added_tolerations(errors, spec, old_spec);
    let known: Seen<&str> = list(old_spec, "schedulingGates").iter().map(|g| text(g, "name")).collect();
    let gates = SPEC.child("schedulingGates");
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !known.contains(&name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(gates.index(i).child("name"), detail));
        }
    }
    if same(spec, old_spec) {
        return;
    }
    let mut munged = spec.clone();
    for key in ["containers", "initContainers"] {
        for (i, container) in munged.get_mut(key).and_then(Tree::as_array_mut).into_iter().flatten().enumerate() {
            take_old(container, &list(old_spec, key)[i], "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        take_old(&mut munged, old_spec, key);
    }
    let grace = "terminationGracePeriodSeconds";
    if int(old_spec, grace).is_some_and(|s| s < 0) && int(spec, grace) == Some(1) {
        take_old(&mut munged, old_spec, grace);
    }
    if !known.is_empty() {
        gated(errors, &mut munged, old_spec);
    }
    if !same(&munged, old_spec) {
        let report = diff(old_spec, &munged, "core.PodSpec");
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{report}");
        errors.push(FieldError::forbidden(SPEC, detail));
    }
}

/// Puts the old value of `key` into `new`.
fn take_old(new: &mut Tree, old: &Tree, key: &str) {
    match old.get(key) {
        Some(value) => {
            new.make_object().insert(key, value.clone());
        }
        None => {
            new.make_object().remove(key);
        }
    }
}

/// May be set once, and lowered. Returns whether the other checks make sense.
fn deadline(errors: &mut Errors, spec: &Tree, old_spec: &Tree) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    match (int(spec, "activeDeadlineSeconds"), int(old_spec, "activeDeadlineSeconds")) {
        (Some(new), old) => {
            let texts = names::in_range(new, 0, i32::MAX.into());
            if !texts.is_empty() {
                errors.extend(texts.into_iter().map(|t| FieldError::invalid(path, new, t)));
                return false;
            }
            if old.is_some_and(|old| old < new) {
                errors.push(FieldError::invalid(path, new, "must be less than or equal to previous value"));
                return false;
            }
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(path, &Tree::Null, "must not update from a positive integer to nil value"));
        }
        (None, None) => {}
    }
    true
}

fn only_added_tolerations(errors: &mut Errors, spec: &Tree, old_spec: &Tree) {
    let path = SPEC.child("tolerations");
    let without_seconds = |t: &Tree| {
        let mut t = t.clone();
        t.remove(&["tolerationSeconds"]);
        t
    };
    let new: Seen<Vec<u8>> = list(spec, "tolerations").iter().map(|t| without_seconds(t).to_json()).collect();
    if !list(old_spec, "tolerations").iter().all(|old| new.contains(&without_seconds(old).to_json())) {
        errors.push(FieldError::forbidden(path, "existing toleration can not be modified except its tolerationSeconds"));
        return;
    }
    affinity::tolerations(errors, list(spec, "tolerations"), &path);
}

/// While a pod waits behind its gates, the places where it may run can be narrowed.
fn gated(errors: &mut Errors, munged: &mut Tree, old_spec: &Tree) {
    let (new_selector, old_selector) = (at(munged, "nodeSelector").clone(), at(old_spec, "nodeSelector"));
    if entries(old_spec, "nodeSelector").any(|(key, value)| new_selector.get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(SPEC.child("nodeSelector"), &new_selector, detail));
    }
    if !same(&new_selector, old_selector) {
        take_old(munged, old_spec, "nodeSelector");
    }
    let required = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let (new_terms, old_terms) = (munged.array_at(&required).to_vec(), old_spec.array_at(&required));
    let affinity = SPEC.child("affinity");
    let node = affinity.child("nodeAffinity");
    let required_path = node.child(required[2]);
    let path = required_path.child("nodeSelectorTerms");
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, &Tree::Array(new_terms), detail));
    } else {
        for (i, (new, old)) in new_terms.iter().zip(old_terms).enumerate() {
            let is_empty = |t: &Tree| list(t, "matchExpressions").is_empty() && list(t, "matchFields").is_empty();
            let grows = ["matchExpressions", "matchFields"].iter().all(|k| list(new, k).starts_with(list(old, k)));
            if !grows || (is_empty(old) && !is_empty(new)) {
                let detail = "only additions are allowed (no mutations or deletions)";
                errors.push(FieldError::invalid(path.index(i), new, detail));
            }
        }
    }
    match old_spec.at(&required[..2]) {
        Some(old) => munged.set(&required[..2], old.clone()),
        None => {
            munged.remove(&required[..2]);
            if at(old_spec, "affinity").is_null() && same(at(munged, "affinity"), &Tree::object()) {
                munged.remove(&["affinity"]);
            }
        }
    }
}

/// An update of `pods/status`.
pub(super) fn status(errors: &mut Errors, new: &Tree, old: &Tree) {
    meta::update(errors, new, old);
    pod_annotations::update(errors, new, old, &META.child("annotations"));
    let (status, old_status) = (at(new, "status"), at(old, "status"));
    let path = Path::new("status");
    let conditions = META.child("conditions"); // upstream's path
    for (i, condition) in list(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            label_name(errors, kind, &conditions.index(i).child("Type"));
        }
    }
    if !same(at(at(new, "spec"), "nodeName"), at(at(old, "spec"), "nodeName")) {
        errors.push(FieldError::forbidden(path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(status, "nominatedNodeName");
    if nominated != text(old_status, "nominatedNodeName") && !nominated.is_empty() {
        dns_subdomain(errors, nominated, &path.child("nominatedNodeName"));
    }
    immutable(errors, at(status, "qosClass"), at(old_status, "qosClass"), &path.child("qosClass"));
    let policy = old.str_at(&["spec", "restartPolicy"]);
    let init = list(at(old, "spec"), "initContainers");
    for (key, policy) in [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")] {
        let restarts = |name: &str| {
            let containers = if key == "initContainerStatuses" { init } else { list(at(old, "spec"), "containers") };
            containers.iter().any(|c| text(c, "name") == name && set(c, "restartPolicy").is_some())
        };
        transitions(errors, list(status, key), list(old_status, key), policy, restarts, &path.child(key));
    }
    for (key, single) in [("podIPs", None), ("hostIPs", Some("hostIP"))] {
        addresses(errors, status, key, single, &path.child(key));
    }
}

/// A container that ended for good stays ended.
fn transitions(errors: &mut Errors, new: &[Tree], old: &[Tree], policy: &str, restarts: impl Fn(&str) -> bool, path: &Path) {
    if policy == "Always" {
        return;
    }
    for (i, old) in old.iter().enumerate() {
        let Some(terminated) = old.at(&["state", "terminated"]) else { continue };
        let name = text(old, "name");
        if (int(terminated, "exitCode").unwrap_or(0) != 0 && policy == "OnFailure") || restarts(name) {
            continue;
        }
        if new.iter().any(|n| text(n, "name") == name && n.at(&["state", "terminated"]).is_none()) {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(path.index(i).child("state"), detail));
        }
    }
}

fn addresses(errors: &mut Errors, status: &Tree, key: &str, single: Option<&str>, path: &Path) {
    let addresses: Vec<&str> = list(status, key).iter().map(|a| text(a, "ip")).collect();
    if let (Some(single), Some(first)) = (single, addresses.first())
        && text(status, single) != *first {
            errors.push(FieldError::invalid(path.index(0).child("ip"), *first, "must be equal to `hostIP`"));
        }
    let again = repeated(&addresses);
    for (i, address) in addresses.iter().enumerate() {
        ip(errors, address, &path.index(i));
        if again[i] {
            errors.push(FieldError::duplicate(path.index(i), &list(status, key)[i]));
        }
    }
    let v4 = addresses.iter().filter(|a| !a.contains(':')).count();
    if v4 > 1 || addresses.len() - v4 > 1 {
        errors.push(FieldError::invalid(path, at(status, key), "may specify no more than one IP for each IP family"));
    }
}

/// An update of `pods/ephemeralcontainers`.
pub(super) fn ephemeral_containers(errors: &mut Errors, new: &Tree, old: &Tree) {
    if old.at(&["metadata", "annotations", MIRROR]).is_some() {
        errors.push(FieldError::forbidden(Path::new(""), "static pods do not support ephemeral containers"));
        return;
    }
    meta::update(errors, new, old);
    pod::metadata_and_spec(errors, new);
    pod_annotations::update(errors, new, old, &META.child("annotations"));
    let path = SPEC.child("ephemeralContainers");
    let containers = list(at(new, "spec"), "ephemeralContainers");
    for before in list(at(old, "spec"), "ephemeralContainers") {
        let name = text(before, "name");
        match containers.iter().find(|c| text(c, "name") == name) {
            None => {
                let detail = format!("existing ephemeral containers \"{name}\" may not be removed\n");
                errors.push(FieldError::forbidden(path, detail));
            }
            Some(after) if !same(before, after) => {
                let report = diff(before, after, "core.EphemeralContainer");
                let detail = format!("existing ephemeral containers \"{name}\" may not be changed\n{report}");
                errors.push(FieldError::forbidden(path, detail));
            }
            Some(_) => {}
        }
    }
}

/// A `Binding`.
pub(super) fn binding(errors: &mut Errors, binding: &Tree) {
    let target = at(binding, "target");
    let path = Path::new("target");
    let kind = text(target, "kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(path.child("kind"), kind, &["Node", "<empty>"]));
    }
    require(errors, target, "name", &path);
}
