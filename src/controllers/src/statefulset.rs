//! Keeps a StatefulSet's pods, each with a name, a place in the order and storage of its own.
//!
//! Models pkg/controller/statefulset/{stateful_set, stateful_set_control, stateful_pod_control, stateful_set_utils}.go, v1.37.
//! What this process has written is looked for by its version before anything is decided (StaleControllerConsistencyStatefulSet). Left out: the
//! alpha strategy Recreate, which validation refuses.
//! Reads StatefulSet, ControllerRevision, Pod (by controller uid, and orphans), PersistentVolumeClaim. Writes Pod,
//! PersistentVolumeClaim, ControllerRevision, StatefulSet/status.
//! Wakes on StatefulSets, on owned pods, on orphans that match, and when a ready pod becomes available.
mod claims;
mod control;
mod identity;
mod plan;
mod revisions;
mod rolling;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use client::{Client, Clock, Controller, Event, EventRecorder, Informer, Named, Next, ObjectKey, OwnWrites, WorkQueue};

use self::plan::{Plan, plan};
use crate::context::ControllerContext;
use crate::failure::Failure;
use crate::ownership::{claim_if, selector_of, selects};
use crate::pods;

const NAME: &str = "statefulset-controller";
/// Wakes a little late rather than a little early.
const SLACK: Duration = Duration::from_millis(20);

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    writes: OwnWrites,
    sets: Informer<StatefulSet>,
    revisions: Informer<ControllerRevision>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let (sets, pods, claims) = (cx.informers.get(), cx.informers.get(), cx.informers.get());
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        writes: OwnWrites::default().seen_by(&sets).seen_by(&pods).seen_by(&claims),
        sets,
        revisions: cx.informers.get(),
        pods,
        claims,
        clock: cx.clock,
    });
    pods::index_by_owner(&cx.pods);
    crate::history::index_by_owner(&cx.revisions);
    // What wakes nobody must be there all the same before the first decision.
    cx.revisions.synced().await;
    cx.claims.synced().await;
    let (sets, pods) = (cx.sets.clone(), cx.pods.clone());
    Controller::new(NAME, cx)
        .reconciles(&sets)
        .on(&pods, on_pod)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn on_pod(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    pods::wake_owners::<StatefulSet>(queue, event);
    if pods::may_be_adopted_now(event) {
        let pod = event.object();
        for set in cx.sets.list_namespace(pod.namespace()) {
            if selects(&set.spec.selector, pod.metadata.labels.as_ref()) {
                queue.add(set.key());
            }
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    cx.writes.check(key)?;
    let Some(set) = cx.sets.get(key) else {
        cx.writes.forget(key);
        return Ok(Next::Wait);
    };
    let selector = selector_of(&set.spec.selector)?;
    let history = revisions::adopt(cx, &set, &selector).await?;
    let is_member = |pod: &Pod| {
        selector.matches_map(pod.metadata.labels.as_ref()) && identity::parent_and_ordinal(pod).0 == set.name()
    };
    let candidates = pods::owned_and_orphans(&cx.pods, &*set);
    let pods = claim_if(&cx.client, &*set, is_member, candidates, &[]).await?;
    let revisions = revisions::current_and_update(cx, &set, &history).await?;
    let now = cx.clock.now();
    let find_claim = |name: &str| cx.claims.get(&ObjectKey::new(set.namespace(), name));
    let Plan { phases, status } = plan(&set, &pods, &revisions, &find_claim, now)?;
    let acted = control::execute(cx, &set, &phases).await;
    // Told even where something failed; the first failure is the one to report.
    let told = status::update(cx, &set, status).await;
    let tidied = revisions::truncate(cx, &set, &pods, &history, &revisions).await;
    acted.and(told).and(tidied)?;
    Ok(status::next(&set, &pods, now))
}
