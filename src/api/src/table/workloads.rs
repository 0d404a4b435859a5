//! Rows of the kinds that run pods.
use jiff::Timestamp;

use super::access::{
    age, condition_is_true, containers, is_deleting, is_set, labels, length, number, selector, since, text, text_or, timestamp,
};
use super::format::human_duration;
use crate::meta;
use crate::registry::split_api_version;
use crate::selector::LabelSelector;
use crate::tree::Tree;

const TEMPLATE: [&str; 3] = ["spec", "template", "spec"];

pub(super) fn pod_template(object: &Tree, _: Timestamp) -> Vec<Tree> {
    let [names, images] = containers(object, &["template", "spec"]);
    vec![names, images, labels(object, &["template", "metadata", "labels"])]
}

pub(super) fn replication_controller(object: &Tree, now: Timestamp) -> Vec<Tree> {
    replicas(object, now, labels(object, &["spec", "selector"]))
}

pub(super) fn replica_set(object: &Tree, now: Timestamp) -> Vec<Tree> {
    replicas(object, now, selector(object, &["spec", "selector"]))
}

fn replicas(object: &Tree, now: Timestamp, selector: Tree) -> Vec<Tree> {
    let [names, images] = containers(object, &TEMPLATE);
    vec![
        number(object, &["spec", "replicas"]).into(),
        number(object, &["status", "replicas"]).into(),
        number(object, &["status", "readyReplicas"]).into(),
        age(object, now),
        names,
        images,
        selector,
    ]
}

fn ready_of_wanted(object: &Tree) -> Tree {
    format!("{}/{}", number(object, &["status", "readyReplicas"]), number(object, &["spec", "replicas"])).into()
}

pub(super) fn deployment(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let [names, images] = containers(object, &TEMPLATE);
    // Unlike other kinds, a Deployment shows an empty selector as nothing at all.
    let selector = LabelSelector::from_tree(object.at(&["spec", "selector"])).map_or("<invalid>".into(), |s| s.to_string());
    vec![
        ready_of_wanted(object),
        number(object, &["status", "updatedReplicas"]).into(),
        number(object, &["status", "availableReplicas"]).into(),
        age(object, now),
        names,
        images,
        selector.into(),
    ]
}

pub(super) fn stateful_set(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let [names, images] = containers(object, &TEMPLATE);
    vec![ready_of_wanted(object), age(object, now), names, images]
}

pub(super) fn daemon_set(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let [names, images] = containers(object, &TEMPLATE);
    let status = |field| Tree::from(number(object, &["status", field]));
    vec![
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels(object, &["spec", "template", "spec", "nodeSelector"]),
        age(object, now),
        names,
        images,
        selector(object, &["spec", "selector"]),
    ]
}

pub(super) fn job(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let succeeded = number(object, &["status", "succeeded"]);
    let parallelism = number(object, &["spec", "parallelism"]);
    let completions = match object.at(&["spec", "completions"]).and_then(Tree::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let duration = timestamp(object, &["status", "startTime"]).map_or(String::new(), |start| {
        human_duration(timestamp(object, &["status", "completionTime"]).unwrap_or(now).duration_since(start))
    });
    let status = match () {
        () if condition_is_true(object, "Complete") => "Complete",
        () if condition_is_true(object, "Failed") => "Failed",
        () if is_deleting(object) => "Terminating",
        () if condition_is_true(object, "Suspended") => "Suspended",
        () if condition_is_true(object, "FailureTarget") => "FailureTarget",
        () if condition_is_true(object, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let [names, images] = containers(object, &TEMPLATE);
    vec![status.into(), completions.into(), duration.into(), age(object, now), names, images, selector(object, &["spec", "selector"])]
}

pub(super) fn cron_job(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let last =
        if is_set(object, &["status", "lastScheduleTime"]) { since(object, &["status", "lastScheduleTime"], now) } else { "<none>".into() };
    let suspend = match object.at(&["spec", "suspend"]).and_then(Tree::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let template = ["spec", "jobTemplate", "spec", "template", "spec"];
    let [names, images] = containers(object, &template);
    vec![
        text(object, &["spec", "schedule"]),
        text_or(object, &["spec", "timeZone"], "<none>"),
        suspend.into(),
        length(object, &["status", "active"]).into(),
        last.into(),
        age(object, now),
        names,
        images,
        selector(object, &["spec", "jobTemplate", "spec", "selector"]),
    ]
}

pub(super) fn controller_revision(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let owner = meta::controller_of(object).map_or("<none>".into(), |owner| {
        let (group, _) = split_api_version(owner.api_version);
        let kind = if group.is_empty() { owner.kind.to_owned() } else { format!("{}.{group}", owner.kind) };
        format!("{}/{}", kind.to_lowercase(), owner.name)
    });
    vec![owner.into(), number(object, &["revision"]).into(), age(object, now)]
}

pub(super) fn disruption_budget(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let bound = |field| match object.at(&["spec", field]) {
        Some(Tree::String(percent)) => percent.to_string(),
        Some(Tree::Integer(count)) => count.to_string(),
        _ => "N/A".into(),
    };
    vec![
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        number(object, &["status", "disruptionsAllowed"]).into(),
        age(object, now),
    ]
}

pub(super) fn autoscaler(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let target = object.at(&["spec", "scaleTargetRef"]).unwrap_or(&Tree::Null);
    let reference = format!("{}/{}", target.str_at(&["kind"]), target.str_at(&["name"]));
    let min = object.at(&["spec", "minReplicas"]).and_then(Tree::as_i64).map_or("<unset>".into(), |n| n.to_string());
    vec![
        reference.into(),
        metrics(object).into(),
        min.into(),
        number(object, &["spec", "maxReplicas"]).into(),
        number(object, &["status", "currentReplicas"]).into(),
        age(object, now),
    ]
}

/// Models formatHPAMetrics; the one metric of autoscaling/v1 is the cpu resource.
fn metrics(object: &Tree) -> String {
    let percent = |path: &[&str]| object.at(path).and_then(Tree::as_i64).map(|n| format!("{n}%"));
    if let Some(target) = percent(&["spec", "targetCPUUtilizationPercentage"]) {
        let current = percent(&["status", "currentCPUUtilizationPercentage"]).unwrap_or("<unknown>".into());
        return format!("cpu: {current}/{target}");
    }
    let specs = object.array_at(&["spec", "metrics"]);
    let statuses = object.array_at(&["status", "currentMetrics"]);
    let mut list: Vec<String> = specs.iter().enumerate().map(|(i, spec)| metric(spec, statuses.get(i))).collect();
    match list.len() {
        0 => "<none>".into(),
        n if n > 2 => {
            list.truncate(2);
            format!("{} + {} more...", list.join(", "), n - 2)
        }
        _ => list.join(", "),
    }
}

fn metric(spec: &Tree, status: Option<&Tree>) -> String {
    let source = match spec.str_at(&["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let target = |field| spec.str_at(&[source, "target", field]);
    let current = |field: &str| match status.and_then(|s| s.at(&[source, "current", field])) {
        Some(Tree::String(quantity)) => quantity.to_string(),
        Some(Tree::Integer(n)) => format!("{n}%"),
        _ => "<unknown>".into(),
    };
    let name = match source {
        "resource" | "containerResource" => format!("{}: ", spec.str_at(&[source, "name"])),
        _ => String::new(),
    };
    let average = target("averageValue");
    match (source, average) {
        ("resource" | "containerResource", "") => {
            let wanted = number(spec, &[source, "target", "averageUtilization"]);
            let wanted = if wanted == 0 { "<auto>".into() } else { format!("{wanted}%") };
            format!("{name}{}/{wanted}", current("averageUtilization"))
        }
        ("external" | "object", "") => format!("{}/{}", current("value"), target("value")),
        ("external" | "object", average) => format!("{}/{average} (avg)", current("averageValue")),
        (_, average) => format!("{name}{}/{average}", current("averageValue")),
    }
}
