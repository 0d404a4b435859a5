//! Resource names, amounts and requirements.
//!
//! Models pkg/apis/core/validation/validation.go `validateResourceRequirements` and pkg/apis/core/helper.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::quantity::Quantity;
use crate::tree::Tree;

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Amounts of extended resources and of huge pages cannot be promised twice.
pub(super) fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn is_extended(name: &str) -> bool {
    if is_native(name) || name.starts_with("requests.") {
        return false;
    }
    names::qualified_name(&format!("requests.{name}")).is_empty()
}

const QUOTA_COUNTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Names that a ResourceQuota knows.
pub(super) fn is_quota_resource(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    QUOTA_COUNTS.contains(&name)
        || matches!(bare, "cpu" | "memory" | "ephemeral-storage")
        || name == "requests.storage"
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-")
}

fn is_container_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name)
}

fn is_standard(name: &str) -> bool {
    is_quota_resource(name) || matches!(name, "storage" | "requests.storage")
}

/// A name that means anything at all. Returns whether it does.
pub(super) fn name(errors: &mut Errors, name: &str, path: &Path) -> bool {
    let texts = names::qualified_name(name);
    let valid = texts.is_empty();
    invalid(errors, path, name, texts);
    if valid && !name.contains('/') && !is_standard(name) {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    valid
}

pub(super) fn container_name(errors: &mut Errors, resource: &str, path: &Path) {
    name(errors, resource, path);
    if !resource.contains('/') {
        if !is_container_resource(resource) {
            errors.push(FieldError::invalid(path, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errors.push(FieldError::invalid(path, resource, "doesn't follow extended resource name standard"));
    }
}

pub(super) fn quota_name(errors: &mut Errors, resource: &str, path: &Path) {
    name(errors, resource, path);
    if !resource.contains('/') && !is_quota_resource(resource) {
        errors.push(FieldError::invalid(path, resource, "must be a standard resource for quota"));
    }
}

fn pod_name(errors: &mut Errors, resource: &str, path: &Path) {
    if name(errors, resource, path) && !matches!(resource, "cpu" | "memory") && !is_huge_page(resource) {
        errors.push(FieldError::not_supported(path, resource, &["cpu", "hugepages-", "memory"]));
    }
}

/// An amount must not be negative, and whole where the resource comes in pieces.
pub(super) fn amount(errors: &mut Errors, resource: &str, value: &Tree, path: &Path) {
    non_negative_quantity(errors, value, path);
    let in_pieces = QUOTA_COUNTS.contains(&resource) || is_extended(resource);
    if in_pieces && quantity(value).milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, &quantity(value), "must be an integer"));
    }
}

/// `resources` of a container.
pub(super) fn container(errors: &mut Errors, requirements: &Tree, claims: &[&str], path: &Path) {
    check(errors, requirements, container_name, claims, path);
}

/// `spec.resources` of a pod.
pub(super) fn pod(errors: &mut Errors, requirements: &Tree, path: &Path) {
    if set(requirements, "claims").is_some() {
        errors.push(FieldError::forbidden(path.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    check(errors, requirements, pod_name, &[], path);
}

fn huge_page_amount(errors: &mut Errors, resource: &str, value: Quantity, path: &Path) {
    let page = resource.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let fits = page.is_some_and(|page| page.sign() > 0 && value.value() % page.value() == 0);
    if !fits {
        let detail = format!("{value} is not positive integer multiple of {resource}");
        errors.push(FieldError::invalid(path, value.to_string(), detail));
    }
}

fn check(errors: &mut Errors, requirements: &Tree, check_name: fn(&mut Errors, &str, &Path), claims: &[&str], path: &Path) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let (mut has_compute, mut has_huge_pages) = (false, false);
    for (list_name, list_path) in [("limits", &limits_path), ("requests", &requests_path)] {
        for (resource, value) in entries(requirements, list_name) {
            let path = list_path.key(resource);
            check_name(errors, resource, &path);
            amount(errors, resource, value, &path);
            let value = quantity(value);
            if list_name == "requests" {
                match at(requirements, "limits").get(resource).map(quantity) {
                    Some(limit) if value != limit && !is_overcommit_allowed(resource) => {
                        let detail = format!("must be equal to {resource} limit of {limit}");
                        errors.push(FieldError::invalid(list_path, value.to_string(), detail));
                    }
                    Some(limit) if value > limit => {
                        let detail = format!("must be less than or equal to {resource} limit of {limit}");
                        errors.push(FieldError::invalid(list_path, value.to_string(), detail));
                    }
                    None if !is_overcommit_allowed(resource) => {
                        errors.push(FieldError::required(limits_path, "Limit must be set for non overcommitable resources"));
                    }
                    _ => {}
                }
            }
            if is_huge_page(resource) {
                has_huge_pages = true;
                huge_page_amount(errors, resource, value, &path);
            }
            has_compute |= matches!(resource, "cpu" | "memory");
        }
    }
    if has_huge_pages && !has_compute {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    let claims_path = path.child("claims");
    // A claim as a whole is named by the empty request, and stands for all.
    let (mut seen, mut claims_seen): (Seen<(&str, &str)>, Seen<&str>) = (Seen::new(), Seen::new());
    for (i, claim) in list(requirements, "claims").iter().enumerate() {
        let path = claims_path.index(i);
        let (claim_name, request) = (text(claim, "name"), text(claim, "request"));
        if claim_name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if !request.is_empty() {
            dns_label(errors, request, &path.child("request"));
        }
        let is_whole = request.is_empty() && claims_seen.contains(&claim_name);
        if is_whole || seen.contains(&(claim_name, "")) || seen.contains(&(claim_name, request)) {
            errors.push(FieldError::duplicate(path, claim_name));
        }
        seen.push((claim_name, request));
        claims_seen.push(claim_name);
        if !claims.contains(&claim_name) {
            let mut error = FieldError::not_found(path, claim_name);
            error.detail = match claims {
                [] => "must be one of the names in pod.spec.resourceClaims which is empty".to_owned(),
                names => format!("must be one of the names in pod.spec.resourceClaims: {}", names.join(", ")),
            };
            errors.push(error);
        }
    }
}
