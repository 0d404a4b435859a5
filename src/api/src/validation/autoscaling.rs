//! HorizontalPodAutoscalers.
//!
//! Models pkg/apis/autoscaling/validation/validation.go, v1.37: an autoscaler may go down to zero.
use super::check::*;
use super::resources;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
/// Type, and the field that belongs to it.
const SOURCES: [(&str, &str); 5] =
    [("ContainerResource", "containerResource"), ("External", "external"), ("Object", "object"), ("Pods", "pods"), ("Resource", "resource")];

pub(super) fn autoscaler(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    let min = int(spec, "minReplicas");
    if let Some(min) = min.filter(|m| *m < 0) {
        errors.push(FieldError::invalid(SPEC.child("minReplicas"), min, "must be greater than or equal to 0"));
    }
    let max = int(spec, "maxReplicas").unwrap_or(0);
    let path = SPEC.child("maxReplicas");
    match max {
        0 => errors.push(FieldError::required(path, "")),
        max if max < 0 => errors.push(FieldError::invalid(path, max, "must be greater than or equal to 1")),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(SPEC.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`"));
    }
    let (target, path) = (at(spec, "scaleTargetRef"), SPEC.child("scaleTargetRef"));
    reference(errors, target, &path);
    // What was let in before these rules may stay.
    let is_old = old.is_some_and(|old| ["apiVersion", "kind"].iter().all(|key| text(at(at(old, "spec"), "scaleTargetRef"), key) == text(target, key)));
    if !is_old {
        // The one kind with a scale that the core group has.
        api_version(errors, target, text(target, "kind") == "ReplicationController", &path);
    }
    let metrics = SPEC.child("metrics");
    for (i, metric) in list(spec, "metrics").iter().enumerate() {
        self::metric(errors, metric, &metrics.index(i));
    }
    // Through v1 the one metric there is goes by another name.
    if let Some(percent) = int(spec, "targetCPUUtilizationPercentage").filter(|percent| *percent < 1) {
        let target = "spec.metrics[0].resource.target.averageUtilization";
        errors.push(FieldError::invalid(target, percent, "must be greater than 0"));
    }
    let is_outer = |m: &Tree| matches!(text(m, "type"), "Object" | "External");
    if min == Some(0) && !list(spec, "metrics").iter().any(is_outer) {
        errors.push(FieldError::forbidden(metrics, "must specify at least one Object or External metric to support scaling to zero replicas"));
    }
    let behavior = SPEC.child("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = set(at(spec, "behavior"), direction) {
            self::rules(errors, rules, &behavior.child(direction));
        }
    }
}

pub(super) fn autoscaler_status(errors: &mut Errors, autoscaler: &Tree) {
    let status = at(autoscaler, "status");
    for key in ["currentReplicas", "desiredReplicas"] {
        non_negative(errors, int(status, key), &STATUS.child(key));
    }
}

fn segment(errors: &mut Errors, value: &str, path: &Path) {
    for why in names::path_segment(value) {
        errors.push(FieldError::invalid(path, value, why));
    }
}

fn reference(errors: &mut Errors, reference: &Tree, path: &Path) {
    for key in ["kind", "name"] {
        match text(reference, key) {
            "" => errors.push(FieldError::required(path.child(key), "")),
            value => segment(errors, value, &path.child(key)),
        }
    }
}

fn api_version(errors: &mut Errors, reference: &Tree, core_is_allowed: bool, path: &Path) {
    let version = text(reference, "apiVersion");
    let why = match version.matches('/').count() {
        0 if !core_is_allowed => "apiVersion must specify API group".to_owned(),
        0 | 1 => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(FieldError::invalid(path.child("apiVersion"), version, why));
}

fn rules(errors: &mut Errors, rules: &Tree, path: &Path) {
    if let Some(window) = int(rules, "stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(FieldError::invalid(path, window, "must be greater than or equal to zero"));
        } else if window > WINDOW_SECONDS_MAX {
            errors.push(FieldError::invalid(path, window, format!("must be less than or equal to {WINDOW_SECONDS_MAX}")));
        }
    }
    if let Some(select) = set(rules, "selectPolicy") {
        supported(errors, select.as_str().unwrap_or(""), &["Disabled", "Max", "Min"], &path.child("selectPolicy"));
    }
    let policies = path.child("policies");
    if list(rules, "policies").is_empty() {
        errors.push(FieldError::required(&policies, "must specify at least one Policy"));
    }
    for (i, policy) in list(rules, "policies").iter().enumerate() {
        let item = policies.index(i);
        supported(errors, text(policy, "type"), &["Percent", "Pods"], &item.child("type"));
        for key in ["value", "periodSeconds"] {
            let number = int(policy, key).unwrap_or(0);
            if number <= 0 {
                errors.push(FieldError::invalid(item.child(key), number, "must be greater than zero"));
            } else if key == "periodSeconds" && number > PERIOD_SECONDS_MAX {
                errors.push(FieldError::invalid(item.child(key), number, format!("must be less than or equal to {PERIOD_SECONDS_MAX}")));
            }
        }
    }
    if let Some(tolerance) = set(rules, "tolerance") {
        non_negative_quantity(errors, tolerance, &path.child("tolerance"));
    }
}

fn metric(errors: &mut Errors, metric: &Tree, path: &Path) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric source type"));
    }
    let types = SOURCES.map(|(kind, _)| kind);
    supported(errors, kind, &types, &path.child("type"));
    let present: Vec<&str> = ["object", "external", "pods", "resource", "containerResource"].into_iter().filter(|f| set(metric, f).is_some()).collect();
    if let Some(first) = present.first() {
        source(errors, first, at(metric, first), &path.child(first));
    }
    let expected = SOURCES.iter().find(|(k, _)| *k == kind).map(|(_, field)| *field);
    if let Some(expected) = expected.filter(|e| !present.contains(e)) {
        errors.push(FieldError::required(path.child(expected), "must populate information for the given metric source"));
    }
    if present.len() != 1 {
        for other in present.into_iter().filter(|f| Some(*f) != expected) {
            errors.push(FieldError::forbidden(path.child(other), "must populate the given metric source only"));
        }
    }
}

fn source(errors: &mut Errors, field: &str, source: &Tree, path: &Path) {
    if field == "object" {
        let (described, path) = (at(source, "describedObject"), path.child("describedObject"));
        reference(errors, described, &path);
        api_version(errors, described, true, &path);
    }
    if matches!(field, "object" | "external" | "pods") {
        let identifier = path.child("metric");
        match text(at(source, "metric"), "name") {
            "" => errors.push(FieldError::required(identifier.child("name"), "must specify a metric name")),
            name => segment(errors, name, &identifier.child("name")),
        }
    } else if text(source, "name").is_empty() {
        errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
    } else if field == "containerResource" {
        resources::container_name(errors, text(source, "name"), &path.child("name"));
    }
    if field == "containerResource" {
        match text(source, "container") {
            "" => errors.push(FieldError::required(path.child("container"), "must specify a container")),
            name => dns_label(errors, name, &path.child("container")),
        }
    }
    let (wanted, target) = (at(source, "target"), path.child("target"));
    self::target(errors, wanted, &target);
    let has = |key: &str| set(wanted, key).is_some();
    match field {
        "object" if !has("value") && !has("averageValue") => {
            errors.push(FieldError::required(target.child("averageValue"), "must set either a target value or averageValue"));
        }
        "external" if !has("value") && !has("averageValue") => {
            errors.push(FieldError::required(target.child("averageValue"), "must set either a target value for metric or a per-pod target"));
        }
        "external" if has("value") && has("averageValue") => {
            errors.push(FieldError::forbidden(target.child("value"), "may not set both a target value for metric and a per-pod target"));
        }
        "pods" if !has("averageValue") => {
            errors.push(FieldError::required(target.child("averageValue"), "must specify a positive target averageValue"));
        }
        "resource" | "containerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => {
                errors.push(FieldError::required(target.child("averageUtilization"), "must set either a target raw value or a target utilization"));
            }
            (true, true) => {
                errors.push(FieldError::forbidden(target.child("averageValue"), "may not set both a target raw value and a target utilization"));
            }
            _ => {}
        },
        _ => {}
    }
}

fn target(errors: &mut Errors, target: &Tree, path: &Path) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.push(FieldError::invalid(path.child("type"), kind, "must be either Utilization, Value, or AverageValue"));
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) = set(target, key).filter(|a| crate::quantity::from_tree(a).is_some_and(|q| q.sign() != 1)) {
            errors.push(FieldError::invalid(path.child(key), amount, "must be positive"));
        }
    }
    if let Some(percent) = int(target, "averageUtilization").filter(|p| *p < 1) {
        errors.push(FieldError::invalid(path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}
