//! One pod's link: a veth pair whose far end is born inside the pod's network namespace, and a host route to it.
//!
//! `RTM_NEWLINK` takes the namespace and name of the far end nested in the near end's data (VETH_INFO_PEER), so the pair and its far
//! end's place are one message; making a pair first and moving one end costs the kernel an RCU grace period of about 16 ms. All of it
//! runs on a thread that enters the pod's namespace and ends there.
//!
//! No bridge connects the pods: each has its address as a /32, and the node routes to it. So all traffic of pods passes IP
//! forwarding, where the rules for Services and policies apply, whatever br_netfilter is set to. (Isolated ports of a bridge do
//! the same only while `bridge-nf-call-iptables` is 0: with 1, br_netfilter translates the address while the frame is still in the
//! bridge, which then sends it to the other port itself, and isolation drops it.) Both ends know each other's hardware address
//! for good, so no ARP is needed, and no `arp_ignore` or `arp_announce` of the host is in the way.
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bridge::{gone_is_fine, mac};
use crate::error::StepError;
use crate::netlink::Error;
use crate::routes::{Request, Routes, default_route, link_route};
use crate::types::IfName;

/// The pod's end of the link.
const POD_LINK: &str = "eth0";
/// The loopback link is the first of every network namespace (kernel, `LOOPBACK_IFINDEX`).
const LOOPBACK_INDEX: u32 = 1;

pub(crate) struct Plan {
    pub netns: PathBuf,
    pub link: IfName,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub mtu: u32,
}

fn step<T>(what: &str, result: Result<T, Error>) -> Result<T, StepError> {
    result.map_err(|e| StepError::new(what)(e.into()))
}

/// Connects the pod. Must run on a thread of its own, which is in the pod's namespace afterwards.
pub(crate) fn connect(plan: &Plan) -> Result<(), StepError> {
    let netns = File::open(&plan.netns).map_err(StepError::new(format!("open network namespace {}", plan.netns.display())))?;
    let mut host = step("open a netlink socket", Routes::open())?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| StepError::new("enter the pod's network namespace")(e.into()))?;
    let mut pod = step("open a netlink socket in the pod", Routes::open())?;

    match create(&mut host, plan, &netns) {
        Ok(()) => {}
        Err(e) if e.is(Errno::EXIST) => {
            let in_place = in_place(&mut host, &mut pod, plan);
            if !step("look for the pod's link", in_place)? {
                // Remains of an attempt that was cut short, or of a namespace that is no more.
                let delete = |name: &str| vec![Request::delete_link(name)];
                let host_end = gone_is_fine(host.run(delete(plan.link.as_str())));
                step("delete a stale link of the host", host_end)?;
                let pod_end = gone_is_fine(pod.run(delete(POD_LINK)));
                step("delete a stale link of the pod", pod_end)?;
                step("create the pod's link", create(&mut host, plan, &netns))?;
            }
        }
        Err(e) => return step("create the pod's link", Err(e)),
    }
    let configured = step("configure the pod's end of the link", configure(&mut pod, plan))
        .and_then(|()| refuse_redirects())
        .and_then(|()| step("route to the pod", route(&mut host, plan)));
    if configured.is_err() {
        // Half a link would look like a whole one; the pair goes with either end.
        let _ = host.run(vec![Request::delete_link(plan.link.as_str())]);
    }
    configured
}

fn create(host: &mut Routes, plan: &Plan, netns: &File) -> Result<(), Error> {
    let peer = LinkUnspec::new_with_name(POD_LINK).mtu(plan.mtu).address(mac(plan.address)).setns_by_fd(netns.as_raw_fd()).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(plan.link.as_str())
        .mtu(plan.mtu)
        .address(mac(plan.gateway))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .up()
        .build();
    host.run(vec![Request::create_link(pair)])
}

/// Whether both ends are there and the pod's end, in this namespace, has the address.
fn in_place(host: &mut Routes, pod: &mut Routes, plan: &Plan) -> Result<bool, Error> {
    let host_end = host.link(plan.link.as_str())?;
    let Some(pod_end) = pod.link(POD_LINK)? else {
        return Ok(false);
    };
    let addresses = pod.addresses()?;
    let has_address = addresses.iter().any(|a| a.index == pod_end.index && a.address == plan.address);
    Ok(host_end.is_some() && has_address)
}

fn configure(pod: &mut Routes, plan: &Plan) -> Result<(), Error> {
    let link = pod.link(POD_LINK)?;
    let index = link.ok_or(Error::Malformed("the new link is not in the pod"))?.index;
    pod.run(vec![
        Request::change_link(LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build()),
        // Not at its birth: the kernel opens a veth end only when it knows its peer.
        Request::change_link(LinkUnspec::new_with_index(index).up().build()),
        Request::put_address(index, plan.address, 32),
        Request::put_neighbour(index, plan.gateway, mac(plan.gateway)),
        Request::put_route(link_route(plan.gateway.into(), index, plan.address)),
        Request::put_route(default_route(plan.gateway, index)),
    ])
}

/// The node's side: with the bridge's address as the source, for what the node itself sends.
fn route(host: &mut Routes, plan: &Plan) -> Result<(), Error> {
    let link = host.link(plan.link.as_str())?;
    let index = link.ok_or(Error::Malformed("the new link is not on the host"))?.index;
    host.run(vec![
        Request::put_neighbour(index, plan.address, mac(plan.address)),
        Request::put_route(link_route(plan.address.into(), index, plan.gateway)),
    ])
}

/// The gateway is the only way out of a pod; nobody may talk it into another. `/proc/sys/net` shows the namespace of the thread
/// that opens it.
fn refuse_redirects() -> Result<(), StepError> {
    for link in ["all", POD_LINK] {
        let path = format!("/proc/sys/net/ipv4/conf/{link}/accept_redirects");
        fs::write(&path, "0").map_err(StepError::new(format!("write 0 to {path}")))?;
    }
    Ok(())
}

/// Deletes the pod's link. One that is gone, with its namespace, is fine.
pub(crate) fn disconnect(link: &IfName) -> Result<(), StepError> {
    let mut host = step("open a netlink socket", Routes::open())?;
    let deleted = host.run(vec![Request::delete_link(link.as_str())]);
    step(&format!("delete link {link}"), gone_is_fine(deleted))
}
