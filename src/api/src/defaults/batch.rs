//! Defaults of Jobs and CronJobs.
//!
//! Models pkg/apis/batch/v1/defaults.go.
use super::{absent, child, child_or_new, each, is_zero, pod, text, zero};
use crate::tree::{Object, Tree};

pub(super) fn apply(kind: &str, object: &mut Object) {
    match kind {
        "Job" => job(object),
        "CronJob" => {
            let spec = child_or_new(object, "spec");
            zero(spec, "concurrencyPolicy", "Allow");
            absent(spec, "suspend", false);
            absent(spec, "successfulJobsHistoryLimit", 3);
            absent(spec, "failedJobsHistoryLimit", 1);
            // A job template gets the defaults of its pod template only.
            let template = child_or_new(spec, "jobTemplate");
            child_or_new(template, "metadata");
            let job = child_or_new(template, "spec");
            failure_policy(job);
            pod::template(job);
        }
        _ => {}
    }
}

fn job(object: &mut Object) {
    let spec = child_or_new(object, "spec");
    let unset = |spec: &Object, key: &str| spec.get(key).is_none_or(Tree::is_null);
    if unset(spec, "completions") && unset(spec, "parallelism") {
        spec.insert("completions", 1);
    }
    absent(spec, "parallelism", 1);
    let backoff = if unset(spec, "backoffLimitPerIndex") { 6 } else { i64::from(i32::MAX) };
    absent(spec, "backoffLimit", backoff);
    absent(spec, "completionMode", "NonIndexed");
    absent(spec, "suspend", false);
    let replacement = if unset(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    absent(spec, "podReplacementPolicy", replacement);
    absent(spec, "manualSelector", false);
    failure_policy(spec);
    pod::template(spec);
    // A new job gets the labels of its template when those are complete: once it has a uid.
    if object.get("metadata").is_none_or(|metadata| metadata.get("uid").is_none_or(is_zero)) {
        return;
    }
    let spec = child_or_new(object, "spec");
    let labels = spec.get("template").and_then(|t| t.at(&["metadata", "labels"])).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some()) {
        let metadata = child_or_new(object, "metadata");
        if metadata.get("labels").is_none_or(is_zero) {
            metadata.insert("labels", labels);
        }
    }
}

fn failure_policy(spec: &mut Object) {
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                if text(pattern, "status").is_empty() {
                    pattern.insert("status", "True");
                }
            }
        }
    }
}
