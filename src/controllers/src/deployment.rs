//! Moves a Deployment's pods to its newest template, at the pace its strategy allows, and remembers earlier templates.
//!
//! Models pkg/controller/deployment/{deployment_controller,sync,rolling,recreate,progress}.go and util/deployment_util.go,
//! v1.37. Left out: the deprecated rollback annotation. `pod-template-hash` is our own stable hash of the template's JSON, where
//! upstream's depends on how Go prints structs.
//! Reads Deployment, ReplicaSet, Pod. Writes ReplicaSet, Deployment/status (with the revision annotation, as upstream does).
//! Wakes on Deployments, on their ReplicaSets, on orphaned ReplicaSets that match, and when the last old pod of a Recreate is gone.
mod numbers;
mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use client::k8s_openapi::api::core::v1::Pod;
use client::{
    Client, Clock, Controller, DeleteOptions, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, WorkQueue,
    controller_of,
};

use self::plan::{Plan, Set, plan};
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::ownership::{claim, is_controlled_by, selector_of, selects};
use crate::pods;
use crate::template::equal_ignoring_hash;

const NAME: &str = "deployment-controller";
const KIND: &str = "Deployment";

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        clock: cx.clock.clone(),
        deployments: cx.informers.get(),
        replica_sets: cx.informers.get(),
        pods: cx.informers.get(),
    });
    pods::index_by_owner(&cx.pods);
    let (deployments, replica_sets, pods) = (cx.deployments.clone(), cx.replica_sets.clone(), cx.pods.clone());
    Controller::new(NAME, cx)
        .reconciles(&deployments)
        .owns::<ReplicaSet, Deployment>(&replica_sets)
        .on(&replica_sets, on_orphan)
        .on(&pods, on_pod_gone)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn on_orphan(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<ReplicaSet>) {
    let rs = event.object();
    if controller_of(&rs.metadata).is_some() || rs.is_deleting() || matches!(event, Event::Deleted(_)) {
        return;
    }
    let changed = event.old().is_none_or(|o| {
        o.metadata.labels != rs.metadata.labels || o.metadata.owner_references != rs.metadata.owner_references
    });
    for d in cx.deployments.list_namespace(rs.namespace()) {
        if changed && selects(&d.spec.selector, rs.metadata.labels.as_ref()) {
            queue.add(d.key());
        }
    }
}

/// A Recreate waits for the end of old pods, which changes no ReplicaSet.
fn on_pod_gone(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let Event::Deleted(pod) = event else { return };
    let Some(rs) = controller_of(&pod.metadata).filter(|c| c.kind == "ReplicaSet") else { return };
    let rs = cx.replica_sets.get(&ObjectKey::new(pod.namespace(), rs.name.clone()));
    let Some(owner) = rs.as_ref().and_then(|rs| controller_of(&rs.metadata)).filter(|c| c.kind == KIND) else { return };
    let key = ObjectKey::new(pod.namespace(), owner.name.clone());
    if cx.deployments.get(&key).is_some_and(|d| !numbers::is_rolling(&d)) {
        queue.add(key);
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(d) = cx.deployments.get(key) else { return Ok(Next::Wait) };
    let selector = selector_of(&d.spec.selector)?;
    if selector.is_empty() {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        cx.recorder.record(&*d, EventType::Warning, "SelectingAll", text);
        let status = DeploymentStatus { observed_generation: d.metadata.generation, ..d.status.clone().unwrap_or_default() };
        write_status(cx, &d, status, None).await?;
        return Ok(Next::Wait);
    }
    let candidates = cx.replica_sets.list_namespace(&key.namespace);
    let sets = claim(&cx.client, &*d, &selector, candidates).await?;
    let pods: Vec<_> = sets.iter().flat_map(|rs| pods::owned(&cx.pods, &**rs)).collect();
    let Plan { sets, status, revision, next } = plan(&d, &sets, &pods, cx.clock.now());
    for set in &sets {
        match execute(cx, &d, set).await? {
            Executed::Done => {}
            Executed::Collision => return collided(cx, &d).await,
            Executed::CannotCreate(failure) => {
                let status = status::create_failed(&d, status, set.rs.name(), &failure, cx.clock.now());
                write_status(cx, &d, status, None).await?;
                return Err(failure);
            }
        }
    }
    write_status(cx, &d, status, revision).await?;
    Ok(next)
}

enum Executed {
    Done,
    /// Another ReplicaSet has the name that the template's hash gives.
    Collision,
    CannotCreate(Failure),
}

async fn execute(cx: &Context, d: &Deployment, set: &Set) -> Result<Executed, Failure> {
    let (key, wanted) = (set.rs.key(), set.rs.spec.replicas.unwrap_or(0));
    let Some(original) = &set.original else { return create(cx, d, set).await };
    if set.delete {
        let options = DeleteOptions::uid(original.uid());
        unless_gone(cx.client.delete::<ReplicaSet>(&key, &options).await).during(|| format!("delete old ReplicaSet {key}"))?;
        return Ok(Executed::Done);
    }
    if set.is_unchanged(original) {
        return Ok(Executed::Done);
    }
    cx.client.update(&set.rs).await.during(|| format!("update ReplicaSet {key}"))?;
    let had = original.spec.replicas.unwrap_or(0);
    if had != wanted {
        let way = if had < wanted { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {had} to {wanted}", key.name);
        cx.recorder.record(d, EventType::Normal, "ScalingReplicaSet", message);
    }
    Ok(Executed::Done)
}

async fn create(cx: &Context, d: &Deployment, set: &Set) -> Result<Executed, Failure> {
    let (key, wanted) = (set.rs.key(), set.rs.spec.replicas.unwrap_or(0));
    let error = match cx.client.create(&set.rs).await {
        Ok(_) => {
            if wanted > 0 {
                let message = format!("Scaled up replica set {} from 0 to {wanted}", key.name);
                cx.recorder.record(d, EventType::Normal, "ScalingReplicaSet", message);
            }
            return Ok(Executed::Done);
        }
        Err(error) => error,
    };
    if error.is_already_exists() {
        // Made by us and not in the cache yet, or somebody else's.
        let found: ReplicaSet = cx.client.get(&key).await.during(|| format!("read ReplicaSet {key}"))?;
        let template = found.spec.template.clone().unwrap_or_default();
        let ours = is_controlled_by(&found, d) && equal_ignoring_hash(&template, &d.spec.template);
        return Ok(if ours { Executed::Done } else { Executed::Collision });
    }
    if error.is_namespace_terminating() {
        return Ok(Executed::Done);
    }
    let message = format!("Failed to create new replica set {:?}: {error}", key.name);
    cx.recorder.record(d, EventType::Warning, "ReplicaSetCreateError", message);
    Ok(Executed::CannotCreate(Failure::Api { step: format!("create ReplicaSet {key}"), source: error }))
}

/// The next try hashes the template together with the new count; it starts when the watch shows the new status.
async fn collided(cx: &Context, d: &Deployment) -> Result<Next, Failure> {
    let mut status = d.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    write_status(cx, d, status, None).await?;
    Ok(Next::Wait)
}

async fn write_status(
    cx: &Context,
    d: &Deployment,
    status: DeploymentStatus,
    revision: Option<String>,
) -> Result<(), Failure> {
    let revision = revision.filter(|r| d.annotation(revision::REVISION) != Some(r));
    if revision.is_none() && d.status.as_ref().is_some_and(|old| status::same(old, &status)) {
        return Ok(());
    }
    let mut update = d.clone();
    update.status = Some(status);
    if let Some(revision) = &revision {
        update.metadata.annotations.get_or_insert_default().insert(revision::REVISION.to_owned(), revision.clone());
    }
    let step = || format!("update the status of Deployment {}", d.key());
    let Some(mut written) = unless_gone(cx.client.update_status(&update).await).during(step)? else { return Ok(()) };
    // A status update carries annotations too, by upstream's strategy for Deployments; other servers may not.
    if let Some(revision) = revision.filter(|r| written.annotation(revision::REVISION) != Some(r)) {
        written.metadata.annotations.get_or_insert_default().insert(revision::REVISION.to_owned(), revision);
        unless_gone(cx.client.update(&written).await).during(|| format!("annotate Deployment {}", d.key()))?;
    }
    Ok(())
}
