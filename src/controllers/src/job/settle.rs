//! What goes into the status: finished pods pass through `uncountedTerminatedPods`, so that none is counted twice or lost.
//!
//! Models trackJobStatusAndRemoveFinalizers of pkg/controller/job/job_controller.go, v1.37. The order is what makes it safe: first
//! the uids are stored, then the finalizers go, then the uids become counts. After a crash in between, the uids say where it was.
use std::collections::HashSet;
use std::sync::Arc;

use client::Named;
use client::k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use client::k8s_openapi::api::core::v1::Pod;
use jiff::Timestamp;

use super::facts::*;
use super::indexes::{Intervals, valid_index};
use super::plan::{Action, Assessment, View, failed_for};
use super::policy::pod_failure;
use crate::pods;

/// More uids than this are not kept in a status at a time.
const UNCOUNTED_MAX: usize = 500;

/// What the execution of a plan has brought.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub created: usize,
    pub deleted: usize,
    pub deleted_ready: usize,
}

/// Steps of one status through a reconcile.
pub(super) struct Settlement {
    pub status: JobStatus,
    /// The status differs from what is stored.
    pub flush: bool,
    /// Pods that are accounted for by `status`.
    pub release: Vec<Arc<Pod>>,
    /// Uids of pods that have their finalizers.
    pub held: HashSet<String>,
    /// Complete or Failed, to be set when nothing is left to count.
    pub finish: Option<JobCondition>,
    /// More pods wait to be counted.
    pub is_full: bool,
    pub terminating: usize,
    /// Reason and message of an event.
    pub event: Option<(&'static str, &'static str)>,
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status after the plan was executed, and which pods it accounts for.
pub(super) fn settle(view: &View, seen: &Assessment, action: &Action, done: &Done) -> Settlement {
    let (job, now) = (&view.job, view.now);
    let old = job.status.clone().unwrap_or_default();
    let active = seen.active.len() + done.created - done.deleted;
    let terminating = seen.terminating + done.deleted;
    let mut settled = Settlement {
        status: old.clone(),
        flush: false,
        release: Vec::new(),
        held: view.pods.iter().filter(|p| view.uncounted(p)).map(|p| p.uid().to_owned()).collect(),
        finish: seen.finish.clone(),
        is_full: false,
        terminating,
        event: None,
    };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    match action {
        // Pods that are left, or not seen yet, keep the job from being over.
        Action::Finish(pods) if done.deleted < pods.len() || !view.may_act => settled.finish = None,
        Action::Finish(_) => {}
        _ if is_complete(view, seen, active) => {
            let message = "Reached expected number of succeeded pods";
            settled.finish = Some(new_condition("SuccessCriteriaMet", "True", "CompletionsReached", message, now));
        }
        _ if view.may_act && !job.is_deleting() => suspension(view, &mut settled, &mut conditions),
        _ => {}
    }
    let status = &mut settled.status;
    status.active = Some(count(active)).filter(|n| *n != 0);
    status.ready = Some(count(seen.ready.saturating_sub(done.deleted_ready)));
    status.terminating = Some(count(terminating));
    status.uncounted_terminated_pods.get_or_insert_default();
    settled.flush |= clean(&mut settled.status, &settled.held);
    account(view, seen, &mut settled);
    if let Some(finish) = settled.finish.take() {
        settled.finish = Some(interim(&mut conditions, finish, now));
    }
    settled.status.conditions = (!conditions.is_empty()).then_some(conditions);
    settled.flush |= !same(&settled.status, &old);
    settled
}

/// Equal, apart from the start time, which is stored together with the first other change, and absent counts are zero.
fn same(a: &JobStatus, b: &JobStatus) -> bool {
    let plain =
        |s: &JobStatus| JobStatus { start_time: None, uncounted_terminated_pods: None, active: s.active.filter(|n| *n != 0), ..s.clone() };
    let uids = |s: &JobStatus| {
        let uncounted = s.uncounted_terminated_pods.clone().unwrap_or_default();
        (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default())
    };
    plain(a) == plain(b) && uids(a) == uids(b)
}

fn is_complete(view: &View, seen: &Assessment, active: usize) -> bool {
    let enough = match spec(&view.job).completions {
        None => seen.succeeded > 0,
        Some(_) => seen.succeeded >= completions(&view.job),
    };
    enough && active == 0
}

fn suspension(view: &View, settled: &mut Settlement, conditions: &mut Vec<JobCondition>) {
    let (status, reason, message, event) = match is_suspended(&view.job) {
        true => ("True", "JobSuspended", "Job suspended", "Suspended"),
        false => ("False", "JobResumed", "Job resumed", "Resumed"),
    };
    if ensure(conditions, new_condition("Suspended", status, reason, message, view.now)) {
        settled.event = Some((event, message));
        // The deadline counts from the last time the job became active.
        settled.status.start_time = (!is_suspended(&view.job)).then(|| seconds(view.now));
    }
}

/// Stores what the job comes to before it does: the interim condition goes in, the final one is returned.
fn interim(conditions: &mut Vec<JobCondition>, finish: JobCondition, now: Timestamp) -> JobCondition {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    match finish.type_.as_str() {
        "FailureTarget" => {
            let last = failed_for(&finish, now);
            conditions.push(finish);
            last
        }
        "SuccessCriteriaMet" => {
            let last = new_condition("Complete", "True", &text(&finish.reason), &text(&finish.message), now);
            if !conditions.iter().any(|c| c.type_ == finish.type_ && c.status == "True") {
                conditions.push(finish);
            }
            last
        }
        _ => finish,
    }
}

/// Notes pods that have finished, up to a number that keeps the status small.
fn account(view: &View, seen: &Assessment, settled: &mut Settlement) {
    let job = &view.job;
    let mut pods: Vec<_> = view.pods.iter().filter(|p| view.uncounted(p)).collect();
    if is_indexed(job) {
        pods.sort_by_key(|p| super::indexes::index_of(p));
    }
    let mut new_indexes = Vec::new();
    let fails_rest = settled.finish.as_ref().is_some_and(|f| f.type_ != "SuccessCriteriaMet");
    let known = job.status.as_ref().and_then(|s| s.uncounted_terminated_pods.clone()).unwrap_or_default();
    let is_known = |list: &Option<Vec<String>>, pod: &Pod| list.iter().flatten().any(|uid| uid == pod.uid());
    for pod in pods {
        let failed = is_failed(job, pod);
        if !may_release(view, seen, settled.finish.is_some(), pod, failed) {
            continue;
        }
        settled.release.push(pod.clone());
        let uncounted = settled.status.uncounted_terminated_pods.get_or_insert_default();
        if pods::phase(pod) == "Succeeded" && !is_known(&known.failed, pod) {
            if is_indexed(job) {
                // The index itself says whether it is counted.
                new_indexes.extend(valid_index(job, pod).filter(|i| !seen.previous_indexes.has(*i)));
            } else if !is_known(&known.succeeded, pod) {
                uncounted.succeeded.get_or_insert_default().push(pod.uid().to_owned());
            }
        } else if (failed || fails_rest)
            && !is_known(&known.failed, pod)
            && (!is_indexed(job) || valid_index(job, pod).is_some())
            && pod_failure(job, pod).counts
        {
            uncounted.failed.get_or_insert_default().push(pod.uid().to_owned());
        }
        let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        if new_indexes.len() + length(&uncounted.succeeded) + length(&uncounted.failed) >= UNCOUNTED_MAX {
            settled.is_full = true;
            break;
        }
    }
    if is_indexed(job) {
        indexes_done(seen, settled, new_indexes);
    }
}

fn indexes_done(seen: &Assessment, settled: &mut Settlement, new_indexes: Vec<usize>) {
    let done: Intervals = seen.succeeded_indexes.with(new_indexes);
    let status = &mut settled.status;
    status.succeeded = Some(count(done.total())).filter(|n| *n != 0);
    status.completed_indexes = Some(done.to_string()).filter(|t| !t.is_empty());
    status.failed_indexes = seen.failed_indexes.as_ref().map(Intervals::to_string);
}

/// Pods of a job that is over go, succeeded ones too, and failed ones that no replacement has to learn from.
fn may_release(view: &View, seen: &Assessment, finishes: bool, pod: &Pod, failed: bool) -> bool {
    if view.job.is_deleting() || finishes || pods::phase(pod) == "Succeeded" {
        return true;
    }
    failed && !seen.kept.values().any(|kept| kept.uid() == pod.uid())
}

/// Turns uids of pods without a finalizer into counts, and tells whether there were any.
pub(super) fn clean(status: &mut JobStatus, held: &HashSet<String>) -> bool {
    let Some(uncounted) = status.uncounted_terminated_pods.as_mut() else { return false };
    let take = |list: &mut Option<Vec<String>>| {
        let before = list.as_ref().map_or(0, Vec::len);
        let left: Vec<_> = list.take().unwrap_or_default().into_iter().filter(|uid| held.contains(uid)).collect();
        let counted = before - left.len();
        *list = (!left.is_empty()).then_some(left);
        count(counted)
    };
    let (succeeded, failed) = (take(&mut uncounted.succeeded), take(&mut uncounted.failed));
    for (field, more) in [(&mut status.succeeded, succeeded), (&mut status.failed, failed)] {
        *field = Some(field.unwrap_or(0) + more).filter(|n| *n != 0);
    }
    succeeded + failed > 0
}

/// Sets Complete or Failed once nothing is left to count and no pod is terminating; tells whether it did.
pub(super) fn conclude(status: &mut JobStatus, settled: &Settlement, now: Timestamp) -> bool {
    let Some(finish) = settled.finish.clone() else { return false };
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let left = uncounted.succeeded.into_iter().chain(uncounted.failed).flatten().count();
    if left > 0 || settled.terminating > 0 || settled.is_full {
        return false;
    }
    let mut conditions = status.conditions.take().unwrap_or_default();
    if finish.type_ == "Complete" {
        status.completion_time = Some(seconds(now));
    }
    ensure(&mut conditions, finish);
    status.conditions = Some(conditions);
    true
}
