//! Keeps the way to other nodes' pods in step with the Nodes.
//!
//! Reads Node. Writes events on this one. A change is in the kernel before the next is looked at; while it is on its way, everything
//! that changes meanwhile gathers, as for the Services.
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Clock, EventRecorder, EventType, Informer, ObjectKey, Subscription};
use k8s_openapi::api::core::v1::Node;
use network::{Mesh, Peer, Unreachable};

/// After the kernel refused something.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(crate) async fn run(client: &Client, mesh: &Mesh, own: &str) {
    let nodes: Informer<Node> = Informer::builder(client).project(slim).start();
    let mut events = nodes.subscribe();
    nodes.synced().await;
    let recorder = EventRecorder::new(client, "kube-proxy", Some(own), Clock::system());
    let mut in_place: Option<Vec<Peer>> = None;
    let mut reported: Vec<Unreachable> = Vec::new();
    let mut retry = RETRY_FIRST;
    loop {
        drain(&mut events);
        let peers = peers(&nodes.list(), own);
        if in_place.as_ref() != Some(&peers) {
            in_place = match mesh.set_peers(peers.clone()).await {
                Ok(unreachable) => {
                    tracing::info!(peers = peers.len(), unreachable = unreachable.len(), "routes to other nodes are in place");
                    let node = nodes.get(&ObjectKey::cluster(own));
                    for peer in unreachable.iter().filter(|peer| !reported.contains(peer)) {
                        tracing::warn!("{peer}");
                        if let Some(node) = &node {
                            recorder.record(node.as_ref(), EventType::Warning, "NodeNotReachable", peer.to_string());
                        }
                    }
                    reported = unreachable;
                    retry = RETRY_FIRST;
                    Some(peers)
                }
                Err(e) => {
                    tracing::error!(error = %e, "pods of other nodes may not be reached");
                    None
                }
            };
        }
        let failed = in_place.is_none();
        tokio::select! {
            _ = events.recv() => {}
            () = tokio::time::sleep(retry), if failed => retry = (retry * 2).min(RETRY_MAX),
        }
    }
}

fn drain(events: &mut Subscription<Node>) {
    while events.try_recv().is_some() {}
}

/// Keeps what [`peers`] and the events read. A Node's status is written often and is large.
fn slim(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.labels = None;
    if let Some(annotations) = &mut node.metadata.annotations {
        annotations.retain(|name, _| name == network::PUBLIC_KEY_ANNOTATION);
    }
    if let Some(status) = node.status.take() {
        node.status.get_or_insert_default().addresses = status.addresses;
    }
}

/// Every node but `own` that has an address and a pod CIDR; the oldest first, which keeps its addresses if two claim them.
pub(crate) fn peers(nodes: &[Arc<Node>], own: &str) -> Vec<Peer> {
    let mut nodes: Vec<&Arc<Node>> = nodes.iter().filter(|node| node.metadata.name.as_deref() != Some(own)).collect();
    nodes.sort_by_key(|node| (node.metadata.creation_timestamp.as_ref().map(|time| time.0), node.metadata.name.clone()));
    nodes.into_iter().filter_map(|node| peer(node)).collect()
}

fn peer(node: &Node) -> Option<Peer> {
    let spec = node.spec.as_ref()?;
    let cidrs = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.as_ref());
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    let key = node.metadata.annotations.as_ref().and_then(|all| all.get(network::PUBLIC_KEY_ANNOTATION));
    Some(Peer {
        name: node.metadata.name.clone()?,
        node_ip: internal.find_map(|address| address.address.parse::<Ipv4Addr>().ok())?,
        pod_cidr: cidrs.into_iter().find_map(|text| text.parse().ok())?,
        public_key: key.and_then(|text| text.parse().ok()),
    })
}
