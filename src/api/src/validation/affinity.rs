//! Where a pod may run: node and pod affinity, tolerations, spreading.
//!
//! Models pkg/apis/core/validation/validation.go `validateAffinity`, `ValidateTolerations`, `validateTopologySpreadConstraints`.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
pub(super) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn affinity(errors: &mut Errors, affinity: &Tree, path: &Path) {
    if let Some(node) = set(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(selector) = set(node, REQUIRED) {
            node_selector(errors, selector, &path.child(REQUIRED));
        }
        let preferred = path.child(PREFERRED);
        for (i, term) in list(node, PREFERRED).iter().enumerate() {
            let path = preferred.index(i);
            weight(errors, term, &path);
            // Values are not checked here: a preference that matches nothing does no harm.
            node_selector_term(errors, at(term, "preference"), true, &path.child("preference"));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = set(affinity, kind) else { continue };
        let path = path.child(kind);
        let (required, preferred) = (path.child(REQUIRED), path.child(PREFERRED));
        for (i, term) in list(pods, REQUIRED).iter().enumerate() {
            pod_affinity_term(errors, term, &required.index(i));
        }
        for (i, term) in list(pods, PREFERRED).iter().enumerate() {
            let path = preferred.index(i);
            weight(errors, term, &path);
            pod_affinity_term(errors, at(term, "podAffinityTerm"), &path.child("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Errors, term: &Tree, path: &Path) {
    let weight = int(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

pub(super) fn node_selector(errors: &mut Errors, selector: &Tree, path: &Path) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(path, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(errors, term, false, &path.index(i));
    }
}

fn node_selector_term(errors: &mut Errors, term: &Tree, any_value: bool, path: &Path) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let path = expressions.index(i);
        let values_path = path.child("values");
        let values = strings(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(FieldError::required(values_path, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(values_path, detail));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(values_path, detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        label_name(errors, text(requirement, "key"), &path.child("key"));
        if !any_value {
            for (i, value) in values.into_iter().enumerate() {
                invalid(errors, &values_path.index(i), value, names::label_value(value));
            }
        }
    }
    let fields = path.child("matchFields");
    for (i, requirement) in list(term, "matchFields").iter().enumerate() {
        let path = fields.index(i);
        let values_path = path.child("values");
        let values = strings(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.len() != 1 => {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(values_path, detail));
            }
            "In" | "NotIn" => {}
            other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        match text(requirement, "key") {
            "metadata.name" => {
                for (i, value) in values.into_iter().enumerate() {
                    dns_subdomain(errors, value, &values_path.index(i));
                }
            }
            other => errors.push(FieldError::invalid(path.child("key"), other, "not a valid field selector key")),
        }
    }
}

fn pod_affinity_term(errors: &mut Errors, term: &Tree, path: &Path) {
    label_selector(errors, at(term, "labelSelector"), &path.child("labelSelector"));
    label_selector(errors, at(term, "namespaceSelector"), &path.child("namespaceSelector"));
    for namespace in strings(term, "namespaces") {
        dns_label(errors, namespace, &path.child("namespace"));
    }
    let has_selector = set(term, "labelSelector").is_some();
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = strings(term, key);
        let path = path.child(key);
        if !keys.is_empty() && !has_selector {
            errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.into_iter().enumerate() {
            label_name(errors, key, &path.index(i));
        }
    }
    let mismatched = strings(term, "mismatchLabelKeys");
    let matched = path.child("matchLabelKeys");
    for (i, key) in strings(term, "matchLabelKeys").into_iter().enumerate().filter(|(_, k)| mismatched.contains(k)) {
        errors.push(FieldError::invalid(matched.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"));
    }
    let topology = text(term, "topologyKey");
    if topology.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    label_name(errors, topology, &path.child("topologyKey"));
}

pub(super) fn tolerations(errors: &mut Errors, tolerations: &[Tree], path: &Path) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            label_name(errors, key, &path.child("key"));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(path.child("operator"), operator, detail));
        }
        if set(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(path.child("effect"), effect, detail));
        }
        match operator {
            "Equal" | "" => {
                let texts = names::label_value(value);
                if !texts.is_empty() {
                    errors.push(FieldError::invalid(path.child("operator"), value, texts.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(path.child("operator"), value, detail));
                }
            }
            // Known, but behind a gate.
            "Lt" | "Gt" => errors.push(FieldError::not_supported(path.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"])),
            other => errors.push(FieldError::not_supported(path.child("operator"), other, &["Equal", "Exists"])),
        }
        one_of_or_empty(errors, effect, TAINT_EFFECTS, &path.child("effect"));
    }
}

/// Taints of a node.
pub(super) fn taints(errors: &mut Errors, taints: &[Tree], path: &Path) {
    let mut seen: Seen<(&str, &str)> = Seen::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        label_name(errors, key, &path.child("key"));
        let texts = names::label_value(value);
        if !texts.is_empty() {
            errors.push(FieldError::invalid(path.child("value"), value, texts.join(";")));
        }
        one_of(errors, effect, TAINT_EFFECTS, &path.child("effect"));
        if seen.contains(&(key, effect)) {
            let fields = [("Key", "key", "\"\""), ("Value", "value", "\"\""), ("Effect", "effect", "\"\""), ("TimeAdded", "timeAdded", "null")];
            let mut error = FieldError::duplicate(path, in_go(taint, &fields));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        } else {
            seen.push((key, effect));
        }
    }
}

pub(super) fn spread_constraints(errors: &mut Errors, constraints: &[Tree], path: &Path) {
    let pair = |constraint| (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
    let mut again = repeated(constraints.iter().rev().map(pair));
    again.reverse();
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(path.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let action = text(constraint, "whenUnsatisfiable");
        supported(errors, action, &["DoNotSchedule", "ScheduleAnyway"], &path.child("whenUnsatisfiable"));
        if again[i] {
            let pair = format!("{{{key}, {action}}}");
            errors.push(FieldError::duplicate(path.child("{topologyKey, whenUnsatisfiable}"), pair));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(path, domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(path, domains, detail));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(value) = set(constraint, policy) {
                supported(errors, value.as_str().unwrap_or(""), &["Honor", "Ignore"], &path.child(policy));
            }
        }
        match_label_keys(errors, constraint, &path.child("matchLabelKeys"));
        label_selector(errors, at(constraint, "labelSelector"), &path.child("labelSelector"));
    }
}

fn match_label_keys(errors: &mut Errors, constraint: &Tree, path: &Path) {
    let keys = strings(constraint, "matchLabelKeys");
    if keys.is_empty() {
        return;
    }
    let selector = at(constraint, "labelSelector");
    if selector.is_null() {
        errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
    }
    for (i, key) in keys.into_iter().enumerate() {
        label_name(errors, key, &path.index(i));
        let in_labels = at(selector, "matchLabels").get(key).is_some();
        if in_labels || list(selector, "matchExpressions").iter().any(|e| text(e, "key") == key) {
            errors.push(FieldError::invalid(path.index(i), key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
}
