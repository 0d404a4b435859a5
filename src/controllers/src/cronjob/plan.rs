//! When a CronJob has to start a job, and what its status says.
//!
//! Models syncCronJob of pkg/controller/cronjob/cronjob_controllerv2.go and utils.go, v1.37.
use std::sync::Arc;
use std::time::Duration;

use api::cron::Schedule;
use client::k8s_openapi::api::batch::v1::{CronJob, Job};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use client::{EventType, Named};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::job::finished;
use crate::ownership::controller_reference;
use crate::pods;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Wakes a little late rather than a little early, as upstream's nextScheduleDelta.
const SLACK: SignedDuration = SignedDuration::from_millis(100);
/// More missed times than these are told about.
const MISSED_MAX: i64 = 100;

pub(super) type Note = (EventType, &'static str, String);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing until the object changes.
    Rest,
    Wait(Duration),
    /// A job for this time; with `replace`, after the active ones are deleted.
    Start {
        at: Timestamp,
        replace: bool,
    },
}

/// Decides what to do now; does nothing. Events are added to `notes`.
pub(super) fn plan(cron: &CronJob, now: Timestamp, notes: &mut Vec<Note>) -> Step {
    let spec = &cron.spec;
    let mut warn = |reason: &'static str, text: String| notes.push((EventType::Warning, reason, text));
    if cron.is_deleting() {
        return Step::Rest;
    }
    if let Some(zone) = spec.time_zone.as_deref().filter(|z| TimeZone::get(z).is_err()) {
        warn("UnknownTimeZone", format!("invalid timeZone: {zone:?}: unknown time zone {zone}"));
        return Step::Rest;
    }
    if spec.suspend == Some(true) {
        return Step::Rest;
    }
    if spec.schedule.contains("TZ") {
        let docs = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/";
        let text = format!("CRON_TZ or TZ used in schedule {:?} is not officially supported, see {docs} for more details", spec.schedule);
        warn("UnsupportedSchedule", text);
    }
    let schedule = match schedule(cron) {
        Ok(schedule) => schedule,
        Err(error) => {
            warn("UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", spec.schedule));
            return Step::Rest;
        }
    };
    let Some(recent) = most_recent(cron, now, &schedule, true) else {
        let why = "time difference between two schedules is less than 1 second";
        warn("InvalidSchedule", format!("invalid schedule: {} : {why}", spec.schedule));
        return Step::Rest;
    };
    let wait = Step::Wait(until_next(cron, now, &schedule));
    let Some(at) = recent.at else { return wait };
    if recent.missed > MISSED_MAX {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        warn("TooManyMissedTimes", text.to_owned());
    }
    let deadline = spec.starting_deadline_seconds.map(|s| at.saturating_add(SignedDuration::from_secs(s)).unwrap_or(Timestamp::MAX));
    if deadline.is_some_and(|deadline| deadline < now) {
        let when = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        warn("MissSchedule", format!("Missed scheduled time to start a job: {when}"));
        return wait;
    }
    let status = cron.status.clone().unwrap_or_default();
    let active = status.active.unwrap_or_default();
    let name = job_name(cron, at);
    let is_done = status.last_schedule_time.is_some_and(|t| t.0 == at);
    if is_done || active.iter().any(|a| a.name.as_deref() == Some(&name)) {
        return wait;
    }
    let policy = spec.concurrency_policy.as_deref().unwrap_or("Allow");
    if policy == "Forbid" && !active.is_empty() {
        let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
        notes.push((EventType::Normal, "JobAlreadyActive", text.to_owned()));
        return wait;
    }
    Step::Start { at, replace: policy == "Replace" }
}

/// The schedule in the CronJob's zone.
pub(super) fn schedule(cron: &CronJob) -> Result<Schedule, api::cron::ScheduleError> {
    let spec = &cron.spec;
    match spec.time_zone.as_deref().filter(|_| !spec.schedule.contains("TZ")) {
        Some(zone) => Schedule::parse(&format!("TZ={zone} {}", spec.schedule)),
        None => Schedule::parse(&spec.schedule),
    }
}

struct Recent {
    /// Where the search began: the last start, or the creation.
    earliest: Timestamp,
    /// The latest time that has passed without a start.
    at: Option<Timestamp>,
    /// About how many have passed.
    missed: i64,
}

/// `None` for a schedule that never comes, like 31 February.
fn most_recent(cron: &CronJob, now: Timestamp, schedule: &Schedule, with_deadline: bool) -> Option<Recent> {
    let created = cron.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let mut earliest = last.or(created).unwrap_or(now);
    if let Some(seconds) = cron.spec.starting_deadline_seconds.filter(|_| with_deadline) {
        // Nothing before this point will be started any more.
        earliest = earliest.max(now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
    }
    let first = schedule.next(earliest)?;
    let second = schedule.next(first)?;
    if now < first {
        return Some(Recent { earliest, at: None, missed: 0 });
    }
    if now < second {
        return Some(Recent { earliest, at: Some(first), missed: 0 });
    }
    let period = second.duration_since(first).as_secs();
    if period < 1 {
        return None;
    }
    // A rough count: how often the first period fits. One period before the last of them the search begins, which finds the
    // exact time for uneven schedules too, and for `@every`, whose times depend on where they start.
    let missed = now.duration_since(first).as_secs() / period + 1;
    let start = first.saturating_add(SignedDuration::from_secs((missed - 2) * period)).ok()?;
    let mut at = None;
    let mut next = schedule.next(start);
    while let Some(time) = next.filter(|t| *t <= now) {
        at = Some(time);
        next = schedule.next(time);
    }
    Some(Recent { earliest, at, missed })
}

/// How long until the next time of the schedule.
pub(super) fn until_next(cron: &CronJob, now: Timestamp, schedule: &Schedule) -> Duration {
    let from = match most_recent(cron, now, schedule, false) {
        Some(Recent { at: Some(at), .. }) => at,
        Some(Recent { earliest, missed: 0, .. }) => earliest,
        _ => now,
    };
    let next = schedule.next(from).and_then(|t| t.checked_add(SLACK).ok());
    // A schedule that never comes is looked at again when the object changes; a year is as good as that.
    next.map_or(Duration::from_secs(365 * 86_400), |at| pods::until(at, now))
}

/// One name for each time, so that no time is started twice.
pub(super) fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name(), at.as_second() / 60)
}

pub(super) fn new_job(cron: &CronJob, at: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let zone = cron.spec.time_zone.as_deref().and_then(|z| TimeZone::get(z).ok()).unwrap_or(TimeZone::UTC);
    let text = at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    annotations.insert(SCHEDULED_AT.to_owned(), text.strip_suffix("+00:00").map_or(text.clone(), |t| format!("{t}Z")));
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, at)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

pub(super) fn is_active(cron: &CronJob, uid: &str) -> bool {
    cron.status.iter().flat_map(|s| s.active.iter().flatten()).any(|a| a.uid.as_deref() == Some(uid))
}

/// Takes a job off the list of active ones.
pub(super) fn deactivate(cron: &mut CronJob, uid: &str) {
    let Some(status) = &mut cron.status else { return };
    let left: Vec<_> = status.active.take().into_iter().flatten().filter(|a| a.uid.as_deref() != Some(uid)).collect();
    status.active = (!left.is_empty()).then_some(left);
}

/// Notes a finished job in the status; tells whether that changed it.
pub(super) fn note_finished(cron: &mut CronJob, job: &Job, notes: &mut Vec<Note>) -> bool {
    let Some(end) = finished(job) else { return false };
    let mut changed = false;
    if is_active(cron, job.uid()) {
        deactivate(cron, job.uid());
        let text = format!("Saw completed job: {}, condition: {}", job.name(), end.type_);
        notes.push((EventType::Normal, "SawCompletedJob", text));
        changed = true;
    }
    let completed = job.status.as_ref().and_then(|s| s.completion_time.as_ref()).filter(|_| end.type_ == "Complete");
    let status = cron.status.get_or_insert_default();
    if let Some(at) = completed
        && status.last_successful_time.as_ref().is_none_or(|known| known.0 < at.0)
    {
        status.last_successful_time = Some(Time(at.0));
        changed = true;
    }
    changed
}

/// Finished jobs beyond the limits of the history, oldest first.
pub(super) fn history(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let beyond = |end: &str, limit: Option<i32>| -> Vec<Arc<Job>> {
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
        let mut of: Vec<_> = jobs.iter().filter(|j| finished(j).is_some_and(|c| c.type_ == end)).cloned().collect();
        of.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            (start.is_none(), start, job.name().to_owned())
        });
        of.truncate(of.len().saturating_sub(limit));
        of
    };
    let mut all = beyond("Complete", cron.spec.successful_jobs_history_limit);
    all.extend(beyond("Failed", cron.spec.failed_jobs_history_limit));
    all
}
