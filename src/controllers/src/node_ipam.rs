//! Gives each node its part of the cluster's pod addresses.
//!
//! Models pkg/controller/nodeipam/ipam/{range_allocator.go, cidrset/cidr_set.go}, v1.37. Different: what is taken is read from the nodes
//! themselves each time, under one worker, so there is no set that could disagree with them.
//! Reads Node. Writes Node (`spec.podCIDR`, `spec.podCIDRs`). Wakes on nodes; a node that goes frees its part for those that wait.
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use client::k8s_openapi::api::core::v1::Node;
use client::{
    Client, Controller, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, Patch,
};
use ipnet::IpNet;
use serde_json::json;

use crate::context::{Config, ControllerContext};
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "node-controller";

struct Context {
    client: Client,
    config: Arc<Config>,
    recorder: EventRecorder,
    nodes: Informer<Node>,
    /// Given, but perhaps not shown by the watch yet.
    given: Mutex<Vec<(String, Vec<IpNet>)>>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, "cidrAllocator"),
        client,
        config: cx.config.clone(),
        nodes: cx.informers.get(),
        given: Mutex::default(),
    });
    let nodes = cx.nodes.clone();
    Controller::new("node-ipam-controller", cx)
        .workers(1)
        .watches(&nodes, |cx, event| match event {
            Event::Deleted(_) => cx.nodes.list().iter().filter(|n| cidrs(n).is_empty()).map(|n| n.key()).collect(),
            _ => vec![event.object().key()],
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(node) = cx.nodes.get(key).filter(|n| !n.is_deleting() && cidrs(n).is_empty()) else { return Ok(Next::Wait) };
    let taken = taken(cx);
    let parts: Option<Vec<IpNet>> =
        cx.config.cluster_cidrs.iter().map(|range| allocate(*range, mask(cx, *range), &taken)).collect();
    let Some(parts) = parts.filter(|p| !p.is_empty()) else {
        let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
        cx.recorder.record(&*node, EventType::Normal, "CIDRNotAvailable", message);
        return Err(Failure::Unusable(format!("no pod addresses are left for node {}", key.name)));
    };
    let texts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    // The uid keeps a node of the same name that came meanwhile from being given these.
    let patch = json!({"metadata": {"uid": node.uid()}, "spec": {"podCIDR": texts[0], "podCIDRs": texts}});
    remember(cx, node.uid(), parts);
    let result = cx.client.patch::<Node>(key, &Patch::Strategic(patch)).await;
    if let Err(failure) = unless_gone(result).during(|| format!("give node {} its pod addresses", key.name)) {
        forget(cx, node.uid());
        return Err(failure);
    }
    Ok(Next::Wait)
}

const POISON: &str = "nothing panics while it holds the list";

fn remember(cx: &Context, uid: &str, parts: Vec<IpNet>) {
    cx.given.lock().expect(POISON).push((uid.to_owned(), parts));
}

fn forget(cx: &Context, uid: &str) {
    cx.given.lock().expect(POISON).retain(|(u, _)| u != uid);
}

/// What nodes have, and what was given to nodes whose update has not come back yet.
fn taken(cx: &Context) -> HashSet<IpNet> {
    let nodes = cx.nodes.list();
    let mut given = cx.given.lock().expect(POISON);
    given.retain(|(uid, _)| nodes.iter().any(|n| n.uid() == uid && cidrs(n).is_empty()));
    nodes.iter().flat_map(|n| cidrs(n)).chain(given.iter().flat_map(|(_, parts)| parts.clone())).collect()
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let texts = spec.pod_cidrs.clone().filter(|c| !c.is_empty()).unwrap_or_else(|| spec.pod_cidr.clone().into_iter().collect());
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}

/// IPv6 nodes get 64 bits, as upstream's default; a range that is smaller is not divided.
fn mask(cx: &Context, range: IpNet) -> u8 {
    let wanted = if range.addr().is_ipv6() { 64 } else { cx.config.node_cidr_mask };
    wanted.max(range.prefix_len())
}

/// The first part of `range` with this mask that overlaps nothing taken.
fn allocate(range: IpNet, mask: u8, taken: &HashSet<IpNet>) -> Option<IpNet> {
    let overlaps = |part: &IpNet| taken.iter().any(|t| t.contains(part) || part.contains(t));
    let bits = u32::from(mask - range.prefix_len());
    let width = u32::from(range.max_prefix_len() - mask);
    let part = |n: u128| {
        let addr = match range.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(n << width).expect("within a range of IPv4 addresses");
                IpAddr::V4(Ipv4Addr::from(u32::from(base) + offset))
            }
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) + (n << width))),
        };
        IpNet::new(addr, mask).expect("the mask fits the family")
    };
    // A /32 of IPv6 would be four billion steps; nobody has that many nodes.
    (0..1u128 << bits.min(20)).map(part).find(|p| !overlaps(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, mask: u8, taken: &[&str], expect: Option<&str>) {
        let taken = taken.iter().map(|t| t.parse().unwrap()).collect();
        let found = allocate(range.parse().unwrap(), mask, &taken).map(|n| n.to_string());
        assert_eq!(found.as_deref(), expect);
    }

    #[test]
    fn the_first_free_part_is_given_and_none_twice() {
        check("10.42.0.0/16", 24, &[], Some("10.42.0.0/24"));
        check("10.42.0.0/16", 24, &["10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24"));
        check("10.42.0.0/16", 24, &["10.42.0.0/23"], Some("10.42.2.0/24"));
        check("10.42.0.0/23", 24, &["10.42.0.0/24", "10.42.1.128/25"], None);
        check("10.42.0.0/24", 24, &[], Some("10.42.0.0/24"));
        check("fd00:42::/56", 64, &["fd00:42::/64"], Some("fd00:42:0:1::/64"));
    }
}
