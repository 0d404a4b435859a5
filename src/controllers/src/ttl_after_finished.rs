//! Deletes finished Jobs when `ttlSecondsAfterFinished` is over.
//!
//! Models pkg/controller/ttlafterfinished/ttlafterfinished_controller.go, v1.37.
//! Reads Job. Deletes Jobs, their pods first. Wakes on Jobs, and when a time is over.
use std::sync::Arc;

use client::k8s_openapi::api::batch::v1::Job;
use client::{Client, Clock, Controller, DeleteOptions, Event, Informer, Named, Next, ObjectKey, Propagation};
use jiff::{SignedDuration, Timestamp};

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::{job, pods};

const NAME: &str = "ttl-after-finished-controller";

struct Context {
    client: Client,
    clock: Clock,
    jobs: Informer<Job>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context { client: cx.client(NAME), jobs: cx.informers.get(), clock: cx.clock });
    let jobs = cx.jobs.clone();
    Controller::new(NAME, cx)
        .watches(&jobs, |_, event| match event {
            Event::Deleted(_) => Vec::new(),
            event => expires_at(event.object()).map(|_| event.object().key()).into_iter().collect(),
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// When a finished job is to go; `None` where it may stay.
fn expires_at(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished.filter(|_| !job.is_deleting())?;
    let finished = job::finished(job)?.last_transition_time.as_ref()?.0;
    finished.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(at) = cx.jobs.get(key).and_then(|job| expires_at(&job)) else { return Ok(Next::Wait) };
    if at > cx.clock.now() {
        return Ok(Next::After(pods::until(at, cx.clock.now())));
    }
    // The time may have been changed since: the last word is the server's.
    let fresh = unless_gone(cx.client.get::<Job>(key).await).during(|| format!("check Job {key} before its deletion"))?;
    let Some((fresh, at)) = fresh.and_then(|job| expires_at(&job).map(|at| (job, at))) else { return Ok(Next::Wait) };
    if at > cx.clock.now() {
        return Ok(Next::After(pods::until(at, cx.clock.now())));
    }
    let options = DeleteOptions::uid(fresh.uid()).propagation(Propagation::Foreground);
    unless_gone(cx.client.delete::<Job>(key, &options).await).during(|| format!("delete the finished Job {key}"))?;
    Ok(Next::Wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finished_job_with_a_ttl_expires() {
        let job = |ttl: Option<i32>, condition: &str| -> Job {
            let conditions = serde_json::json!([{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
            let spec = serde_json::json!({"ttlSecondsAfterFinished": ttl, "template": {}});
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec, "status": {"conditions": conditions}})).unwrap()
        };
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(expires_at(&job(Some(90), "Complete")), at("2026-01-01T00:01:30Z"));
        assert_eq!(expires_at(&job(Some(0), "Failed")), at("2026-01-01T00:00:00Z"));
        assert_eq!(expires_at(&job(Some(0), "FailureTarget")), None);
        assert_eq!(expires_at(&job(None, "Complete")), None);
    }
}
