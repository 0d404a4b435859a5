//! Which steps the status of a job may take: what is finished stays so, and counts only grow.
//!
//! Models validateJobStatus and ValidateJobStatusUpdate of pkg/apis/batch/validation/validation.go, and getStatusValidationOptions of
//! pkg/registry/batch/job/strategy.go, v1.37: most rules are asked only where one of their fields has changed.
use super::super::check::*;
use super::indexes;
use crate::field_error::{BadValue, FieldError, Path};
use crate::tree::Tree;

const STATUS: Path<'static> = Path::new("status");

/// The status of a job, read for the rules.
struct View<'t> {
    status: &'t Tree,
    complete: bool,
    failed: bool,
    failure_target: bool,
    success_criteria: bool,
}

impl<'t> View<'t> {
    fn new(job: &'t Tree) -> Self {
        let status = at(job, "status");
        let is = |kind: &str| has(status, kind, "True");
        Self {
            status,
            complete: is("Complete"),
            failed: is("Failed"),
            failure_target: is("FailureTarget"),
            success_criteria: is("SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }

    fn count(&self, key: &str) -> i64 {
        int(self.status, key).unwrap_or(0)
    }
}

fn has(status: &Tree, kind: &str, value: &str) -> bool {
    list(status, "conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == value)
}

pub(in super::super) fn check(errors: &mut Errors, job: &Tree, old: &Tree) {
    let (new, before) = (View::new(job), View::new(old));
    numbers(errors, &new);
    let changed = |keys: &[&str]| keys.iter().any(|key| !same(at(new.status, key), at(before.status, key)));
    conditions(errors, at(job, "spec"), &new, &before);
    times(errors, job, &new, &before, &changed);
    finished(errors, job, &new, &before, &changed);
    index_texts(errors, at(job, "spec"), &new, &changed);
    if changed(&["ready", "active"]) && new.count("ready") > new.count("active") {
        errors.push(FieldError::invalid(STATUS.child("ready"), new.count("ready"), "cannot set more ready pods than active"));
    }
    let spec = at(job, "spec");
    let may_shrink = text(spec, "completionMode") == "Indexed" && same(at(spec, "completions"), at(spec, "parallelism"));
    for (key, fixed) in [("failed", true), ("succeeded", !may_shrink)] {
        if fixed && new.count(key) < before.count(key) {
            errors.push(FieldError::invalid(STATUS.child(key), new.count(key), format!("cannot decrease the {key} counter")));
        }
    }
}

fn numbers(errors: &mut Errors, new: &View) {
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        non_negative(errors, int(new.status, key), &STATUS.child(key));
    }
    let uncounted = at(new.status, "uncountedTerminatedPods");
    let path = STATUS.child("uncountedTerminatedPods");
    let mut seen = Seen::new();
    for key in ["succeeded", "failed"] {
        let path = path.child(key);
        for (i, uid) in strings(uncounted, key).into_iter().enumerate() {
            match uid {
                "" => errors.push(FieldError::invalid(path.index(i), "", "must not be empty")),
                uid if seen.contains(&uid) => errors.push(FieldError::duplicate(path.index(i), uid)),
                uid => seen.push(uid),
            }
        }
    }
}

fn conditions(errors: &mut Errors, spec: &Tree, new: &View, old: &View) {
    let complete_changed = new.complete != old.complete;
    let failed_changed = new.failed != old.failed;
    let path = STATUS.child("conditions");
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            errors.push(FieldError::invalid(path, BadValue::Omitted, detail));
        }
    };
    refuse((complete_changed || failed_changed) && new.complete && new.failed, "cannot set Complete=True and Failed=true conditions");
    refuse(
        (complete_changed || new.failure_target != old.failure_target) && new.complete && new.failure_target,
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    let indexes_changed = !same(at(new.status, "failedIndexes"), at(old.status, "failedIndexes"));
    refuse(
        (failed_changed || indexes_changed) && new.failed && !new.failure_target,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        (complete_changed || new.success_criteria != old.success_criteria) && new.complete && !new.success_criteria,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(new.success_criteria && new.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(new.success_criteria && new.failure_target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        set(spec, "successPolicy").is_some() && new.complete && !new.success_criteria,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    let lost = [
        ("Failed", old.failed && !new.failed),
        ("Complete", old.complete && !new.complete),
        ("FailureTarget", old.failure_target && !new.failure_target),
    ];
    for (kind, lost) in lost {
        refuse(lost, &format!("cannot disable the terminal {kind}=True condition"));
    }
    refuse(old.success_criteria && !new.success_criteria, "cannot disable the SuccessCriteriaMet=True condition");
    refuse(
        old.complete && !old.success_criteria && new.success_criteria,
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
}

fn times(errors: &mut Errors, job: &Tree, new: &View, old: &View, changed: &dyn Fn(&[&str]) -> bool) {
    let (start, end) = (set(new.status, "startTime"), set(new.status, "completionTime"));
    let path = STATUS.child("completionTime");
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            errors.push(FieldError::invalid(path, end, detail));
        }
    };
    let end_changed = new.complete != old.complete || changed(&["completionTime"]);
    let no_end = "cannot set completionTime when there is no Complete=True condition";
    refuse(end_changed && end.is_some() && !new.complete, no_end);
    // Times are written alike, so their texts are in their order.
    let reversed = start.zip(end).is_some_and(|(s, e)| e.as_str() < s.as_str());
    refuse(changed(&["startTime", "completionTime"]) && reversed, "must be equal to or after `startTime`");
    let moved = set(old.status, "completionTime").zip(end).is_some_and(|(before, now)| !same(before, now));
    refuse(moved, "field is immutable");
    if end_changed && end.is_none() && new.complete {
        errors.push(FieldError::required(path, "completionTime is required for Complete jobs"));
    }
    let resumes = has(old.status, "Suspended", "True") && has(new.status, "Suspended", "False");
    let suspended = flag(at(job, "spec"), "suspend");
    if changed(&["startTime"]) && !resumes && !suspended && set(old.status, "startTime").is_some() {
        let detail = "field is immutable for unsuspended job once set";
        errors.push(FieldError::invalid(STATUS.child("startTime"), start, detail));
    }
}

fn finished(errors: &mut Errors, job: &Tree, new: &View, old: &View, changed: &dyn Fn(&[&str]) -> bool) {
    if !new.finished() {
        return;
    }
    let ended = !old.finished();
    for key in ["active", "terminating"] {
        if (ended || changed(&[key])) && new.count(key) > 0 {
            let detail = format!("{key}>0 is invalid for finished job");
            errors.push(FieldError::invalid(STATUS.child(key), new.count(key), detail));
        }
    }
    let spec = at(job, "spec");
    let never_started = flag(spec, "suspend") && int(spec, "completions") == Some(0);
    if (ended || changed(&["startTime"])) && !never_started && set(new.status, "startTime").is_none() {
        errors.push(FieldError::required(STATUS.child("startTime"), "startTime is required for finished job"));
    }
    let uncounted = at(new.status, "uncountedTerminatedPods");
    let left = list(uncounted, "succeeded").len() + list(uncounted, "failed").len();
    if (ended || changed(&["uncountedTerminatedPods"])) && left > 0 {
        let path = STATUS.child("uncountedTerminatedPods");
        errors.push(FieldError::invalid(path, uncounted, "must be empty for finished job"));
    }
}

fn index_texts(errors: &mut Errors, spec: &Tree, new: &View, changed: &dyn Fn(&[&str]) -> bool) {
    let completions = int(spec, "completions");
    let (completed, failed) = (text(new.status, "completedIndexes"), set(new.status, "failedIndexes").and_then(Tree::as_str));
    let per_index = set(spec, "backoffLimitPerIndex").is_some();
    if changed(&["completedIndexes"]) {
        let path = STATUS.child("completedIndexes");
        if let Some(Err(why)) = completions.map(|n| indexes::count(completed, n)) {
            errors.push(FieldError::invalid(path, completed, format!("error parsing completedIndexes: {why}")));
        }
        if !completed.is_empty() && text(spec, "completionMode") != "Indexed" {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.push(FieldError::invalid(path, completed, detail));
        }
    }
    let Some(failed) = failed else { return };
    let path = STATUS.child("failedIndexes");
    if changed(&["failedIndexes"]) {
        if let Some(Err(why)) = completions.filter(|_| per_index).map(|n| indexes::count(failed, n)) {
            errors.push(FieldError::invalid(path, failed, format!("error parsing failedIndexes: {why}")));
        }
        if !per_index {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.push(FieldError::invalid(path, failed, detail));
        }
    }
    if changed(&["failedIndexes", "completedIndexes"])
        && let Some(index) = completions.and_then(|n| indexes::overlap(completed, failed, n))
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(path, failed, detail));
    }
}
