//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ControllerRevisions; ReplicationControllers share the checks of replicas.
//!
//! Models pkg/apis/apps/validation/validation.go.
use super::check::*;
use super::{pod, storage};
use crate::field_error::{FieldError, Path};
use crate::selector::LabelSelector;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    let old_spec = old.map(|o| at(o, "spec"));
    match kind {
        "Deployment" => {
            deployment(errors, spec);
            selector_immutable(errors, spec, old_spec);
        }
        "ReplicaSet" => {
            replica_set(errors, spec);
            selector_immutable(errors, spec, old_spec);
        }
        "DaemonSet" => daemon_set(errors, spec, old_spec),
        "StatefulSet" => stateful_set(errors, spec, old_spec),
        "ControllerRevision" => {
            if at(new, "data").is_null() {
                errors.push(FieldError::required(Path::new("data"), "data is mandatory"));
            }
            non_negative(errors, int(new, "revision"), &Path::new("revision"));
            if let Some(old) = old {
                immutable(errors, at(new, "data"), at(old, "data"), &Path::new("data"));
            }
        }
        _ => {}
    }
}

fn selector_immutable(errors: &mut Errors, spec: &Tree, old_spec: Option<&Tree>) {
    if let Some(old) = old_spec {
        immutable(errors, at(spec, "selector"), at(old, "selector"), &SPEC.child("selector"));
    }
}

/// A selector that must be there, and select something.
fn selector(errors: &mut Errors, spec: &Tree, empty: &str) {
    let path = SPEC.child("selector");
    let selector = at(spec, "selector");
    if selector.is_null() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    label_selector(errors, selector, &path);
    if selects_all(selector) {
        errors.push(FieldError::invalid(path, selector, empty));
    }
}

/// The template of a workload whose pods run for ever: its labels must match, its pods restart.
fn template(errors: &mut Errors, spec: &Tree, owner: &str) {
    let path = SPEC.child("template");
    let template = at(spec, "template");
    let selector = LabelSelector::from_tree(spec.get("selector"));
    match &selector {
        Err(_) => {
            let detail = if owner == "StatefulSet" { "" } else { "invalid label selector" };
            errors.push(FieldError::invalid(SPEC.child("selector"), at(spec, "selector"), detail));
            // The other kinds look no further.
            if owner == "StatefulSet" {
                always_restarts(errors, template, owner, &path);
            }
            return;
        }
        Ok(selector) => {
            let labels = template.at(&["metadata", "labels"]);
            if !selector.is_empty() && !selector.matches_tree(labels) {
                let detail = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(path.child("metadata").child("labels"), labels, detail));
            }
        }
    }
    let mut template = std::borrow::Cow::Borrowed(template);
    if owner == "StatefulSet" {
        // The controller names the pods.
        for key in ["subdomain", "hostname"] {
            if template.at(&["spec", key]).is_some() {
                template.to_mut().remove(&["spec", key]);
            }
        }
        // Claims of the set stand in for the volumes that the template does not have.
        let templates = list(spec, "volumeClaimTemplates");
        let name_of = |claim: &Tree| claim.str_at(&["metadata", "name"]).to_owned();
        let claims: Vec<Tree> = templates
            .iter()
            .zip(repeated(templates.iter().map(name_of)))
            .filter(|(_, again)| !again)
            .map(|(claim, _)| {
                let name = claim.str_at(&["metadata", "name"]);
                let mut volume = Tree::object();
                volume.set(&["name"], name);
                volume.set(&["persistentVolumeClaim", "claimName"], name);
                volume
            })
            .collect();
        let names: Seen<&str> = claims.iter().map(|claim| text(claim, "name")).collect();
        let volumes = template.array_at(&["spec", "volumes"]);
        let own: Vec<Tree> = volumes
            .iter()
            .filter(|v| !names.contains(&text(v, "name")))
            .cloned()
            .collect();
        if !claims.is_empty() {
            let all: Vec<Tree> = claims.into_iter().chain(own).collect();
            template.to_mut().set(&["spec", "volumes"], Tree::Array(all));
        }
    }
    pod::template(errors, &template, &path);
    always_restarts(errors, &template, owner, &path);
}

fn always_restarts(errors: &mut Errors, template: &Tree, owner: &str, path: &Path) {
    let (pod, spec_path) = (at(template, "spec"), path.child("spec"));
    let policy = text(pod, "restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(spec_path.child("restartPolicy"), policy, &["Always"]));
    }
    if set(pod, "activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(FieldError::forbidden(spec_path.child("activeDeadlineSeconds"), detail));
    }
}

fn deployment(errors: &mut Errors, spec: &Tree) {
    non_negative(errors, int(spec, "replicas"), &SPEC.child("replicas"));
    selector(errors, spec, "empty selector is invalid for deployment");
    template(errors, spec, "ReplicaSet");
    deployment_strategy(errors, at(spec, "strategy"), &SPEC.child("strategy"));
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        non_negative(errors, int(spec, key), &SPEC.child(key));
    }
    if let Some(deadline) = int(spec, "progressDeadlineSeconds") {
        let path = SPEC.child("progressDeadlineSeconds");
        non_negative(errors, Some(deadline), &path);
        if deadline <= int(spec, "minReadySeconds").unwrap_or(0) {
            errors.push(FieldError::invalid(path, deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn deployment_strategy(errors: &mut Errors, strategy: &Tree, path: &Path) {
    let rolling = set(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(rolling_path, detail));
            }
        }
        "RollingUpdate" => match rolling {
            None => errors.push(FieldError::required(rolling_path, "this should be defaulted and never be nil")),
            Some(rolling) => rolling_update(errors, rolling, "maxUnavailable", &rolling_path),
        },
        _ => errors.push(FieldError::not_supported(path, strategy, &["Recreate", "RollingUpdate"])),
    }
}

/// Text that is no percentage counts as nothing, too.
fn is_zero(value: &Tree) -> bool {
    match value {
        Tree::String(_) => percent_value(value).unwrap_or(0) == 0,
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

fn rolling_update(errors: &mut Errors, rolling: &Tree, reported: &str, path: &Path) {
    let (unavailable, surge) = (at(rolling, "maxUnavailable"), at(rolling, "maxSurge"));
    int_or_percent(errors, unavailable, &path.child("maxUnavailable"));
    int_or_percent(errors, surge, &path.child("maxSurge"));
    if is_zero(unavailable) && is_zero(surge) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(path.child(reported), unavailable, detail));
    }
    at_most_hundred_percent(errors, unavailable, &path.child("maxUnavailable"));
}

fn replica_set(errors: &mut Errors, spec: &Tree) {
    for key in ["replicas", "minReadySeconds"] {
        non_negative(errors, int(spec, key), &SPEC.child(key));
    }
    selector(errors, spec, "empty selector is invalid for deployment");
    template(errors, spec, "ReplicaSet");
}

/// A ReplicationController selects by a plain map.
pub(super) fn replication_controller(errors: &mut Errors, spec: &Tree) {
    non_negative(errors, int(spec, "minReadySeconds"), &SPEC.child("minReadySeconds"));
    let wanted = at(spec, "selector");
    let is_empty = wanted.as_object().is_none_or(|o| o.is_empty());
    if is_empty {
        errors.push(FieldError::required(SPEC.child("selector"), ""));
    }
    non_negative(errors, int(spec, "replicas"), &SPEC.child("replicas"));
    let path = SPEC.child("template");
    let Some(template) = set(spec, "template") else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    let labels = template.at(&["metadata", "labels"]);
    if entries(spec, "selector").any(|(key, value)| labels.and_then(|l| l.get(key)) != Some(value)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(path.child("metadata").child("labels"), labels, detail));
    }
    pod::template(errors, template, &path);
    always_restarts(errors, template, "ReplicationController", &path);
}

fn daemon_set(errors: &mut Errors, spec: &Tree, old_spec: Option<&Tree>) {
    let path = SPEC.child("selector");
    let selector = at(spec, "selector");
    label_selector(errors, selector, &path);
    let labels = at(spec, "template").at(&["metadata", "labels"]);
    if let Ok(parsed) = LabelSelector::from_tree(spec.get("selector"))
        && !parsed.matches_tree(labels) {
            let template_path = SPEC.child("template");
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(template_path.child("metadata").child("labels"), labels, detail));
        }
    if !selector.is_null() && selects_all(selector) {
        errors.push(FieldError::invalid(path, selector, "empty selector is invalid for daemonset"));
    }
    let template = at(spec, "template");
    let template_path = SPEC.child("template");
    pod::template(errors, template, &template_path);
    let pod_path = template_path.child("spec");
    let policy = template.str_at(&["spec", "restartPolicy"]);
    if policy != "Always" {
        errors.push(FieldError::not_supported(pod_path.child("restartPolicy"), policy, &["Always"]));
    }
    if set(at(template, "spec"), "activeDeadlineSeconds").is_some() {
        let detail = "activeDeadlineSeconds in DaemonSet is not Supported";
        errors.push(FieldError::forbidden(pod_path.child("activeDeadlineSeconds"), detail));
    }
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        non_negative(errors, int(spec, key), &SPEC.child(key));
    }
    let (strategy, path) = (at(spec, "updateStrategy"), SPEC.child("updateStrategy"));
    match (text(strategy, "type"), set(strategy, "rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(FieldError::required(path.child("rollingUpdate"), "")),
        ("RollingUpdate", Some(rolling)) => daemon_rolling_update(errors, rolling, &path.child("rollingUpdate")),
        _ => errors.push(FieldError::not_supported(path, strategy, &["RollingUpdate", "OnDelete"])),
    }
    if let Some(old) = old_spec {
        let generation = |s: &Tree| int(s, "templateGeneration").unwrap_or(0);
        if generation(spec) < generation(old) {
            let path = SPEC.child("templateGeneration");
            errors.push(FieldError::invalid(path, generation(spec), "must not be decremented"));
        }
        immutable(errors, selector, at(old, "selector"), &SPEC.child("selector"));
    }
}

fn daemon_rolling_update(errors: &mut Errors, rolling: &Tree, path: &Path) {
    let (unavailable, surge) = (at(rolling, "maxUnavailable"), at(rolling, "maxSurge"));
    for (key, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        int_or_percent(errors, value, &path.child(key));
        at_most_hundred_percent(errors, value, &path.child(key));
    }
    match (is_zero(unavailable), is_zero(surge)) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(path.child("maxSurge"), surge, detail));
        }
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(path.child("maxUnavailable"), detail));
        }
        _ => {}
    }
}

fn stateful_set(errors: &mut Errors, spec: &Tree, old_spec: Option<&Tree>) {
    let policy = text(spec, "podManagementPolicy");
    let path = SPEC.child("podManagementPolicy");
    match policy {
        "" => errors.push(FieldError::required(path, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(FieldError::invalid(path, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    let (strategy, path) = (at(spec, "updateStrategy"), SPEC.child("updateStrategy"));
    let rolling_path = path.child("rollingUpdate");
    match (text(strategy, "type"), set(strategy, "rollingUpdate")) {
        ("", _) => errors.push(FieldError::required(path, "")),
        ("OnDelete", Some(rolling)) => {
            errors.push(FieldError::invalid(rolling_path, rolling, "only allowed for updateStrategy 'RollingUpdate'"));
        }
        ("RollingUpdate", Some(rolling)) => {
            non_negative(errors, int(rolling, "partition"), &rolling_path.child("partition"));
            if let Some(unavailable) = set(rolling, "maxUnavailable") {
                let path = rolling_path.child("maxUnavailable");
                int_or_percent(errors, unavailable, &path);
                if is_zero(unavailable) {
                    errors.push(FieldError::invalid(path, unavailable, "cannot be 0"));
                }
                at_most_hundred_percent(errors, unavailable, &path);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.push(FieldError::invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
    if let Some(retention) = set(spec, "persistentVolumeClaimRetentionPolicy") {
        let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            supported(errors, text(retention, key), &["Retain", "Delete"], &path.child(key));
        }
    }
    // They stay as they are, even where they would be refused now.
    if old_spec.is_none() {
        let claims = SPEC.child("volumeClaimTemplates");
        for (i, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
            storage::claim_spec(errors, at(claim, "spec"), &claims.index(i).child("spec"));
        }
    }
    for key in ["replicas", "minReadySeconds"] {
        non_negative(errors, int(spec, key), &SPEC.child(key));
    }
    let ordinals = SPEC.child("ordinals");
    non_negative(errors, int(at(spec, "ordinals"), "start"), &ordinals.child("start"));
    let service = text(spec, "serviceName");
    if !service.is_empty() && old_spec.is_none() {
        dns_label(errors, service, &SPEC.child("serviceName"));
    }
    selector(errors, spec, "empty selector is invalid for statefulset");
    template(errors, spec, "StatefulSet");
    let Some(old) = old_spec else { return };
    for key in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
        immutable(errors, at(spec, key), at(old, key), &SPEC.child(key));
    }
}

/// Counts of a status: none negative, none above what it is part of.
pub(super) fn status(errors: &mut Errors, kind: &str, new: &Tree, old: &Tree) {
    let status = at(new, "status");
    let count = |key: &str| int(status, key).unwrap_or(0);
    let fields: &[&str] = match kind {
        "Deployment" => &["observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas", "collisionCount"],
        "ReplicaSet" | "ReplicationController" => &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
        "StatefulSet" => &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas", "observedGeneration", "collisionCount"],
        "DaemonSet" => &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        _ => return,
    };
    for key in fields {
        non_negative(errors, int(status, key), &STATUS.child(key));
    }
    let above: &[&str] = match kind {
        "Deployment" => &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "ReplicaSet" | "ReplicationController" => &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "StatefulSet" => &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        _ => &[],
    };
    for key in above.iter().filter(|k| count(k) > count("replicas")) {
        errors.push(FieldError::invalid(STATUS.child(key), count(key), "cannot be greater than status.replicas"));
    }
    if !above.is_empty() && count("availableReplicas") > count("readyReplicas") {
        let detail = if kind == "StatefulSet" { "cannot be greater than status.readyReplicas" } else { "cannot be greater than readyReplicas" };
        errors.push(FieldError::invalid(STATUS.child("availableReplicas"), count("availableReplicas"), detail));
    }
    let (new_count, old_count) = (int(status, "collisionCount"), int(at(old, "status"), "collisionCount"));
    if old_count.is_some_and(|old| new_count.is_none_or(|new| new < old)) {
        let value = new_count.unwrap_or(0);
        errors.push(FieldError::invalid(STATUS.child("collisionCount"), value, "cannot be decremented"));
    }
}
