//! Jobs and CronJobs.
//!
//! Models pkg/apis/batch/validation/validation.go. Left out: the parts of `podFailurePolicy` and `successPolicy` beyond their shape.
use super::check::*;
use super::pod;
use crate::cron::Schedule;
use crate::field_error::{FieldError, Path};
use crate::selector::LabelSelector;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "Job" => job(errors, new, old),
        "CronJob" => cron_job(errors, new, old),
        _ => {}
    }
}

fn job(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    if old.is_none() {
        generated_selector(errors, new);
    }
    job_spec(errors, spec, &SPEC);
    let path = SPEC.child("selector");
    if at(spec, "selector").is_null() {
        errors.push(FieldError::required(path, ""));
    } else {
        label_selector(errors, at(spec, "selector"), &path);
    }
    if let Ok(selector) = LabelSelector::from_tree(spec.get("selector")) {
        let labels = at(spec, "template").at(&["metadata", "labels"]);
        if !selector.matches_tree(labels) {
            let path = SPEC.child("template");
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(path.child("metadata").child("labels"), labels, detail));
        }
    }
    let Some(old) = old.map(|o| at(o, "spec")) else { return };
    // An indexed job may be resized when completions and parallelism change together.
    let resized = text(spec, "completionMode") == "Indexed" && same(at(spec, "completions"), at(spec, "parallelism"));
    if !resized {
        immutable(errors, at(spec, "completions"), at(old, "completions"), &SPEC.child("completions"));
    }
    immutable(errors, at(spec, "selector"), at(old, "selector"), &SPEC.child("selector"));
    template_immutable(errors, spec, old);
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(errors, at(spec, key), at(old, key), &SPEC.child(key));
    }
}

/// While a job is suspended, where its pods may run can still change.
fn template_immutable(errors: &mut Errors, spec: &Tree, old: &Tree) {
    let mut munged = at(spec, "template").clone();
    if flag(old, "suspend") {
        let old_template = at(old, "template");
        let free: [&[&str]; 5] = [
            &["metadata", "labels"],
            &["metadata", "annotations"],
            &["spec", "affinity"],
            &["spec", "nodeSelector"],
            &["spec", "tolerations"],
        ];
        for path in free.into_iter().chain([["spec", "schedulingGates"].as_slice()]) {
            match old_template.at(path) {
                Some(value) => munged.set(path, value.clone()),
                None => {
                    munged.remove(path);
                }
            }
        }
    }
    if !same(&munged, at(old, "template")) {
        errors.push(FieldError::invalid(SPEC.child("template"), at(spec, "template"), IMMUTABLE));
    }
}

fn generated_selector(errors: &mut Errors, job: &Tree) {
    let spec = at(job, "spec");
    if flag(spec, "manualSelector") || at(spec, "selector").is_null() {
        return;
    }
    let uid = job.str_at(&["metadata", "uid"]);
    let name = job.str_at(&["metadata", "name"]);
    if uid.is_empty() {
        errors.push(FieldError::required(Path::new("metadata").child("uid"), ""));
    }
    let labels = at(spec, "template").at(&["metadata", "labels"]);
    let template = SPEC.child("template");
    let metadata = template.child("metadata");
    let path = metadata.child("labels");
    let wanted = [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ];
    for (key, value) in wanted {
        match labels.and_then(|l| l.get(key)).map(|v| v.as_str().unwrap_or("")) {
            None => errors.push(FieldError::required(path.key(key), format!("must be '{value}'"))),
            Some(found) if found != value => {
                errors.push(FieldError::invalid(path.key(key), labels, format!("must be '{value}'")));
            }
            Some(_) => {}
        }
    }
    if let Ok(selector) = LabelSelector::from_tree(spec.get("selector"))
        && !selector.matches(&|key| wanted.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)) {
            errors.push(FieldError::invalid(SPEC.child("selector"), at(spec, "selector"), "`selector` not auto-generated"));
        }
}

fn job_spec(errors: &mut Errors, spec: &Tree, path: &Path) {
    let counts = ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes"];
    for key in counts {
        non_negative(errors, int(spec, key), &path.child(key));
    }
    let mode = text(spec, "completionMode");
    one_of_or_empty(errors, mode, &["Indexed", "NonIndexed"], &path.child("completionMode"));
    if mode == "Indexed" {
        match int(spec, "completions") {
            None => {
                let detail = "when completion mode is Indexed, completions must be specified";
                errors.push(FieldError::required(path.child("completions"), detail));
            }
            Some(_) => {
                if let Some(parallelism) = int(spec, "parallelism").filter(|p| *p > 100_000) {
                    let detail = "must be less than or equal to 100000 when completion mode is Indexed";
                    errors.push(FieldError::invalid(path.child("parallelism"), parallelism, detail));
                }
            }
        }
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = int(spec, key) {
                let detail = "requires indexed completion mode";
                errors.push(FieldError::invalid(path.child(key), value, detail));
            }
        }
    }
    let template = at(spec, "template");
    let template_path = path.child("template");
    pod::template(errors, template, &template_path);
    let pod_path = template_path.child("spec");
    let policy = template.str_at(&["spec", "restartPolicy"]);
    if !matches!(policy, "OnFailure" | "Never") {
        let shown = if policy == "Always" || policy.is_empty() {
            FieldError::required(pod_path.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\"")
        } else {
            FieldError::not_supported(pod_path.child("restartPolicy"), policy, &["OnFailure", "Never"])
        };
        errors.push(shown);
    } else if policy != "Never" && set(spec, "podFailurePolicy").is_some() {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(pod_path.child("restartPolicy"), policy, detail));
    }
    if let Some(replacement) = set(spec, "podReplacementPolicy") {
        supported(errors, replacement.as_str().unwrap_or(""), &["Failed", "TerminatingOrFailed"], &path.child("podReplacementPolicy"));
    }
}

fn cron_job(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let name = new.str_at(&["metadata", "name"]);
    // Jobs are named after it with eleven characters more.
    if old.is_none() && name.len() > 52 {
        let path = Path::new("metadata");
        errors.push(FieldError::invalid(path.child("name"), name, "must be no more than 52 characters"));
    }
    let spec = at(new, "spec");
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required(SPEC.child("schedule"), ""));
    } else if let Err(error) = Schedule::parse(schedule) {
        errors.push(FieldError::invalid(SPEC.child("schedule"), schedule, error.to_string()));
    } else if (schedule.contains("TZ=") || schedule.contains("CRON_TZ=")) && old.is_none() {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(SPEC.child("schedule"), schedule, detail));
    }
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(errors, int(spec, key), &SPEC.child(key));
    }
    one_of(errors, text(spec, "concurrencyPolicy"), &["Allow", "Forbid", "Replace"], &SPEC.child("concurrencyPolicy"));
    time_zone(errors, spec);
    let template = at(spec, "jobTemplate");
    let template_path = SPEC.child("jobTemplate");
    let job_path = template_path.child("spec");
    let job = at(template, "spec");
    job_spec(errors, job, &job_path);
    if let Some(selector) = set(job, "selector") {
        errors.push(FieldError::invalid(job_path.child("selector"), selector, "`selector` will be auto-generated"));
    }
    if flag(job, "manualSelector") {
        errors.push(FieldError::not_supported(job_path.child("manualSelector"), true, &["nil", "false"]));
    }
}

fn time_zone(errors: &mut Errors, spec: &Tree) {
    let Some(zone) = set(spec, "timeZone").and_then(Tree::as_str) else { return };
    let path = SPEC.child("timeZone");
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(FieldError::invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"));
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
    }
}

pub(super) fn job_status(errors: &mut Errors, job: &Tree) {
    let status = at(job, "status");
    let path = Path::new("status");
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        non_negative(errors, int(status, key), &path.child(key));
    }
}
