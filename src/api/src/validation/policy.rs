//! PodDisruptionBudgets, PriorityClasses and Leases.
//!
//! Models pkg/apis/policy/validation, pkg/apis/scheduling/validation and pkg/apis/coordination/validation.
use super::check::*;
use super::conditions;
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
/// The highest priority that users may give.
const PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "PodDisruptionBudget" => disruption_budget(errors, at(new, "spec")),
        "PriorityClass" => priority_class(errors, new, old),
        "Lease" => lease(errors, at(new, "spec")),
        _ => {}
    }
}

fn disruption_budget(errors: &mut Errors, spec: &Tree) {
    let keys = ["minAvailable", "maxUnavailable"];
    if keys.iter().all(|k| set(spec, k).is_some()) {
        let fields = [
            ("MinAvailable", "minAvailable", "null"),
            ("Selector", "selector", "null"),
            ("MaxUnavailable", "maxUnavailable", "null"),
            ("UnhealthyPodEvictionPolicy", "unhealthyPodEvictionPolicy", "null"),
        ];
        errors.push(FieldError::invalid(SPEC, in_go(spec, &fields), "minAvailable and maxUnavailable cannot be both set"));
    }
    for key in keys {
        if let Some(value) = set(spec, key) {
            int_or_percent(errors, value, &SPEC.child(key));
            at_most_hundred_percent(errors, value, &SPEC.child(key));
        }
    }
    label_selector(errors, at(spec, "selector"), &SPEC.child("selector"));
    if let Some(policy) = set(spec, "unhealthyPodEvictionPolicy") {
        let path = SPEC.child("unhealthyPodEvictionPolicy");
        supported(errors, policy.as_str().unwrap_or(""), &["AlwaysAllow", "IfHealthyBudget"], &path);
    }
}

pub(super) fn disruption_budget_status(errors: &mut Errors, budget: &Tree) {
    let status = at(budget, "status");
    conditions::check(errors, list(status, "conditions"), &STATUS.child("conditions"));
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        non_negative(errors, int(status, key), &STATUS.child(key));
    }
}

fn priority_class(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let value = int(new, "value").unwrap_or(0);
    let Some(old) = old else {
        let meta = Path::new("metadata");
        let name = new.str_at(&["metadata", "name"]);
        if name.starts_with("system-") {
            if !matches!((name, value), ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)) {
                let detail = "priority class names with 'system-' prefix are reserved for system use only. error: ".to_owned()
                    + &format!("{name} is not a known system priority class");
                errors.push(FieldError::forbidden(meta.child("name"), detail));
            }
        } else if value > PRIORITY_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
            errors.push(FieldError::forbidden(Path::new("value"), detail));
        }
        if let Some(policy) = set(new, "preemptionPolicy") {
            let path = Path::new("preemptionPolicy");
            one_of(errors, policy.as_str().unwrap_or(""), &["PreemptLowerPriority", "Never"], &path);
        }
        return;
    };
    if value != int(old, "value").unwrap_or(0) {
        errors.push(FieldError::forbidden(Path::new("value"), "may not be changed in an update."));
    }
    let path = Path::new("preemptionPolicy");
    immutable(errors, at(new, "preemptionPolicy"), at(old, "preemptionPolicy"), &path);
}

fn lease(errors: &mut Errors, spec: &Tree) {
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.push(FieldError::invalid(SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    non_negative(errors, int(spec, "leaseTransitions"), &SPEC.child("leaseTransitions"));
    let strategy = text(spec, "strategy");
    if !strategy.is_empty() {
        let path = SPEC.child("strategy");
        if strategy.contains('/') {
            label_name(errors, strategy, &path.child("strategy"));
        } else {
            supported(errors, strategy, &["OldestEmulationVersion"], &path.child("strategy"));
        }
    } else if !text(spec, "preferredHolder").is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(SPEC.child("preferredHolder"), detail));
    }
}

/// Models pkg/apis/node/validation.
pub(super) fn runtime_class(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    if let Some(old) = old {
        declared_immutable(errors, new, old, "handler");
    }
    let handler = text(new, "handler");
    if handler.is_empty() {
        errors.push(FieldError::required(Path::new("handler"), ""));
    } else {
        dns_label(errors, handler, &Path::new("handler"));
    }
    if let Some(overhead) = set(new, "overhead") {
        let mut requirements = Tree::object();
        if let Some(fixed) = set(overhead, "podFixed") {
            requirements.set(&["limits"], fixed.clone());
        }
        super::resources::container(errors, &requirements, &[], &Path::new("overhead"));
    }
    let Some(scheduling) = set(new, "scheduling") else { return };
    let path = Path::new("scheduling");
    labels(errors, at(scheduling, "nodeSelector"), &path.child("nodeSelector"));
    let path = path.child("tolerations");
    let tolerations = list(scheduling, "tolerations");
    super::affinity::tolerations(errors, tolerations, &path);
    for (i, toleration) in tolerations.iter().enumerate() {
        let is_same = |other: &&Tree| ["key", "operator", "value", "effect"].iter().all(|key| same_at(other, toleration, key));
        if tolerations[..i].iter().any(|other| is_same(&other)) {
            errors.push(FieldError::duplicate(path.index(i), toleration));
        }
    }
}
