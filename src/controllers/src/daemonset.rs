//! Keeps one pod on every node that a DaemonSet's template fits.
//!
//! Models pkg/controller/daemon/{daemon_controller,update}.go and util/daemonset_util.go, v1.37. A pod is bound by the
//! scheduler: the controller only gives it a node affinity that one node meets.
//! Reads DaemonSet, ControllerRevision, Pod (by controller uid, and orphans), Node. Writes Pod, ControllerRevision,
//! DaemonSet/status.
//! Wakes on DaemonSets, their revisions and pods, orphans that match, nodes that begin or cease to fit, and when a ready pod
//! becomes available or a failed one may be replaced.
mod backoff;
mod history;
mod manage;
mod nodes;
mod rolling;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use client::k8s_openapi::api::core::v1::{Node, Pod};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use client::{
    Client, Clock, Controller, Event, EventRecorder, EventType, Expectations, Informer, Named, Next, ObjectKey,
    WorkQueue, controller_of,
};
use jiff::Timestamp;

use self::backoff::FailedPods;
use self::manage::{Changes, Note, manage};
use self::nodes::{Eligibility, Fit};
use crate::context::ControllerContext;
use crate::failure::Failure;
use crate::ownership::{claim, controller_reference, owner_key, selector_of, selects};
use crate::pod_control::PodControl;
use crate::pods;

const NAME: &str = "daemon-set-controller";
/// Where its events come from.
const COMPONENT: &str = "daemonset-controller";
/// Creates, and deletes, in one go; the rest follows when the watch has shown these.
const BURST: usize = 250;

/// The pods of a DaemonSet by the node they are on or meant for.
type NodePods = BTreeMap<String, Vec<Arc<Pod>>>;

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    expectations: Expectations,
    failed: FailedPods,
    sets: Informer<DaemonSet>,
    revisions: Informer<ControllerRevision>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, COMPONENT),
        client,
        expectations: Expectations::new(cx.clock.clone()),
        failed: FailedPods::default(),
        sets: cx.informers.get(),
        revisions: cx.informers.get(),
        pods: cx.informers.get(),
        nodes: cx.informers.get(),
        clock: cx.clock,
    });
    pods::index_by_owner(&cx.pods);
    crate::history::index_by_owner(&cx.revisions);
    let (sets, revisions, pods, nodes) = (cx.sets.clone(), cx.revisions.clone(), cx.pods.clone(), cx.nodes.clone());
    Controller::new(NAME, cx)
        .on(&sets, |cx, queue, event| {
            if let Event::Deleted(ds) = event {
                cx.expectations.forget(&ds.key());
            }
            queue.add(event.object().key());
        })
        .on(&revisions, on_revision)
        .on(&pods, on_pod)
        .on(&nodes, on_node)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// A new revision that has its owner is the work of that owner, and wakes nobody.
fn on_revision(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<ControllerRevision>) {
    let revision = event.object();
    if !matches!(event, Event::Added(_)) {
        let owners = event.states().filter_map(|r| owner_key::<ControllerRevision, DaemonSet>(r));
        owners.for_each(|key| queue.add(key));
    }
    if controller_of(&revision.metadata).is_some() || matches!(event, Event::Deleted(_)) {
        return;
    }
    for ds in cx.sets.list_namespace(revision.namespace()) {
        if selects(&ds.spec.selector, revision.metadata.labels.as_ref()) {
            queue.add(ds.key());
        }
    }
}

fn on_pod(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    pods::on_owned::<DaemonSet>(&cx.expectations, queue, event);
    if pods::may_be_adopted_now(event) {
        let pod = event.object();
        for ds in cx.sets.list_namespace(pod.namespace()) {
            if selects(&ds.spec.selector, pod.metadata.labels.as_ref()) {
                queue.add(ds.key());
            }
        }
    }
}

/// Wakes the DaemonSets for which a change of a node's labels or taints means something.
fn on_node(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Node>) {
    let node = event.object();
    let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let same = |old: &Arc<Node>| old.metadata.labels == node.metadata.labels && taints(old) == taints(node);
    if matches!(event, Event::Deleted(_)) || event.old().is_some_and(same) {
        return;
    }
    for ds in cx.sets.list() {
        let eligibility = Fit::new(&ds).judge(node);
        let scheduled = pods::owned(&cx.pods, &*ds).iter().any(|p| pods::node_name(p) == node.name());
        let misscheduled = ds.status.as_ref().is_some_and(|s| s.number_misscheduled > 0);
        if eligibility == Eligibility::Runs && !scheduled
            || eligibility == Eligibility::Goes && scheduled
            || scheduled && misscheduled
        {
            queue.add(ds.key());
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(ds) = cx.sets.get(key) else {
        cx.expectations.forget(key);
        return Ok(Next::Wait);
    };
    if ds.spec.selector == LabelSelector::default() {
        let text = "This daemon set is selecting all pods. A non-empty selector is required.";
        cx.recorder.record(&*ds, EventType::Warning, "SelectingAll", text);
        return Ok(Next::Wait);
    }
    // Its revisions may be gone or orphaned by now, so that no status could be told.
    if ds.is_deleting() {
        return Ok(Next::Wait);
    }
    let revisions = history::construct(cx, &ds).await?;
    if !cx.expectations.satisfied(key) {
        // Only counted: its newest generation has not been acted on.
        let generation = ds.status.as_ref().and_then(|s| s.observed_generation);
        return status::update(cx, &ds, &revisions.hash, generation).await;
    }
    let done = act(cx, key, &ds, &revisions).await;
    let next = status::update(cx, &ds, &revisions.hash, ds.metadata.generation).await;
    Ok(sooner(done?, next?))
}

fn sooner(a: Next, b: Next) -> Next {
    match (a, b) {
        (Next::After(a), Next::After(b)) => Next::After(a.min(b)),
        (Next::Wait, next) | (next, Next::Wait) => next,
    }
}

/// One step: what is missing or superfluous, then the rollout, then the history.
async fn act(cx: &Context, key: &ObjectKey, ds: &DaemonSet, revisions: &history::Revisions) -> Result<Next, Failure> {
    let (nodes, now) = (cx.nodes.list(), cx.clock.now());
    let pods = pods_by_node(cx, ds, false).await?;
    // By the clock that nobody sets.
    let steady = cx.clock.steady();
    let failed = |node: &str| cx.failed.remaining(ds, node, steady);
    let plan = manage(ds, &nodes, &pods, &revisions.hash, &failed, now);
    note(cx, ds, &plan.notes, steady);
    sync(cx, key, ds, &revisions.hash, &plan.changes).await?;
    if cx.expectations.satisfied(key) && rolling::is_rolling(ds) {
        let pods = pods_by_node(cx, ds, false).await?;
        let changes = rolling::plan(ds, &nodes, pods, &revisions.hash, now);
        sync(cx, key, ds, &revisions.hash, &changes).await?;
    }
    let pods = pods_by_node(cx, ds, true).await?;
    history::clean_up(cx, ds, &revisions.old, &pods).await?;
    Ok(plan.next)
}

fn note(cx: &Context, ds: &DaemonSet, notes: &[Note], now: Timestamp) {
    for note in notes {
        match note {
            Note::Failed { pod, node } => {
                cx.failed.seen(ds, node, now);
                let text = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.key());
                cx.recorder.record(ds, EventType::Warning, "FailedDaemonPod", text);
            }
            Note::Succeeded { pod, node } => {
                let text = format!("Found succeeded daemon pod {} on node {node}, will try to delete it", pod.key());
                cx.recorder.record(ds, EventType::Normal, "SucceededDaemonPod", text);
            }
        }
    }
}

/// Does what was decided, as far as one burst goes.
async fn sync(cx: &Context, key: &ObjectKey, ds: &DaemonSet, hash: &str, changes: &Changes) -> Result<(), Failure> {
    let nodes = &changes.create_on[..changes.create_on.len().min(BURST)];
    let deleted = &changes.delete[..changes.delete.len().min(BURST)];
    let template = nodes::pod_template(ds, hash);
    let pods: Vec<Pod> = nodes
        .iter()
        .map(|node| {
            let mut pod = pods::from_template(&template, ds.namespace(), ds.name(), controller_reference(ds));
            nodes::pin(&mut pod, node);
            pod
        })
        .collect();
    cx.expectations.expect(key, pods.len(), deleted.iter().map(|p| p.uid().to_owned()));
    let control = PodControl { client: &cx.client, recorder: &cx.recorder, expectations: &cx.expectations, owner: ds };
    let created = control.create_slowly(&pods).await;
    control.delete_all(deleted).await?;
    created
}

/// The pods that are the DaemonSet's, after adoption and release. Pods that have ended and are being deleted are no
/// business of the controller; the history needs them `with_deleted`.
async fn pods_by_node(cx: &Context, ds: &DaemonSet, with_deleted: bool) -> Result<NodePods, Failure> {
    let selector = selector_of(&ds.spec.selector)?;
    let claimed = claim(&cx.client, ds, &selector, pods::owned_and_orphans(&cx.pods, ds)).await?;
    let mut by_node = NodePods::new();
    for pod in claimed {
        if !with_deleted && pods::is_terminated(&pod) && pod.is_deleting() {
            continue;
        }
        if let Some(node) = nodes::target(&pod) {
            by_node.entry(node.to_owned()).or_default().push(pod);
        }
    }
    Ok(by_node)
}
