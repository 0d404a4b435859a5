//! Keeps as many pods as `spec.replicas` asks for.
//!
//! Models pkg/controller/replicaset/{replica_set.go, replica_set_utils.go}, v1.37. Left out: the code path shared with
//! ReplicationController.
//! Reads ReplicaSet, Pod (by controller uid, and orphans). Writes Pod, ReplicaSet/status.
//! Wakes on ReplicaSets, on owned pods, on orphans whose labels match, and when a ready pod becomes available.
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use client::k8s_openapi::api::core::v1::Pod;
use client::{
    Client, Clock, Controller, DeleteOptions, Event, EventRecorder, EventType, Expectations, Informer, Named, Next,
    ObjectKey, WorkQueue, controller_of,
};
use futures::future::join_all;

use self::plan::{Action, plan, status};
use crate::context::ControllerContext;
use crate::failure::{During, Failure};
use crate::ownership::{claim, controller_reference, selector_of, selects};
use crate::pods;

const NAME: &str = "replicaset-controller";
/// Creates or deletes in one go; the rest follows when the watch has shown these.
const BURST: usize = 500;

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    expectations: Expectations,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        expectations: Expectations::new(cx.clock.clone()),
        replica_sets: cx.informers.get(),
        pods: cx.informers.get(),
        clock: cx.clock,
    });
    pods::index_by_owner(&cx.pods);
    cx.replica_sets.index_by_controller();
    let (replica_sets, pods) = (cx.replica_sets.clone(), cx.pods.clone());
    Controller::new(NAME, cx)
        .on(&replica_sets, |cx, queue, event| {
            if let Event::Deleted(rs) = event {
                cx.expectations.forget(&rs.key());
            }
            queue.add(event.object().key());
        })
        .on(&pods, on_pod)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// The ReplicaSet that controls the pod.
fn owner(pod: &Pod) -> Option<ObjectKey> {
    let owner = controller_of(&pod.metadata)?;
    (owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/"))
        .then(|| ObjectKey::new(pod.namespace(), owner.name.clone()))
}

/// Lowers expectations and wakes whoever the pod concerns.
fn on_pod(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let (old, pod) = (event.old(), event.object());
    let gone = matches!(event, Event::Deleted(_)) || pod.is_deleting();
    let now_owner = owner(pod);
    if let Some(key) = &now_owner {
        match (gone, event) {
            // Being deleted counts as deleted; a restart may show a pod for the first time in that state.
            (true, _) => cx.expectations.deletion_observed(key, pod.uid()),
            (false, Event::Added(_)) => cx.expectations.creation_observed(key),
            _ => {}
        }
        queue.add(key.clone());
    }
    if let Some(key) = old.and_then(|o| owner(o)).filter(|k| Some(k) != now_owner.as_ref()) {
        queue.add(key);
    }
    let changed = old.is_none_or(|o| {
        o.metadata.labels != pod.metadata.labels || o.metadata.owner_references != pod.metadata.owner_references
    });
    if controller_of(&pod.metadata).is_none() && !gone && changed {
        for rs in cx.replica_sets.list_namespace(pod.namespace()) {
            if selects(&rs.spec.selector, pod.metadata.labels.as_ref()) {
                queue.add(rs.key());
            }
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(rs) = cx.replica_sets.get(key) else {
        cx.expectations.forget(key);
        return Ok(Next::Wait);
    };
    // Asked before the pods are read, so that what it allows is not older than what is seen.
    let may_act = cx.expectations.satisfied(key) && !rs.is_deleting();
    let selector = selector_of(&rs.spec.selector)?;
    let candidates = pods::owned_and_orphans(&cx.pods, &*rs);
    let terminating = candidates.iter().filter(|p| pods::is_terminating(p) && owns(&rs, p)).count();
    let active = candidates.into_iter().filter(|p| pods::is_active(p)).collect();
    let active = claim(&cx.client, &*rs, &selector, active).await?;
    let related = match may_act {
        true => related_pods(cx, &rs),
        false => Vec::new(),
    };
    let now = cx.clock.now();
    let done = match plan(&rs, &active, &related, may_act, now) {
        Action::None => Ok(()),
        Action::Create(count) => create(cx, key, &rs, count).await,
        Action::Delete(pods) => delete(cx, key, &rs, pods).await,
    };
    let (status, next) = status(&rs, &active, terminating, done.as_ref().err(), now);
    update_status(cx, &rs, status).await?;
    done.map(|()| next)
}

fn owns(rs: &ReplicaSet, pod: &Pod) -> bool {
    controller_of(&pod.metadata).is_some_and(|c| c.uid == rs.uid())
}

/// Pods of all ReplicaSets of the same Deployment: what is doubled up on a node among them is deleted first.
fn related_pods(cx: &Context, rs: &ReplicaSet) -> Vec<Arc<Pod>> {
    let Some(owner) = controller_of(&rs.metadata) else { return pods::owned(&cx.pods, rs) };
    let siblings = cx.replica_sets.by_index(client::CONTROLLER_UID, &owner.uid);
    siblings.iter().flat_map(|sibling| pods::owned(&cx.pods, &**sibling)).collect()
}

/// Creates in batches of 1, 2, 4 .., and stops with the batch in which one fails: a quota or an admission that
/// refuses one pod refuses all, and is not asked five hundred times.
async fn create(cx: &Context, key: &ObjectKey, rs: &ReplicaSet, count: usize) -> Result<(), Failure> {
    let count = count.min(BURST);
    let template = rs.spec.template.clone().unwrap_or_default();
    if template.metadata.as_ref().and_then(|m| m.labels.as_ref()).is_none_or(|l| l.is_empty()) {
        return Err(Failure::Unusable("unable to create pods, no labels".to_owned()));
    }
    let pod = pods::from_template(&template, rs.namespace(), rs.name(), controller_reference(rs));
    cx.expectations.expect_creations(key, count);
    let (mut remaining, mut batch) = (count, 1);
    while remaining > 0 {
        let results = join_all((0..batch.min(remaining)).map(|_| create_one(cx, key, rs, &pod))).await;
        remaining -= results.len();
        if let Some(failure) = results.into_iter().find_map(Result::err) {
            cx.expectations.creations_observed(key, remaining);
            return Err(failure);
        }
        batch *= 2;
    }
    Ok(())
}

async fn create_one(cx: &Context, key: &ObjectKey, rs: &ReplicaSet, pod: &Pod) -> Result<(), Failure> {
    match cx.client.create(pod).await {
        Ok(created) => {
            let message = format!("Created pod: {}", created.name());
            cx.recorder.record(rs, EventType::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(error) => {
            cx.expectations.creation_observed(key);
            if error.is_namespace_terminating() {
                // Nothing can be created here any more, and nothing needs to be.
                return Ok(());
            }
            cx.recorder.record(rs, EventType::Warning, "FailedCreate", format!("Error creating: {error}"));
            Err(error).during(|| format!("create a pod for ReplicaSet {key}"))
        }
    }
}

async fn delete(cx: &Context, key: &ObjectKey, rs: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Result<(), Failure> {
    let pods = &pods[..pods.len().min(BURST)];
    cx.expectations.expect_deletions(key, pods.iter().map(|p| p.uid().to_owned()));
    let results = join_all(pods.iter().map(|pod| delete_one(cx, key, rs, pod))).await;
    results.into_iter().find_map(Result::err).map_or(Ok(()), Err)
}

async fn delete_one(cx: &Context, key: &ObjectKey, rs: &ReplicaSet, pod: &Pod) -> Result<(), Failure> {
    match cx.client.delete::<Pod>(&pod.key(), &DeleteOptions::uid(pod.uid())).await {
        Ok(()) => {
            cx.recorder.record(rs, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
            Ok(())
        }
        Err(error) => {
            cx.expectations.deletion_observed(key, pod.uid());
            // Gone already, or another pod of that name: either way ours is no more.
            if error.is_not_found() || error.is_conflict() {
                return Ok(());
            }
            cx.recorder.record(rs, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
            Err(error).during(|| format!("delete the pod {} of {key}", pod.key()))
        }
    }
}

async fn update_status(cx: &Context, rs: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), Failure> {
    if rs.status.as_ref().is_some_and(|old| plan::same(old, &status)) {
        return Ok(());
    }
    let key = rs.key();
    let mut update = rs.clone();
    update.status = Some(status.clone());
    let result = match cx.client.update_status(&update).await {
        // One more try on the newest version, as upstream's statusUpdateRetries.
        Err(error) if error.is_conflict() => {
            let mut fresh: ReplicaSet = cx.client.get(&key).await.during(|| format!("read ReplicaSet {key} again"))?;
            if fresh.uid() != rs.uid() {
                return Ok(());
            }
            fresh.status = Some(status);
            cx.client.update_status(&fresh).await
        }
        result => result,
    };
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()).during(|| format!("update the status of ReplicaSet {key}")),
    }
}

/// Wakes a little late rather than a little early.
const SLACK: Duration = Duration::from_millis(20);
