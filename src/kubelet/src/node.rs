//! This node in the API: registration, status, lease; and its network, once it has a pod CIDR.
//!
//! Models pkg/kubelet/{kubelet_node_status.go,nodestatus/setters.go} and k8s.io/component-helpers lease controller, v1.37. The
//! status is written when it has changed and every five minutes, the lease every ten seconds.

pub mod machine;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, Event as Change, Informer, ListOptions, ObjectKey, Patch, Subscription};
use ipnet::Ipv4Net;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use network::{IfName, Network, NodeConfig};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::images::chain;
use crate::kubelet::Context;
use crate::logs::rotate;
use crate::time;

/// A quarter of the lease's life (upstream: nodeLeaseRenewIntervalFraction of 40 s).
const LEASE_RENEWAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const STATUS_EVERY: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long a node that was ready stays so without a network after a start.
const NETWORK_GRACE: Duration = Duration::from_secs(10);

pub async fn run(cx: Arc<Context>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work(&cx) => {}
    }
}

async fn work(cx: &Arc<Context>) {
    let mut backoff = Backoff::new(RETRY, RETRY_MAX);
    let mut last = loop {
        match register(cx).await {
            Ok(node) => break node,
            Err(error) => warn!(error, "register the node"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    };
    info!(node = cx.config.node_name, "node is registered");
    cx.recorder.node(false, "Starting", "Starting kubelet.");
    let informer = Informer::<Node>::builder(&cx.client).fields(format!("metadata.name={}", cx.config.node_name)).start();
    let mut changes = informer.subscribe();
    let setup = tokio::spawn(set_up_network(cx.clone(), informer.subscribe()));
    let mut network = cx.network.subscribe();
    let started = tokio::time::Instant::now();
    let mut written = started;
    let mut tick = tokio::time::interval(LEASE_RENEWAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Somebody deleted the Node. Upstream's kubelet registers again only at its start, which leaves a dead node.
    let mut is_gone = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                renew_lease(cx, &last).await;
                rotate_logs(cx).await;
            }
            // The node becomes Ready the moment its network is.
            Ok(()) = network.changed() => {}
            // Others write here too: a node that was cut off is Unknown until it says otherwise.
            change = changes.recv() => match change {
                Change::Deleted(old) => is_gone |= old.metadata.uid == last.metadata.uid,
                change => last = newer(last, change.object()),
            },
            () = tokio::time::sleep(RETRY), if is_gone => {}
        }
        if is_gone {
            match register(cx).await {
                Ok(node) => {
                    info!(node = cx.config.node_name, "node is registered again: it was deleted");
                    is_gone = false;
                    last = node;
                    renew_lease(cx, &last).await;
                    publish(cx).await.unwrap_or_else(|error| warn!(error, "publish what other nodes must know of this one's network"));
                }
                Err(error) => {
                    warn!(error, "register the node again");
                    continue;
                }
            }
        }
        // A kubelet that starts again under running pods would only tell everyone for a moment that they are not ready.
        if cx.network.borrow().is_none() && status::is_ready(&last) && started.elapsed() < NETWORK_GRACE {
            continue;
        }
        let due = written.elapsed() >= STATUS_EVERY;
        match write_status(cx, &last, due).await {
            Ok(Some(node)) => {
                last = node;
                written = tokio::time::Instant::now();
            }
            Ok(None) => {}
            Err(error) => warn!(error, "write the node's status"),
        }
        if setup.is_finished() && cx.network.borrow().is_none() {
            warn!("the task that sets up the network has died");
            return;
        }
    }
}

/// Creates the node, or brings an existing one's labels up to date.
async fn register(cx: &Arc<Context>) -> Result<Node, String> {
    let key = ObjectKey::cluster(&cx.config.node_name);
    let labels = status::labels(&cx.config);
    let taints = Some(cx.config.node_taints.clone()).filter(|t| !t.is_empty());
    match cx.client.get::<Node>(&key).await {
        Ok(_) => {
            let patch = Patch::Strategic(json!({"metadata": {"labels": labels, "annotations": annotations(cx)?}}));
            cx.client.patch::<Node>(&key, &patch).await.map_err(|e| chain(&e))
        }
        Err(error) if error.is_not_found() => {
            let mut node = Node {
                metadata: ObjectMeta {
                    name: Some(cx.config.node_name.clone()),
                    labels: Some(labels),
                    annotations: Some(annotations(cx)?),
                    ..ObjectMeta::default()
                },
                ..Node::default()
            };
            let spec = node.spec.get_or_insert_default();
            spec.taints = taints;
            if let Some(cidr) = own_pod_cidr(cx).await? {
                spec.pod_cidr = Some(cidr.to_string());
                spec.pod_cidrs = Some(vec![cidr.to_string()]);
            }
            node.status = Some(status::status(cx, &node, time::now()).await);
            let made = cx.client.create(&node).await.map_err(|e| chain(&e))?;
            Ok(made)
        }
        Err(error) => Err(chain(&error)),
    }
}

/// Where this node's pods have addresses already, as they have when its Node was deleted under it, those it must keep.
async fn own_pod_cidr(cx: &Context) -> Result<Option<Ipv4Net>, String> {
    let Some(own) = cx.pod_cidr.get().copied() else { return Ok(None) };
    let nodes = cx.client.list::<Node>("", &ListOptions::default()).await.map_err(|e| chain(&e))?;
    let other = nodes.items.iter().find(|n| pod_cidr(n).is_some_and(|c| c.contains(&own) || own.contains(&c)));
    match other.and_then(|n| n.metadata.name.as_deref()) {
        None => Ok(Some(own)),
        Some(other) => {
            warn!(%own, other, "the addresses of this node's pods were given to another node while its Node was deleted; restart rk here");
            Ok(None)
        }
    }
}

/// `Ok(None)`: nothing has changed and nothing is due.
async fn write_status(cx: &Arc<Context>, last: &Node, due: bool) -> Result<Option<Node>, String> {
    let new = status::status(cx, last, time::now()).await;
    let old = last.status.clone().unwrap_or_default();
    if !due && !status::differs(&old, &new) {
        return Ok(None);
    }
    let Some(patch) = status::patch(&old, &new) else { return Ok(None) };
    let key = ObjectKey::cluster(&cx.config.node_name);
    match cx.client.patch_status::<Node>(&key, &Patch::Strategic(patch)).await {
        Ok(node) => Ok(Some(node)),
        // The informer will say so too, and then it is registered again.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}

async fn renew_lease(cx: &Arc<Context>, node: &Node) {
    let name = &cx.config.node_name;
    let key = ObjectKey::new("kube-node-lease", name);
    let now = MicroTime(time::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    let error = match cx.client.patch::<Lease>(&key, &patch).await {
        Ok(_) => return,
        Err(error) if error.is_not_found() => {
            let owner = OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            };
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some("kube-node-lease".into()),
                    owner_references: Some(vec![owner]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            match cx.client.create(&lease).await {
                Ok(_) => return,
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    warn!(error = chain(&error), "renew the node's lease");
}

fn newer(last: Node, seen: &Arc<Node>) -> Node {
    let version = |n: &Node| n.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
    if version(seen) > version(&last) { Node::clone(seen) } else { last }
}

/// Waits for the node's pod CIDR, then for a network on it.
async fn set_up_network(cx: Arc<Context>, mut changes: Subscription<Node>) {
    let cidr = loop {
        let change = changes.recv().await;
        if let Some(cidr) = pod_cidr(change.object()) {
            break cidr;
        }
    };
    // There is one such task, and it comes here once.
    let _ = cx.pod_cidr.set(cidr);
    let bridge = match IfName::new(&cx.config.bridge) {
        Ok(name) => name,
        Err(error) => {
            warn!(%error, "the bridge's name");
            return;
        }
    };
    let config = NodeConfig {
        bridge,
        backend: cx.config.network_backend,
        mtu: (cx.config.mtu > 0).then_some(cx.config.mtu),
        ..NodeConfig::new(cidr, cx.config.cluster_cidr, cx.config.service_cidr, cx.config.node_ip, cx.config.network_state_dir.clone())
    };
    let mut delay = RETRY;
    loop {
        match Network::setup(config.clone()).await {
            Ok(network) => {
                info!(%cidr, backend = %config.backend, "pod network is up");
                cx.network.send_replace(Some(network));
                break;
            }
            Err(error) => {
                let message = chain(&error);
                warn!(error = message, "set up the pod network");
                cx.recorder.node(true, "NetworkNotReady", message);
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(60));
    }
    while let Err(error) = publish(&cx).await {
        warn!(error, "publish what other nodes must know of this one's network");
        tokio::time::sleep(RETRY).await;
    }
}

/// What others must know of this node: where its local volumes are, and, once there is a network, what it takes to reach its pods
/// (nothing, for most backends).
fn annotations(cx: &Context) -> Result<BTreeMap<String, String>, String> {
    let storage = cx.config.local_storage_dir.to_string_lossy().into_owned();
    let mut annotations = BTreeMap::from([(api::volume::LOCAL_STORAGE.to_owned(), storage)]);
    let network = cx.network.borrow().clone();
    if let Some(key) = network.and_then(|network| network.mesh().public_key().transpose()).transpose().map_err(|e| chain(&e))? {
        annotations.insert(network::PUBLIC_KEY_ANNOTATION.to_owned(), key.to_string());
    }
    Ok(annotations)
}

async fn publish(cx: &Context) -> Result<(), String> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations(cx)?}}));
    let patched = cx.client.patch::<Node>(&ObjectKey::cluster(&cx.config.node_name), &patch).await;
    patched.map(drop).map_err(|e| chain(&e))
}

fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.as_ref());
    all.filter_map(|c| c.parse().ok()).next()
}

/// Looked at with each lease, and only what has grown since: a log file has no event for "larger than".
async fn rotate_logs(cx: &Arc<Context>) {
    for log in cx.growth.grown() {
        // Before its size is read, so that no write after that goes unseen.
        cx.growth.watch(log.clone());
        match rotate::rotate(&log.path, cx.config.log_max_bytes, cx.config.log_max_files) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = cx.runtime.reopen_log(&log.container).await {
                    warn!(container = log.container, %error, "open the rotated log anew");
                }
                // The file of this name is another one now.
                cx.growth.forget(&log.container);
                cx.growth.watch(log);
            }
            Err(error) => warn!(path = %log.path.display(), %error, "rotate a log"),
        }
    }
}
