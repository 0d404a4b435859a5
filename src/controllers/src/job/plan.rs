//! The decisions of the Job controller: what has happened, whether the job is over, and which pods it needs.
//!
//! Models syncJob and manageJob of pkg/controller/job/job_controller.go, v1.37.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Named;
use client::k8s_openapi::api::batch::v1::{Job, JobCondition};
use client::k8s_openapi::api::core::v1::Pod;
use jiff::{SignedDuration, Timestamp};

use super::backoff::{Backoff, remaining_of_index};
use super::facts::*;
use super::indexes::{self, Intervals, indexes_of, valid_index};
use super::policy::{pod_failure, success};
use crate::pods;

/// Creates or deletes in one go; the rest follows when the watch has shown these.
pub(super) const BURST: usize = 500;

/// What one reconcile sees.
pub(super) struct View {
    pub job: Job,
    /// All pods that the job controls.
    pub pods: Vec<Arc<Pod>>,
    /// Pods whose finalizer was taken and whose cached state does not show it yet.
    pub released: HashSet<String>,
    pub backoff: Backoff,
    /// Whether the cache shows all that was created and deleted before.
    pub may_act: bool,
    pub now: Timestamp,
}

impl View {
    /// Pods that the status has not counted.
    pub fn uncounted(&self, pod: &Pod) -> bool {
        has_finalizer(pod) && !self.released.contains(pod.uid())
    }
}

/// What the view says about the job.
pub(super) struct Assessment {
    pub active: Vec<Arc<Pod>>,
    pub succeeded: usize,
    pub failed: usize,
    pub ready: usize,
    pub terminating: usize,
    pub previous_indexes: Intervals,
    pub succeeded_indexes: Intervals,
    /// With `backoffLimitPerIndex` only.
    pub failed_indexes: Option<Intervals>,
    pub kept: HashMap<usize, Arc<Pod>>,
    pub backoff: Backoff,
    /// The job is over: FailureTarget, SuccessCriteriaMet, or Failed where FailureTarget was there before.
    pub finish: Option<JobCondition>,
    /// When `activeDeadlineSeconds` ends.
    pub deadline: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) enum Action {
    None,
    /// The job is over: these go, and keep their finalizers until they are counted.
    Finish(Vec<Arc<Pod>>),
    /// Too many; they are not counted.
    Delete(Vec<Arc<Pod>>),
    /// One pod for each, with its index where the job is indexed.
    Create(Vec<Option<usize>>),
    /// Pods are missing, but the last ones failed too lately.
    Wait(Duration),
}

/// Reads what has happened. `started` is the status's start time, set already if the job starts now.
pub(super) fn assess(view: &View) -> Assessment {
    let job = &view.job;
    let status = job.status.clone().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let (known_succeeded, known_failed) = (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
    let fresh = |known: &[String], is: &dyn Fn(&Pod) -> bool| -> Vec<Arc<Pod>> {
        let valid = |pod: &Pod| view.uncounted(pod) && (!is_indexed(job) || valid_index(job, pod).is_some());
        view.pods.iter().filter(|p| valid(p) && !known.iter().any(|uid| uid == p.uid()) && is(p)).cloned().collect()
    };
    let new_succeeded = fresh(&known_succeeded, &|p| pods::phase(p) == "Succeeded");
    let new_failed = fresh(&known_failed, &|p| is_failed(job, p));
    let counted = |n: Option<i32>| usize::try_from(n.unwrap_or(0)).unwrap_or(0);
    let active: Vec<_> = view.pods.iter().filter(|p| pods::is_active(p)).cloned().collect();
    let (previous_indexes, succeeded_indexes) = match is_indexed(job) {
        true => indexes::succeeded(job, &view.pods),
        false => Default::default(),
    };
    let per_index = is_indexed(job) && spec(job).backoff_limit_per_index.is_some();
    let failed_indexes = per_index.then(|| indexes::failed(job, &view.pods));
    let mut seen = Assessment {
        succeeded: match is_indexed(job) {
            true => succeeded_indexes.total(),
            false => counted(status.succeeded) + new_succeeded.len() + known_succeeded.len(),
        },
        failed: counted(status.failed) + new_failed.iter().filter(|p| pod_failure(job, p).counts).count() + known_failed.len(),
        ready: active.iter().filter(|p| pods::is_ready(p)).count(),
        terminating: view.pods.iter().filter(|p| pods::is_terminating(p)).count(),
        backoff: view.backoff.after(&new_succeeded, &new_failed),
        kept: HashMap::new(),
        finish: None,
        deadline: None,
        active,
        previous_indexes,
        succeeded_indexes,
        failed_indexes,
    };
    seen.finish = verdict(view, &mut seen);
    if let Some(failed) = &seen.failed_indexes {
        let candidates: Vec<_> = view.pods.iter().filter(|p| view.uncounted(p) && valid_index(job, p).is_some()).cloned().collect();
        seen.kept = indexes::kept_for_replacement(job, &candidates, &seen.active, &seen.succeeded_indexes, failed);
    }
    seen
}

/// Whether the job is over. What an earlier reconcile has decided holds; failure comes before success.
fn verdict(view: &View, seen: &mut Assessment) -> Option<JobCondition> {
    let (job, now) = (&view.job, view.now);
    if let Some(met) = condition(job, "SuccessCriteriaMet") {
        return Some(met.clone());
    }
    if let Some(target) = condition(job, "FailureTarget") {
        return Some(failed_for(target, now));
    }
    let fails = |reason: &str, message: &str| Some(new_condition("FailureTarget", "True", reason, message, now));
    let failed_pods = view.pods.iter().filter(|p| spec(job).pod_failure_policy.is_some() && is_failed(job, p));
    if let Some(message) = failed_pods.filter_map(|p| pod_failure(job, p).fails_job).next() {
        return fails("PodFailurePolicy", &message);
    }
    let limit = usize::try_from(spec(job).backoff_limit.unwrap_or(6)).unwrap_or(0);
    if seen.failed > limit || restarted_too_often(view, limit) {
        return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    seen.deadline = deadline(job);
    if seen.deadline.is_some_and(|at| at <= now) {
        return fails("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if !is_indexed(job) {
        return None;
    }
    if let Some(failed) = &seen.failed_indexes {
        let max = spec(job).max_failed_indexes.and_then(|m| usize::try_from(m).ok());
        if max.is_some_and(|max| failed.total() > max) {
            return fails("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
        }
        if failed.total() > 0 && failed.total() + seen.succeeded_indexes.total() >= completions(job) {
            return fails("FailedIndexes", "Job has failed indexes");
        }
    }
    let message = success(job, &seen.succeeded_indexes)?;
    Some(new_condition("SuccessCriteriaMet", "True", "SuccessPolicy", &message, now))
}

/// The final condition of an interim one.
pub(super) fn failed_for(target: &JobCondition, now: Timestamp) -> JobCondition {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    new_condition("Failed", "True", &text(&target.reason), &text(&target.message), now)
}

fn deadline(job: &Job) -> Option<Timestamp> {
    let start = job.status.as_ref()?.start_time.as_ref()?.0;
    let limit = spec(job).active_deadline_seconds.filter(|_| !is_suspended(job))?;
    start.checked_add(SignedDuration::from_secs(limit)).ok()
}

/// Of jobs whose containers are restarted in place the restarts count instead of the pods.
fn restarted_too_often(view: &View, limit: usize) -> bool {
    let policy = spec(&view.job).template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = view.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
    let statuses = running.filter_map(|p| p.status.as_ref());
    let containers = statuses.flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    let restarts: usize = containers.map(|c| usize::try_from(c.restart_count).unwrap_or(0)).sum();
    restarts >= limit.max(1)
}

/// Decides what to do; does nothing.
pub(super) fn plan(view: &View, seen: &Assessment) -> Action {
    let job = &view.job;
    if seen.finish.is_some() {
        return Action::Finish(seen.active.clone());
    }
    if !view.may_act || job.is_deleting() {
        return Action::None;
    }
    let active = seen.active.len();
    if is_suspended(job) {
        return Action::Delete(removals(job, &seen.active, active));
    }
    let parallelism = usize::try_from(spec(job).parallelism.unwrap_or(1)).unwrap_or(0);
    let wanted = match spec(job).completions {
        // Without a number of completions, the first success ends the creation of pods.
        None if seen.succeeded > 0 => active,
        None => parallelism,
        Some(_) => completions(job).saturating_sub(seen.succeeded).min(parallelism),
    };
    let mut surplus = removals(job, &seen.active, active.saturating_sub(wanted));
    surplus.truncate(BURST);
    if !surplus.is_empty() {
        return Action::Delete(surplus);
    }
    let terminating = if replaces_only_failed(job) { seen.terminating } else { 0 };
    match wanted.saturating_sub(terminating + active) {
        0 => Action::None,
        missing => create(view, seen, missing.min(BURST)),
    }
}

fn create(view: &View, seen: &Assessment, missing: usize) -> Action {
    let job = &view.job;
    if spec(job).backoff_limit_per_index.is_none() {
        let remaining = seen.backoff.remaining(view.now);
        if !remaining.is_zero() {
            return Action::Wait(remaining);
        }
    }
    if !is_indexed(job) {
        return Action::Create(vec![None; missing]);
    }
    let mut taken = seen.succeeded_indexes.with(indexes_of(&seen.active));
    if replaces_only_failed(job) {
        let terminating: Vec<_> = view.pods.iter().filter(|p| pods::is_terminating(p)).cloned().collect();
        taken = taken.with(indexes_of(&terminating));
    }
    if let Some(failed) = &seen.failed_indexes {
        taken = taken.merge(failed);
    }
    let pending = taken.missing(missing, completions(job));
    if spec(job).backoff_limit_per_index.is_none() {
        return Action::Create(pending.into_iter().map(Some).collect());
    }
    let (mut now, mut soonest) = (Vec::new(), None);
    for index in pending {
        match remaining_of_index(seen.kept.get(&index), view.now) {
            Duration::ZERO => now.push(Some(index)),
            remaining => soonest = Some(soonest.map_or(remaining, |s: Duration| s.min(remaining))),
        }
    }
    match (now.is_empty(), soonest) {
        (true, Some(remaining)) => Action::Wait(remaining),
        (true, None) => Action::None,
        (false, _) => Action::Create(now),
    }
}

/// At least `count` pods, and of an indexed job all that have no index of their own.
fn removals(job: &Job, active: &[Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    let (mut remove, mut left) = match is_indexed(job) {
        true => indexes::superfluous(active, completions(job)),
        false => (Vec::new(), active.to_vec()),
    };
    if remove.len() < count {
        pods::sort_by_activity(&mut left);
        left.truncate(count - remove.len());
        remove.append(&mut left);
    }
    remove
}
