//! Roles and bindings.
//!
//! Models pkg/apis/rbac/validation/validation.go.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "Role" | "ClusterRole" => {
            let rules = Path::new("rules");
            for (i, rule) in list(new, "rules").iter().enumerate() {
                policy_rule(errors, rule, kind == "Role", &rules.index(i));
            }
            let aggregation = Path::new("aggregationRule");
            if let Some(rule) = set(new, "aggregationRule") {
                let path = aggregation.child("clusterRoleSelectors");
                let selectors = list(rule, "clusterRoleSelectors");
                if selectors.is_empty() {
                    errors.push(FieldError::required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
                }
                for (i, selector) in selectors.iter().enumerate() {
                    label_selector(errors, selector, &path.index(i));
                    if crate::selector::LabelSelector::from_tree(Some(selector)).is_err() {
                        errors.push(FieldError::invalid(path.index(i), &Tree::Null, "invalid label selector."));
                    }
                }
            }
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            binding(errors, new, kind == "RoleBinding");
            if old.is_some_and(|old| !same_at(new, old, "roleRef")) {
                let fields = [("APIGroup", "apiGroup", "\"\""), ("Kind", "kind", "\"\""), ("Name", "name", "\"\"")];
                errors.push(FieldError::invalid(Path::new("roleRef"), in_go(at(new, "roleRef"), &fields), IMMUTABLE));
            }
        }
        _ => {}
    }
}

fn policy_rule(errors: &mut Errors, rule: &Tree, namespaced: bool, path: &Path) {
    let has = |key: &str| !list(rule, key).is_empty();
    if !has("verbs") {
        errors.push(FieldError::required(path.child("verbs"), ""));
    }
    if has("nonResourceURLs") {
        let (path, urls) = (path.child("nonResourceURLs"), at(rule, "nonResourceURLs"));
        if namespaced {
            errors.push(FieldError::invalid(path, urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(path, urls, detail));
        }
        return;
    }
    if !has("apiGroups") {
        errors.push(FieldError::required(path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if !has("resources") {
        errors.push(FieldError::required(path.child("resources"), "resource rules must supply at least one resource"));
    }
}

fn binding(errors: &mut Errors, binding: &Tree, namespaced: bool) {
    let (role, path) = (at(binding, "roleRef"), Path::new("roleRef"));
    supported(errors, text(role, "apiGroup"), &[GROUP], &path.child("apiGroup"));
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    supported(errors, text(role, "kind"), kinds, &path.child("kind"));
    let name = text(role, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        invalid(errors, &path.child("name"), name, names::path_segment(name));
    }
    let subjects = Path::new("subjects");
    for (i, subject) in list(binding, "subjects").iter().enumerate() {
        let path = subjects.index(i);
        let (kind, name) = (text(subject, "kind"), text(subject, "name"));
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    dns_subdomain(errors, name, &path.child("name"));
                }
                supported(errors, text(subject, "apiGroup"), &[""], &path.child("apiGroup"));
                if !namespaced && text(subject, "namespace").is_empty() {
                    errors.push(FieldError::required(path.child("namespace"), ""));
                }
            }
            "User" | "Group" => {
                supported(errors, text(subject, "apiGroup"), &[GROUP], &path.child("apiGroup"));
            }
            other => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(path.child("kind"), other, &kinds));
            }
        }
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
    }
}
