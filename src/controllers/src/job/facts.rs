//! What is asked of a Job and its pods again and again.
use std::sync::LazyLock;

use client::Named;
use client::k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use crate::pods;

/// Keeps a pod until the job's status has counted it.
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

pub(super) fn spec(job: &Job) -> &JobSpec {
    static EMPTY: LazyLock<JobSpec> = LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

/// How many indexes an indexed job has.
pub(super) fn completions(job: &Job) -> usize {
    usize::try_from(spec(job).completions.unwrap_or(0)).unwrap_or(0)
}

pub(super) fn is_suspended(job: &Job) -> bool {
    spec(job).suspend == Some(true)
}

/// Another controller looks after the job.
pub(super) fn is_managed_elsewhere(job: &Job) -> bool {
    spec(job).managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller")
}

pub(super) fn replaces_only_failed(job: &Job) -> bool {
    spec(job).pod_replacement_policy.as_deref() == Some("Failed")
}

pub(super) fn find<'a>(conditions: Option<&'a Vec<JobCondition>>, kind: &str) -> Option<&'a JobCondition> {
    conditions?.iter().find(|c| c.type_ == kind)
}

/// The condition of this type, where it is true.
pub(super) fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    find(job.status.as_ref()?.conditions.as_ref(), kind).filter(|c| c.status == "True")
}

/// Complete or Failed.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}

pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

pub(super) fn new_condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(seconds(now)),
        last_transition_time: Some(seconds(now)),
    }
}

/// Sets a condition and tells whether that changed anything; a false one is not added where there was none.
pub(super) fn ensure(conditions: &mut Vec<JobCondition>, wanted: JobCondition) -> bool {
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(old) => {
            let same = old.status == wanted.status && old.reason == wanted.reason && old.message == wanted.message;
            if !same {
                *old = wanted;
            }
            !same
        }
        None if wanted.status != "False" => {
            conditions.push(wanted);
            true
        }
        None => false,
    }
}

pub(super) fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// Failed; or being deleted, since an orphan may never come to say that it failed.
pub(super) fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => !replaces_only_failed(job) && pod.is_deleting(),
    }
}
