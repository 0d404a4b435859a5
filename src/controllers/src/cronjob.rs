//! Starts a Job at each time of a schedule.
//!
//! Models pkg/controller/cronjob/cronjob_controllerv2.go, v1.37. Schedules without a time zone are in UTC.
//! Reads CronJob, Job (by controller uid). Writes Job, CronJob/status. Wakes on CronJobs, on their jobs, and at the next time.
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::k8s_openapi::api::batch::v1::{CronJob, Job};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{
    Client, Clock, Controller, DeleteOptions, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, Propagation, WorkQueue,
    object_reference,
};
use jiff::Timestamp;

use self::plan::{Note, Step, deactivate, history, is_active, new_job, note_finished, plan, schedule, until_next};
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::job::finished;
use crate::ownership::is_controlled_by;

const NAME: &str = "cronjob-controller";

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        cron_jobs: cx.informers.get(),
        jobs: cx.informers.get(),
        clock: cx.clock,
    });
    cx.jobs.index_by_controller();
    let (cron_jobs, jobs) = (cx.cron_jobs.clone(), cx.jobs.clone());
    Controller::new(NAME, cx)
        .on(&cron_jobs, on_cron_job)
        .owns::<Job, CronJob>(&jobs)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// A changed schedule takes effect at its next time; everything else at once.
fn on_cron_job(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<CronJob>) {
    let (cron, key) = (event.object(), event.object().key());
    let timing = |c: &CronJob| (c.spec.schedule.clone(), c.spec.time_zone.clone());
    if event.old().is_none_or(|old| timing(old) == timing(cron)) {
        return queue.add(key);
    }
    match schedule(cron) {
        Ok(schedule) => queue.add_after(key, until_next(cron, cx.clock.now(), &schedule)),
        Err(_) => {
            let text = format!("unparseable schedule for cronjob: {}", cron.spec.schedule);
            cx.recorder.record(&**cron, EventType::Warning, "UnParseableCronJobSchedule", text);
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(stored) = cx.cron_jobs.get(key) else { return Ok(Next::Wait) };
    let jobs = cx.jobs.by_index(client::CONTROLLER_UID, stored.uid());
    let mut work = Work { cron: (*stored).clone(), changed: false, next: Next::Wait };
    for job in history(&work.cron, &jobs) {
        work.delete(cx, &job).await;
    }
    // What was done is stored, though a later step failed.
    let result = sync(cx, &mut work, &jobs).await;
    if work.changed {
        cx.client.update_status(&work.cron).await.during(|| format!("update the status of CronJob {key}"))?;
    }
    result.map(|()| work.next)
}

/// One CronJob on its way through a reconcile.
struct Work {
    cron: CronJob,
    /// The status is to be stored.
    changed: bool,
    next: Next,
}

impl Work {
    /// Deletes a job and takes it off the list; tells whether it could.
    async fn delete(&mut self, cx: &Context, job: &Job) -> bool {
        let options = DeleteOptions::uid(job.uid()).propagation(Propagation::Background);
        match unless_gone(cx.client.delete::<Job>(&job.key(), &options).await) {
            Err(error) => {
                cx.recorder.record(&self.cron, EventType::Warning, "FailedDelete", format!("Deleted job: {error}"));
                false
            }
            Ok(_) => {
                deactivate(&mut self.cron, job.uid());
                self.changed = true;
                cx.recorder.record(&self.cron, EventType::Normal, "SuccessfulDelete", format!("Deleted job {}", job.name()));
                true
            }
        }
    }

    fn tell(&self, cx: &Context, notes: &mut Vec<Note>) {
        for (kind, reason, text) in notes.drain(..) {
            cx.recorder.record(&self.cron, kind, reason, text);
        }
    }
}

async fn sync(cx: &Context, work: &mut Work, jobs: &[Arc<Job>]) -> Result<(), Failure> {
    let mut notes = Vec::new();
    for job in jobs {
        if finished(job).is_some() {
            work.changed |= note_finished(&mut work.cron, job, &mut notes);
        } else if !is_active(&work.cron, job.uid()) {
            // The cache of jobs may be ahead of the cache of CronJobs.
            let key = work.cron.key();
            let fresh: CronJob = cx.client.get(&key).await.during(|| format!("check CronJob {key}"))?;
            if is_active(&fresh, job.uid()) {
                work.cron = fresh;
                continue;
            }
            let text = format!("Saw a job that the controller did not create or forgot: {}", job.name());
            notes.push((EventType::Warning, "UnexpectedJob", text));
        }
    }
    work.tell(cx, &mut notes);
    drop_missing(cx, work, jobs).await?;
    let now = cx.clock.now();
    let step = plan(&work.cron, now, &mut notes);
    work.tell(cx, &mut notes);
    match step {
        Step::Rest => Ok(()),
        Step::Wait(delay) => {
            work.next = Next::After(delay);
            Ok(())
        }
        Step::Start { at, replace } => start(cx, work, at, replace).await,
    }
}

/// Takes jobs off the list that are gone, by the server's word.
async fn drop_missing(cx: &Context, work: &mut Work, jobs: &[Arc<Job>]) -> Result<(), Failure> {
    let active: Vec<_> = work.cron.status.iter().flat_map(|s| s.active.iter().flatten()).cloned().collect();
    for reference in active {
        let uid = reference.uid.unwrap_or_default();
        if jobs.iter().any(|j| j.uid() == uid) {
            continue;
        }
        let key = ObjectKey::new(reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        let found = unless_gone(cx.client.get::<Job>(&key).await).during(|| format!("look for the active Job {key}"))?;
        if found.is_none() {
            let text = format!("Active job went missing: {}", key.name);
            cx.recorder.record(&work.cron, EventType::Normal, "MissingJob", text);
            deactivate(&mut work.cron, &uid);
            work.changed = true;
        }
    }
    Ok(())
}

async fn start(cx: &Context, work: &mut Work, at: Timestamp, replace: bool) -> Result<(), Failure> {
    if replace {
        replace_active(cx, work).await?;
    }
    let wanted = new_job(&work.cron, at);
    let job = match cx.client.create(&wanted).await {
        Ok(job) => {
            cx.recorder.record(&work.cron, EventType::Normal, "SuccessfulCreate", format!("Created job {}", job.name()));
            job
        }
        // Nothing can be created here any more.
        Err(error) if error.is_namespace_terminating() => return Ok(()),
        Err(error) if error.is_already_exists() => {
            // Ours, if it was created before a crash; else whoever made it looks after it.
            let key = wanted.key();
            let job: Job = cx.client.get(&key).await.during(|| format!("read the existing Job {key}"))?;
            if !is_controlled_by(&job, &work.cron) || is_active(&work.cron, job.uid()) {
                return Ok(());
            }
            job
        }
        Err(error) => {
            cx.recorder.record(&work.cron, EventType::Warning, "FailedCreate", format!("Error creating job: {error}"));
            return Err(error).during(|| format!("create a Job for CronJob {}", work.cron.key()));
        }
    };
    let status = work.cron.status.get_or_insert_default();
    status.active.get_or_insert_default().push(object_reference(&job));
    status.last_schedule_time = Some(Time(at));
    work.changed = true;
    if let Ok(schedule) = schedule(&work.cron) {
        work.next = Next::After(until_next(&work.cron, cx.clock.now(), &schedule));
    }
    Ok(())
}

async fn replace_active(cx: &Context, work: &mut Work) -> Result<(), Failure> {
    let active: Vec<_> = work.cron.status.iter().flat_map(|s| s.active.iter().flatten()).cloned().collect();
    for reference in active {
        let key = ObjectKey::new(reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        let job: Job = match cx.client.get(&key).await {
            Ok(job) => job,
            Err(error) => {
                cx.recorder.record(&work.cron, EventType::Warning, "FailedGet", format!("Get job: {error}"));
                return Err(error).during(|| format!("read Job {key} to replace it"));
            }
        };
        if !work.delete(cx, &job).await {
            return Err(Failure::Stale(format!("could not replace job {key}")));
        }
    }
    Ok(())
}
