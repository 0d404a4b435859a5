//! Jobs and CronJobs.
//!
//! Models pkg/apis/batch/validation/validation.go. Left out: `scheduling` (alpha).
mod indexes;
pub(super) mod job_status;
mod policies;
#[cfg(test)]
mod tests;

use super::check::*;
use super::pod;
use crate::cron::Schedule;
use crate::field_error::{FieldError, Path};
use crate::names;
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

/// The pods of an indexed Job have host names with their index. Models validateNameAllowsCompletions.
fn room_for_indexes(errors: &mut Errors, job: &Tree) {
    let (spec, name) = (at(job, "spec"), job.str_at(&["metadata", "name"]));
    let Some(completions) = int(spec, "completions").filter(|n| *n > 0 && text(spec, "completionMode") == "Indexed") else { return };
    let host = format!("{name}-{}", completions - 1);
    if !names::dns1123_label(&host).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {host}");
        errors.push(FieldError::invalid(Path::new("metadata").child("name"), name, detail));
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
    let Some(old_job) = old else { return room_for_indexes(errors, new) };
    let old = at(old_job, "spec");
    // An indexed job may be resized when completions and parallelism change together.
    let (completions, path) = (at(spec, "completions"), SPEC.child("completions"));
    if text(spec, "completionMode") != "Indexed" {
        immutable(errors, completions, at(old, "completions"), &path);
    } else if !same(completions, at(old, "completions")) && !same(completions, at(spec, "parallelism")) {
        errors.push(FieldError::invalid(path, completions, "can only be modified in tandem with spec.parallelism"));
    }
    immutable(errors, at(spec, "selector"), at(old, "selector"), &SPEC.child("selector"));
    template_immutable(errors, new, old_job);
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(errors, at(spec, key), at(old, key), &SPEC.child(key));
    }
}

/// While a job is suspended and has no pods, what its pods ask for and where they may run can still change.
fn template_immutable(errors: &mut Errors, new: &Tree, old: &Tree) {
    let (spec, old_spec) = (at(new, "spec"), at(old, "spec"));
    let status = at(old, "status");
    let told = list(status, "conditions").iter().any(|c| text(c, "type") == "Suspended" && text(c, "status") == "True");
    let idle = (set(status, "startTime").is_none() || told) && int(status, "active").unwrap_or(0) == 0;
    let (template, mut allowed) = (at(spec, "template"), at(old_spec, "template").clone());
    if !(flag(old_spec, "suspend") && idle) {
        return immutable(errors, template, &allowed, &SPEC.child("template"));
    }
    let free: [&[&str]; 6] = [
        &["metadata", "labels"],
        &["metadata", "annotations"],
        &["spec", "affinity", "nodeAffinity"],
        &["spec", "nodeSelector"],
        &["spec", "tolerations"],
        &["spec", "schedulingGates"],
    ];
    for path in free {
        match template.at(path) {
            Some(value) => allowed.set(path, value.clone()),
            None => drop(allowed.remove(path)),
        }
    }
    for key in ["containers", "initContainers"] {
        let wanted = list(at(template, "spec"), key);
        let Some(containers) = allowed.at_mut(&["spec", key]).and_then(Tree::as_array_mut) else { continue };
        if containers.len() != wanted.len() {
            continue;
        }
        for (container, wanted) in containers.iter_mut().zip(wanted).filter(|(c, w)| text(c, "name") == text(w, "name")) {
            match wanted.get("resources") {
                Some(resources) => container.set(&["resources"], resources.clone()),
                None => drop(container.remove(&["resources"])),
            }
        }
    }
    immutable(errors, at(template, "spec"), at(&allowed, "spec"), &SPEC.child("template").child("spec"));
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
    let wanted =
        [("batch.kubernetes.io/controller-uid", uid), ("batch.kubernetes.io/job-name", name), ("controller-uid", uid), ("job-name", name)];
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
        && !selector.matches(&|key| wanted.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    {
        errors.push(FieldError::invalid(SPEC.child("selector"), at(spec, "selector"), "`selector` not auto-generated"));
    }
}

fn job_spec(errors: &mut Errors, spec: &Tree, path: &Path) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for key in counts {
        non_negative(errors, int(spec, key), &path.child(key));
    }
    let (completions, parallelism, max_failed) = (int(spec, "completions"), int(spec, "parallelism"), int(spec, "maxFailedIndexes"));
    let per_index = set(spec, "backoffLimitPerIndex").is_some();
    if max_failed.is_some() && !per_index {
        errors.push(FieldError::required(path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(by) = set(spec, "managedBy").and_then(Tree::as_str) {
        managed_by(errors, by, &path.child("managedBy"));
    }
    let mode = text(spec, "completionMode");
    if set(spec, "completionMode").is_some() {
        supported(errors, mode, &["NonIndexed", "Indexed"], &path.child("completionMode"));
    }
    if mode == "Indexed" {
        if completions.is_none() {
            errors.push(FieldError::required(path.child("completions"), "when completion mode is Indexed"));
        }
        let mut at_most = |key: &str, value: Option<i64>, max: i64, detail: &str| {
            if let Some(value) = value.filter(|v| *v > max) {
                errors.push(FieldError::invalid(path.child(key), value, detail));
            }
        };
        let detail = "must be less than or equal to 100000 when completion mode is Indexed";
        at_most("parallelism", parallelism, 100_000, detail);
        at_most("maxFailedIndexes", max_failed, completions.unwrap_or(i64::MAX), "must be less than or equal to completions");
        at_most("maxFailedIndexes", max_failed, 100_000, "must be less than or equal to 100000");
        if per_index && completions.is_some_and(|n| n > 100_000) {
            let detail = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
            at_most("parallelism", parallelism, 10_000, detail);
            at_most("maxFailedIndexes", max_failed, 10_000, detail);
            if max_failed.is_none() {
                let detail = "must be specified when completions is above 100000";
                errors.push(FieldError::required(path.child("maxFailedIndexes"), detail));
            }
        }
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = int(spec, key) {
                errors.push(FieldError::invalid(path.child(key), value, "requires indexed completion mode"));
            }
        }
    }
    policies::check(errors, spec, path);
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
}

/// `example.com/controller`
fn managed_by(errors: &mut Errors, by: &str, path: &Path) {
    const BYTES_MAX: usize = 63;
    match by.split_once('/') {
        _ if by.is_empty() => errors.push(FieldError::required(path, "")),
        Some((domain, name)) if !name.is_empty() => dns_subdomain(errors, domain, path),
        _ => errors.push(FieldError::invalid(path, by, "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
    if by.len() > BYTES_MAX {
        errors.push(FieldError::too_long(path, BYTES_MAX));
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
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(FieldError::invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
    }
}
