//! Keeps as many pods as `spec.replicas` asks for.
//!
//! Models pkg/controller/replicaset/{replica_set.go, replica_set_utils.go}, v1.37. A ReplicationController is kept by the same
//! code, read as a ReplicaSet (see [`crate::replication`]).
//! Reads ReplicaSet, Pod (by controller uid, and orphans). Writes Pod, ReplicaSet/status.
//! Wakes on ReplicaSets, on owned pods, on orphans whose labels match, and when a ready pod becomes available.
mod plan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use client::{
    Client, Clock, Controller, Event, EventRecorder, Expectations, Informer, Kind, Named, Next, ObjectKey, WorkQueue,
    controller_of,
};

use self::plan::{Action, plan, status};
use crate::context::ControllerContext;
use crate::failure::{During, Failure};
use crate::ownership::{claim, controller_reference, is_controlled_by, selector_of, selects};
use crate::pod_control::PodControl;
use crate::pods;

const NAME: &str = "replicaset-controller";
/// Creates or deletes in one go; the rest follows when the watch has shown these.
const BURST: usize = 500;

/// A kind that asks for a number of pods of one template.
pub(crate) trait Replicated: Kind {
    fn as_replica_set(&self) -> Cow<'_, ReplicaSet>;
    fn selector(&self) -> Cow<'_, LabelSelector>;
    fn set_status(&mut self, status: ReplicaSetStatus);
    /// Whether the status has a place for pods that are going away.
    const COUNTS_TERMINATING: bool = true;
}

impl Replicated for ReplicaSet {
    fn as_replica_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }
    fn selector(&self) -> Cow<'_, LabelSelector> {
        Cow::Borrowed(&self.spec.selector)
    }
    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

struct Context<S: Replicated> {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    expectations: Expectations,
    sets: Informer<S>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(cx: ControllerContext) {
    keep::<ReplicaSet>(cx, NAME).await;
}

/// Keeps the pods of all objects of one kind, under the identity `name`.
pub(crate) async fn keep<S: Replicated>(cx: ControllerContext, name: &'static str) {
    let client = cx.client(name);
    let cx = Arc::new(Context::<S> {
        recorder: cx.recorder(&client, name),
        client,
        expectations: Expectations::new(cx.clock.clone()),
        sets: cx.informers.get(),
        pods: cx.informers.get(),
        clock: cx.clock,
    });
    pods::index_by_owner(&cx.pods);
    cx.sets.index_by_controller();
    let (sets, pods) = (cx.sets.clone(), cx.pods.clone());
    Controller::new(name, cx)
        .on(&sets, |cx, queue, event| {
            if let Event::Deleted(set) = event {
                cx.expectations.forget(&ObjectKey::of(&**set));
            }
            queue.add(ObjectKey::of(&**event.object()));
        })
        .on(&pods, on_pod)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// Lowers expectations and wakes whoever the pod concerns.
fn on_pod<S: Replicated>(cx: &Context<S>, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    pods::on_owned::<S>(&cx.expectations, queue, event);
    if pods::may_be_adopted_now(event) {
        let pod = event.object();
        for set in cx.sets.list_namespace(pod.namespace()) {
            if selects(&set.selector(), pod.metadata.labels.as_ref()) {
                queue.add(ObjectKey::of(&*set));
            }
        }
    }
}

async fn reconcile<S: Replicated>(cx: &Context<S>, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(owner) = cx.sets.get(key) else {
        cx.expectations.forget(key);
        return Ok(Next::Wait);
    };
    // Asked before the pods are read, so that what it allows is not older than what is seen.
    let may_act = cx.expectations.satisfied(key) && !owner.is_deleting();
    let rs = owner.as_replica_set();
    let selector = selector_of(&rs.spec.selector)?;
    let candidates = pods::owned_and_orphans(&cx.pods, &*owner);
    let going = |p: &&Arc<Pod>| S::COUNTS_TERMINATING && pods::is_terminating(p) && is_controlled_by(&***p, &*owner);
    let terminating = candidates.iter().filter(going).count();
    let active = candidates.into_iter().filter(|p| pods::is_active(p)).collect();
    let active = claim(&cx.client, &*owner, &selector, active).await?;
    let related = match may_act {
        true => related_pods(cx, &*owner),
        false => Vec::new(),
    };
    let now = cx.clock.now();
    let control =
        PodControl { client: &cx.client, recorder: &cx.recorder, expectations: &cx.expectations, owner: &*owner };
    let done = match plan(&rs, &active, &related, may_act, now) {
        Action::None => Ok(()),
        Action::Create(count) => create(&control, key, &rs, count.min(BURST)).await,
        Action::Delete(pods) => {
            let pods = &pods[..pods.len().min(BURST)];
            cx.expectations.expect_deletions(key, pods.iter().map(|p| p.uid().to_owned()));
            control.delete_all(pods).await
        }
    };
    let (status, next) = status(&rs, &active, terminating, done.as_ref().err(), now);
    if !rs.status.as_ref().is_some_and(|old| plan::same(old, &status)) {
        update_status(cx, &*owner, status).await?;
    }
    done.map(|()| next)
}

/// Pods of all sets of the same Deployment: what is doubled up on a node among them is deleted first.
fn related_pods<S: Replicated>(cx: &Context<S>, set: &S) -> Vec<Arc<Pod>> {
    let Some(owner) = controller_of(set.meta()) else { return pods::owned(&cx.pods, set) };
    let siblings = cx.sets.by_index(client::CONTROLLER_UID, &owner.uid);
    siblings.iter().flat_map(|sibling| pods::owned(&cx.pods, &**sibling)).collect()
}

async fn create<S: Replicated>(
    control: &PodControl<'_, S>,
    key: &ObjectKey,
    rs: &ReplicaSet,
    count: usize,
) -> Result<(), Failure> {
    let template = rs.spec.template.clone().unwrap_or_default();
    if template.metadata.as_ref().and_then(|m| m.labels.as_ref()).is_none_or(|l| l.is_empty()) {
        return Err(Failure::Unusable("unable to create pods, no labels".to_owned()));
    }
    let pod = pods::from_template(&template, rs.namespace(), rs.name(), controller_reference(control.owner));
    control.expectations.expect_creations(key, count);
    control.create_slowly(&vec![pod; count]).await
}

async fn update_status<S: Replicated>(cx: &Context<S>, owner: &S, status: ReplicaSetStatus) -> Result<(), Failure> {
    let key = ObjectKey::of(owner);
    let mut update = owner.clone();
    update.set_status(status.clone());
    let result = match cx.client.update_status(&update).await {
        // One more try on the newest version, as upstream's statusUpdateRetries.
        Err(error) if error.is_conflict() => {
            let mut fresh: S = cx.client.get(&key).await.during(|| format!("read {} {key} again", S::KIND))?;
            if fresh.uid() != owner.uid() {
                return Ok(());
            }
            fresh.set_status(status);
            cx.client.update_status(&fresh).await
        }
        result => result,
    };
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()).during(|| format!("update the status of {} {key}", S::KIND)),
    }
}

/// Wakes a little late rather than a little early.
const SLACK: Duration = Duration::from_millis(20);
