//! Runs pods until enough of them have succeeded, and counts each of them once.
//!
//! Models pkg/controller/job/job_controller.go, v1.37. Left out: Workload and PodGroup objects for gang scheduling (alpha).
//! Reads Job, Pod (by controller uid, and orphans). Writes Pod, Job/status.
//! Wakes on Jobs, a second after changes of their pods (as upstream batches them), when a back-off or a deadline ends.
mod act;
mod backoff;
mod facts;
mod indexes;
mod orphans;
mod plan;
mod policy;
mod settle;
#[cfg(test)]
mod tests;
mod tracking;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::k8s_openapi::api::batch::v1::Job;
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{
    Client, Clock, Controller, Event, EventRecorder, EventType, Expectations, Informer, Named, Next, ObjectKey, Room, WorkQueue, controller_of,
};

use self::backoff::Backoff;
use self::facts::*;
use self::plan::{Action, View, assess, plan};
use self::settle::{clean, conclude, settle};
use self::tracking::{Released, Written};
use crate::context::ControllerContext;
use crate::failure::{During, Failure};
use crate::ownership::{claim_with, selector_of, selects};
use crate::pods;

pub(crate) use self::facts::finished;

const NAME: &str = "job-controller";
/// Changes of pods are looked at together, as upstream's SyncJobBatchPeriod.
const BATCH: Duration = Duration::from_secs(1);
const POISON: &str = "nothing panics while it holds the map";

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    expectations: Expectations,
    released: Released,
    written: Written,
    backoffs: Mutex<HashMap<ObjectKey, Backoff>>,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        expectations: Expectations::new(cx.clock.clone()),
        released: Released::default(),
        written: Written::default(),
        backoffs: Mutex::default(),
        jobs: cx.informers.get(),
        pods: cx.informers.get(),
        clock: cx.clock,
    });
    pods::index_by_owner(&cx.pods);
    let (jobs, pods) = (cx.jobs.clone(), cx.pods.clone());
    let main =
        Controller::new(NAME, cx.clone()).on(&jobs, on_job).on(&pods, on_pod).run(|cx, key| async move { reconcile(&cx, &key).await });
    futures::future::join(main, orphans::run(cx)).await;
}

fn is_job(owner: &OwnerReference) -> bool {
    owner.kind == "Job" && owner.api_version.starts_with("batch/")
}

/// The job that the reference means: of this name and uid.
fn resolve(cx: &Context, namespace: &str, owner: &OwnerReference) -> Option<Arc<Job>> {
    let job = cx.jobs.get(&ObjectKey::new(namespace, owner.name.clone()))?;
    (is_job(owner) && job.uid() == owner.uid).then_some(job)
}

fn on_job(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Job>) {
    let (job, key) = (event.object(), event.object().key());
    match event {
        Event::Deleted(_) => {
            forget(cx, &key);
            // Once more after the reconcile that may be under way, which may remember it anew.
            queue.add(key);
        }
        Event::Updated { old, .. } if old.metadata.generation == job.metadata.generation && finished(job).is_none() => {
            queue.add_after(key, BATCH);
        }
        _ => queue.add(key),
    }
}

fn forget(cx: &Context, key: &ObjectKey) {
    cx.expectations.forget(key);
    cx.released.forget(key);
    cx.written.forget(key);
    let mut backoffs = cx.backoffs.lock().expect(POISON);
    backoffs.remove(key);
    backoffs.give_back();
}

/// Lowers expectations and wakes the job that the pod concerns.
fn on_pod(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let (old, pod) = (event.old(), event.object());
    let is_gone = matches!(event, Event::Deleted(_));
    let owner = controller_of(&pod.metadata);
    let job = owner.and_then(|o| resolve(cx, pod.namespace(), o));
    if let Some(job) = &job {
        let key = job.key();
        match event {
            _ if is_gone || pod.is_deleting() => cx.expectations.deletion_observed(&key, pod.uid()),
            Event::Added(_) => cx.expectations.creation_observed(&key),
            _ => {}
        }
        if is_gone || !has_finalizer(pod) {
            cx.released.observed(&key, pod.uid());
        }
        queue.add_after(key, BATCH);
    }
    let before = old.and_then(|o| controller_of(&o.metadata));
    if before != owner
        && let Some(job) = before.and_then(|o| resolve(cx, pod.namespace(), o))
    {
        cx.released.observed(&job.key(), pod.uid());
        queue.add_after(job.key(), BATCH);
    }
    let changed = old.is_none_or(|o| o.metadata.labels != pod.metadata.labels || before != owner);
    if owner.is_none() && !is_gone && !pod.is_deleting() && changed {
        let takes = |job: &Job| spec(job).selector.as_ref().is_some_and(|s| selects(s, pod.metadata.labels.as_ref()));
        for job in cx.jobs.list_namespace(pod.namespace()).into_iter().filter(|j| takes(j)) {
            queue.add_after(job.key(), BATCH);
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(job) = cx.jobs.get(key) else {
        forget(cx, key);
        return Ok(Next::Wait);
    };
    if is_managed_elsewhere(&job) {
        return Ok(Next::Wait);
    }
    if finished(&job).is_some() {
        // It does nothing any more, and may stay for long.
        forget(cx, key);
        return Ok(Next::Wait);
    }
    if !cx.written.is_current(&job) {
        // The event that brings the cache up to date wakes the job; the delay is for a cache that has lost it.
        return Ok(Next::After(BATCH));
    }
    // Asked before the pods are read, so that what it allows is not older than what is seen.
    let may_act = cx.expectations.satisfied(key);
    let view = View {
        pods: owned_pods(cx, &job).await?,
        released: cx.released.of(key),
        backoff: cx.backoffs.lock().expect(POISON).get(key).copied().unwrap_or_default(),
        may_act,
        now: cx.clock.now(),
        job: started(&job, cx),
    };
    let seen = assess(&view);
    let action = plan(&view, &seen);
    let (done, result) = act::execute(cx, &job, &seen, &action).await;
    let settled = settle(&view, &seen, &action, &done);
    if let Some((reason, message)) = settled.event {
        cx.recorder.record(&*job, EventType::Normal, reason, message);
    }
    track(cx, view.job, settled, seen.backoff).await?;
    let deadline = seen.deadline.map(|at| pods::until(at, view.now) + Duration::from_millis(20));
    let retry = match action {
        Action::Wait(remaining) => Some(remaining.max(BATCH)),
        _ => None,
    };
    result.map(|()| deadline.into_iter().chain(retry).min().map_or(Next::Wait, Next::After))
}

/// The job with the start time that it has from now on.
fn started(job: &Job, cx: &Context) -> Job {
    let mut job = job.clone();
    if !is_suspended(&job) {
        job.status.get_or_insert_default().start_time.get_or_insert_with(|| cx.clock.time());
    }
    job
}

async fn owned_pods(cx: &Context, job: &Job) -> Result<Vec<Arc<Pod>>, Failure> {
    let Some(selector) = &spec(job).selector else { return Ok(Vec::new()) };
    let selector = selector_of(selector)?;
    let candidates = pods::owned_and_orphans(&cx.pods, job);
    let mut claimed = claim_with(&cx.client, job, &selector, candidates, &[FINALIZER]).await?;
    // An adopted pod has the finalizer, though the cache does not show it yet.
    for pod in &mut claimed {
        let is_adopted = controller_of(&pod.metadata).is_none();
        if is_adopted && !has_finalizer(pod) {
            Arc::make_mut(pod).metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        }
    }
    Ok(claimed)
}

/// Stores what is to be counted, takes the finalizers, counts, and concludes.
async fn track(cx: &Context, mut job: Job, mut settled: settle::Settlement, backoff: Backoff) -> Result<(), Failure> {
    let key = job.key();
    job.status = Some(settled.status.clone());
    if settled.flush {
        job = store(cx, &job).await?;
        cx.backoffs.lock().expect(POISON).insert(key.clone(), backoff);
    }
    let (released, result) = act::release_all(cx, &key, &settled.release).await;
    for uid in released {
        settled.held.remove(&uid);
    }
    let status = job.status.get_or_insert_default();
    let counted = clean(status, &settled.held);
    if result.is_err() {
        if counted {
            store(cx, &job).await?;
        }
        return result;
    }
    let concluded = conclude(status, &settled, cx.clock.now());
    if counted || concluded {
        job = store(cx, &job).await?;
    }
    if concluded {
        tell_end(cx, &job);
    }
    Ok(())
}

async fn store(cx: &Context, job: &Job) -> Result<Job, Failure> {
    let stored = cx.client.update_status(job).await.during(|| format!("update the status of Job {}", job.key()))?;
    cx.written.wrote(&stored);
    Ok(stored)
}

fn tell_end(cx: &Context, job: &Job) {
    let Some(end) = finished(job) else { return };
    if end.type_ == "Failed" {
        let (reason, message) = (end.reason.clone().unwrap_or_default(), end.message.clone().unwrap_or_default());
        return cx.recorder.record(job, EventType::Warning, &reason, message);
    }
    let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
    if spec(job).completions.is_some_and(|wanted| succeeded > wanted) {
        let message = "Too many succeeded pods running after completion count reached";
        cx.recorder.record(job, EventType::Warning, "TooManySucceededPods", message);
    }
    cx.recorder.record(job, EventType::Normal, "Completed", "Job completed");
}
