//! Simulated nodes: they are Ready, renew their leases, and say of every pod at once what a kubelet would say in the end.
//!
//! A pod that is not to be restarted has succeeded as soon as it has a node; every other one runs and is ready; a deleted one is gone.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{ApiError, Client, Clock, Controller, DeleteOptions, Informer, Named, Next, ObjectKey, Patch};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::task::JoinSet;

use crate::MAKERS;

/// The label of these nodes, which the measured pods select.
pub const LABEL: &str = "rk-bench";
/// The name that pods give as their scheduler where we bind them ourselves.
pub const BINDER: &str = "rk-bench";
/// Renewals of one node's lease, as the kubelet's.
const LEASE: Duration = Duration::from_secs(10);

struct Kubelets {
    client: Client,
    nodes: usize,
    next: AtomicUsize,
    pods: Informer<Pod>,
}

fn name(i: usize) -> String {
    format!("bench-{i}")
}

/// Makes the nodes and works for them until the returned tasks are dropped.
pub async fn start(client: &Client, nodes: usize) -> anyhow::Result<JoinSet<()>> {
    let capacity = json!({"pods": "1000", "cpu": "64", "memory": "256Gi"});
    let now = Clock::system().time();
    let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}]);
    futures::stream::iter(0..nodes)
        .map(|i| {
            let labels = json!({"kubernetes.io/hostname": name(i), LABEL: "node"});
            let node = json!({"metadata": {"name": name(i), "labels": labels},
                "status": {"capacity": capacity, "allocatable": capacity, "conditions": ready}});
            let lease = json!({"metadata": {"name": name(i), "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": name(i), "leaseDurationSeconds": 40, "renewTime": Clock::system().micro_time()}});
            async move {
                client.create::<Lease>(&serde_json::from_value(lease)?).await?;
                client.create::<Node>(&serde_json::from_value(node)?).await?;
                // Admission marks each new node as not ready; where nobody takes the mark off, it would stay.
                let patch = Patch::Merge(json!({"spec": {"taints": null}}));
                client.patch::<Node>(&ObjectKey::cluster(name(i)), &patch).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(MAKERS)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<Vec<()>, _>>()?;
    let pods = Informer::<Pod>::builder(client)
        .project(|pod| {
            pod.metadata.managed_fields = None;
            pod.metadata.annotations = None;
        })
        .start();
    let cx = Arc::new(Kubelets { client: client.clone(), nodes, next: AtomicUsize::new(0), pods: pods.clone() });
    let mut tasks = JoinSet::new();
    tasks.spawn(renew(client.clone(), nodes));
    let controller = Controller::new("kubelets", cx).workers(MAKERS).reconciles(&pods);
    tasks.spawn(controller.run(|cx, key| async move { reconcile(&cx, &key).await }));
    Ok(tasks)
}

/// Renews one lease after the other, each once in [`LEASE`].
async fn renew(client: Client, nodes: usize) {
    let mut turn = tokio::time::interval(LEASE / u32::try_from(nodes).unwrap_or(u32::MAX));
    for i in (0..nodes).cycle() {
        turn.tick().await;
        let patch = Patch::Merge(json!({"spec": {"renewTime": Clock::system().micro_time()}}));
        if let Err(error) = client.patch::<Lease>(&ObjectKey::new("kube-node-lease", name(i)), &patch).await {
            eprintln!("lease of {}: {error}", name(i));
        }
    }
}

async fn reconcile(cx: &Kubelets, key: &ObjectKey) -> Result<Next, ApiError> {
    let Some(pod) = cx.pods.get(key) else { return Ok(Next::Wait) };
    let spec = pod.spec.as_ref();
    let is_ours = spec.and_then(|s| s.node_selector.as_ref()).is_some_and(|s| s.contains_key(LABEL));
    if !is_ours {
        return Ok(Next::Wait);
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let has_node = spec.is_some_and(|s| s.node_name.is_some());
    let result = if pod.is_deleting() {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::uid(pod.uid()) };
        match has_node {
            true => cx.client.delete::<Pod>(key, &options).await,
            false => Ok(()),
        }
    } else if !has_node && spec.and_then(|s| s.scheduler_name.as_deref()) == Some(BINDER) {
        cx.client.bind(&pod.key(), pod.uid(), &name(cx.next.fetch_add(1, Ordering::Relaxed) % cx.nodes)).await
    } else if has_node && phase == "Pending" {
        cx.client.patch_status::<Pod>(key, &Patch::Strategic(told(&pod))).await.map(drop)
    } else {
        Ok(())
    };
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(Next::Wait),
        result => result.map(|()| Next::Wait),
    }
}

/// The status of a pod that runs, or has done what it was to do.
fn told(pod: &Pod) -> serde_json::Value {
    let now = Clock::system().time();
    let ends = pod.spec.as_ref().is_some_and(|s| s.restart_policy.as_deref() == Some("Never"));
    let (phase, ready) = if ends { ("Succeeded", "False") } else { ("Running", "True") };
    let state = match ends {
        true => json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}),
        false => json!({"running": {"startedAt": now}}),
    };
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": now});
    let conditions = [condition("Initialized", "True"), condition("ContainersReady", ready), condition("Ready", ready)];
    let container = json!({"name": "c", "image": "none", "imageID": "none", "ready": !ends, "restartCount": 0, "state": state});
    json!({"metadata": {"uid": pod.uid()},
        "status": {"phase": phase, "startTime": now, "conditions": conditions, "containerStatuses": [container]}})
}
