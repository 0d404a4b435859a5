//! Notices nodes that have fallen silent, taints nodes by their conditions, and evicts pods from tainted nodes.
//!
//! Models pkg/controller/nodelifecycle/node_lifecycle_controller.go and pkg/controller/tainteviction/taint_eviction.go, v1.37. Different:
//! a timer for each node stands at the end of its grace, where upstream looks at all nodes every five seconds; the time of a
//! toleration counts from the taint's `timeAdded`, so it survives a restart; the eviction rate is one for the cluster, not for each zone.
//! Reads Node, Lease (kube-node-lease), Pod. Writes Node (taints), Node/status, Pod/status, deletes Pods.
//! Wakes on nodes, on the pods of tainted nodes, on the lease of a node that was silent, and when a grace or a toleration ends.
mod eviction;
mod health;
mod taints;
#[cfg(test)]
mod tests;

pub(crate) use self::eviction::tolerates;
pub(crate) use self::health::is_ready;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::k8s_openapi::api::coordination::v1::Lease;
use client::k8s_openapi::api::core::v1::{Node, Pod};
use client::{
    Client, Clock, Controller, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, Patch, WorkQueue,
};
use futures::future::BoxFuture;
use futures::{FutureExt, future::join};
use jiff::Timestamp;
use serde_json::json;

use self::health::{Probe, Verdict};
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

const NAME: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
/// Silence after which a node counts as unknown (`--node-monitor-grace-period`).
const GRACE: Duration = Duration::from_secs(50);
/// The same for a node that has not reported yet (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Between two nodes that are put under eviction: 0.1 a second (`--node-eviction-rate`).
const EVICTION_PAUSE: Duration = Duration::from_secs(10);
/// Pods by the node they are bound to.
pub(crate) const NODE_INDEX: &str = "node";

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    probes: Mutex<HashMap<String, Probe>>,
    /// By [`Clock::elapsed`].
    next_eviction: Mutex<Duration>,
}

const POISON: &str = "nothing panics while it holds the lock";

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        nodes: cx.informers.get(),
        pods: cx.informers.get(),
        leases: Informer::builder(cx.informers.client()).namespace(LEASES).start(),
        probes: Mutex::default(),
        next_eviction: Mutex::new(Duration::ZERO),
        clock: cx.clock,
    });
    index_by_node(&cx.pods);
    let (nodes, leases, pods) = (cx.nodes.clone(), cx.leases.clone(), cx.pods.clone());
    let evictions = Controller::new("taint-eviction-controller", cx.clone())
        .reconciles(&pods)
        .watches(&nodes, pods_of_tainted)
        .run(|cx, key| async move { eviction::reconcile(&cx, &key).await });
    let health = Controller::new(NAME, cx)
        .on(&nodes, |cx, queue, event| {
            if let Event::Deleted(node) = event {
                cx.probes.lock().expect(POISON).remove(node.name());
            }
            queue.add(event.object().key());
        })
        .on(&leases, on_lease)
        .run(|cx, key| reconcile_boxed(cx, key));
    join(evictions, health).await;
}

pub(crate) fn index_by_node(pods: &Informer<Pod>) {
    pods.add_index(NODE_INDEX, |pod: &Pod| {
        let node = pods::node_name(pod);
        if node.is_empty() { Vec::new() } else { vec![node.to_owned()] }
    });
}

/// When taints that evict have come or gone.
fn pods_of_tainted(cx: &Context, event: &Event<Node>) -> Vec<ObjectKey> {
    let evicting = |node: &Node| taints::evicting(node).cloned().collect::<Vec<_>>();
    let now = evicting(event.object());
    let same = match event.old() {
        Some(old) => evicting(old) == now,
        None => now.is_empty(),
    };
    if same {
        return Vec::new();
    }
    cx.pods.by_index(NODE_INDEX, event.object().name()).iter().map(|p| p.key()).collect()
}

/// A renewal is noted and wakes nobody, but for the node that was thought lost.
fn on_lease(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Lease>) {
    let lease = event.object();
    let key = ObjectKey::cluster(lease.name());
    let mut probes = cx.probes.lock().expect(POISON);
    let Some(probe) = probes.get_mut(lease.name()) else { return };
    let was_silent = probe.is_overdue(cx.clock.elapsed());
    if probe.saw_lease(lease, cx.clock.elapsed()) && was_silent {
        queue.add(key);
    }
}

fn reconcile_boxed(cx: Arc<Context>, key: ObjectKey) -> BoxFuture<'static, Result<Next, Failure>> {
    async move { reconcile(&cx, &key).await }.boxed()
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(node) = cx.nodes.get(key) else {
        // Who was at it when it went may have taken it up again.
        cx.probes.lock().expect(POISON).remove(&key.name);
        return Ok(Next::Wait);
    };
    let (now, elapsed) = (cx.clock.now(), cx.clock.elapsed());
    let lease = cx.leases.get(&ObjectKey::new(LEASES, key.name.clone()));
    let (overdue, due) = {
        let mut probes = cx.probes.lock().expect(POISON);
        let probe = probes.entry(key.name.clone()).or_insert_with(|| Probe::new(&node, lease.as_deref(), elapsed, now));
        probe.saw_node(&node, elapsed);
        if let Some(lease) = &lease {
            probe.saw_lease(lease, elapsed);
        }
        (probe.is_overdue(elapsed), probe.due())
    };
    let verdict = health::judge(&node, overdue, now);
    if let Some(conditions) = &verdict.conditions {
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        let result = cx.client.patch_status::<Node>(key, &patch).await;
        unless_gone(result).during(|| format!("mark node {} unknown", key.name))?;
    }
    if verdict.was_ready && !verdict.is_ready() {
        let message = format!("Node {} status is now: NodeNotReady", key.name);
        cx.recorder.record(&*node, EventType::Normal, "NodeNotReady", message);
    }
    if !verdict.is_ready() {
        mark_pods_not_ready(cx, &key.name).await?;
    }
    let wait = taint(cx, &node, &verdict, now).await?;
    let due = (!overdue).then(|| due.saturating_sub(elapsed) + Duration::from_millis(100));
    Ok([wait, due].into_iter().flatten().min().map_or(Next::Wait, Next::After))
}

/// Brings the taints in line; returns after what time to try again, where an eviction has to wait for its turn.
async fn taint(cx: &Context, node: &Node, verdict: &Verdict, now: Timestamp) -> Result<Option<Duration>, Failure> {
    let all_lost = cx.nodes.list().iter().all(|n| n.name() == node.name() || !health::is_ready(n)) && !verdict.is_ready();
    let wanted = taints::wanted(node, &verdict.ready, all_lost, now);
    let (wanted, wait) = match taints::begins_eviction(node, &wanted) {
        true => match cx.take_turn(cx.clock.elapsed()) {
            Ok(()) => (wanted, None),
            // The taint that only keeps new pods away need not wait.
            Err(wait) => (taints::without_new_eviction(node, wanted), Some(wait)),
        },
        false => (wanted, None),
    };
    if node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default() != wanted {
        let mut update = node.clone();
        update.spec.get_or_insert_default().taints = (!wanted.is_empty()).then_some(wanted);
        unless_gone(cx.client.update(&update).await).during(|| format!("update the taints of node {}", node.name()))?;
    }
    Ok(wait)
}

impl Context {
    /// The error is how long to wait.
    fn take_turn(&self, now: Duration) -> Result<(), Duration> {
        let mut next = self.next_eviction.lock().expect(POISON);
        if now < *next {
            return Err(*next - now);
        }
        *next = now.saturating_add(EVICTION_PAUSE);
        Ok(())
    }
}

/// Nobody can say that pods of a silent node are ready.
async fn mark_pods_not_ready(cx: &Context, node: &str) -> Result<(), Failure> {
    for pod in cx.pods.by_index(NODE_INDEX, node).iter().filter(|p| pods::is_ready(p)) {
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": cx.clock.time()}]}}));
        let result = cx.client.patch_status::<Pod>(&pod.key(), &patch).await;
        if unless_gone(result).during(|| format!("mark pod {} not ready", pod.key()))?.is_some() {
            cx.recorder.record(&**pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
    }
    Ok(())
}
