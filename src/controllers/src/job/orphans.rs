//! Pods with the tracking finalizer that no job will count any more: their finalizer is taken, so that they can go.
//!
//! Models syncOrphanPod of pkg/controller/job/job_controller.go, v1.37.
use std::sync::Arc;

use client::k8s_openapi::api::batch::v1::Job;
use client::k8s_openapi::api::core::v1::Pod;
use client::{Controller, Event, Named, Next, ObjectKey, WorkQueue, controller_of};

use super::act::release;
use super::facts::{finished, has_finalizer, is_managed_elsewhere, spec};
use super::{Context, is_job, resolve};
use crate::failure::Failure;
use crate::ownership::selects;
use crate::pods;

pub(super) async fn run(cx: Arc<Context>) {
    let (jobs, pods) = (cx.jobs.clone(), cx.pods.clone());
    Controller::new("job-controller-orphans", cx)
        .on(&jobs, on_job)
        .on(&pods, |cx, queue, event| {
            let pod = event.object();
            if !matches!(event, Event::Deleted(_)) && is_orphan(cx, pod) {
                queue.add(pod.key());
            }
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// A job that is over or gone leaves its pods behind; by the time it is over they should have no finalizer.
fn on_job(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Job>) {
    let job = event.object();
    if !matches!(event, Event::Deleted(_)) && finished(job).is_none() {
        return;
    }
    let selector = spec(job).selector.as_ref();
    for pod in pods::owned_and_orphans(&cx.pods, &**job) {
        if has_finalizer(&pod) && selector.is_some_and(|s| selects(s, pod.metadata.labels.as_ref())) {
            queue.add(pod.key());
        }
    }
}

fn is_orphan(cx: &Context, pod: &Pod) -> bool {
    if !has_finalizer(pod) {
        return false;
    }
    match controller_of(&pod.metadata) {
        None => true,
        Some(owner) if !is_job(owner) => false,
        Some(owner) => match resolve(cx, pod.namespace(), owner) {
            None => true,
            Some(job) => !is_managed_elsewhere(&job) && finished(&job).is_some(),
        },
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(pod) = cx.pods.get(key) else { return Ok(Next::Wait) };
    if is_orphan(cx, &pod) {
        release(cx, &pod).await?;
    }
    Ok(Next::Wait)
}
