//! The VXLAN link of a node.
//!
//! Primer (RFC 7348): the link wraps Ethernet frames into UDP. Where the frame for a hardware address goes, its forwarding table
//! says, which here is written and never learned; without an entry a frame is dropped, so nothing is ever flooded. A packet for a pod
//! elsewhere takes the route to that node's pod CIDR, whose next hop is the first address of the CIDR; the neighbour table knows that
//! hop's hardware address, the forwarding table the node behind it.
//!
//! The link is bound to the node's address and to no other link, so it outlives a link that is taken down or replaced.
use std::io;

use rtnetlink::{LinkUnspec, LinkVxlan};
use rustix::io::Errno;

use super::offload;
use super::plan::{Local, vtep_mac};
use crate::error::StepError;
use crate::netlink::{Attributes, Error, read_u32};
use crate::routes::{Link, Request, Routes};

pub(crate) const LINK: &str = "rk-vx";
const VNI: u32 = 1;
/// What Linux used before the port had a number, and what other distributions of Kubernetes use to this day.
pub(crate) const PORT: u16 = 8472;

/// Makes the link, or brings one that is there in line; returns its index.
pub(crate) fn ensure(routes: &mut Routes, local: &Local, mtu: u32) -> Result<u32, StepError> {
    let step = |what: &str| StepError::new(format!("{what} link {LINK}"));
    if let Some(found) = routes.link(LINK).map_err(|e| step("find")(e.into()))? {
        if found.kind != "vxlan" {
            let taken = io::Error::new(io::ErrorKind::AlreadyExists, "a link of this name exists and is no VXLAN link: rename it");
            return Err(step("create")(taken));
        }
        if fits(&found, local) {
            if !found.up || found.mtu != mtu {
                let change = LinkUnspec::new_with_index(found.index).mtu(mtu).up().build();
                routes.run(vec![Request::change_link(change)]).map_err(|e| step("change")(e.into()))?;
            }
            choose_offload(routes, found.index, local);
            return Ok(found.index);
        }
        // Most of it cannot be changed in place.
        routes.run(vec![Request::delete_link(LINK)]).map_err(|e| step("delete")(e.into()))?;
    }
    let link = LinkVxlan::new(LINK, VNI)
        .local(local.node_ip)
        .port(PORT)
        .learning(false)
        .address(vtep_mac(local.pod_cidr).to_vec())
        .mtu(mtu)
        .up()
        .build();
    routes.run(vec![Request::create_link(link)]).map_err(|e| step("create")(explain(e)))?;
    let made = routes.link(LINK).map_err(|e| step("find")(e.into()))?;
    let index = made.map(|link| link.index).ok_or_else(|| step("find")(Errno::NODEV.into()))?;
    choose_offload(routes, index, local);
    Ok(index)
}

fn choose_offload(routes: &mut Routes, index: u32, local: &Local) {
    if let Err(e) = offload::choose(routes, index, local.node_ip) {
        tracing::warn!(link = LINK, error = %e, "transmit checksum offload stays as it is; some network cards send broken packets with it");
    }
}

fn explain(e: Error) -> io::Error {
    match e.is(Errno::OPNOTSUPP) {
        true => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no VXLAN: load the module vxlan, or choose another --network-backend",
        ),
        false => e.into(),
    }
}

/// Whether a link is as [`ensure`] makes it.
fn fits(link: &Link, local: &Local) -> bool {
    const IFLA_VXLAN_ID: u16 = 1;
    const IFLA_VXLAN_LINK: u16 = 3;
    const IFLA_VXLAN_LOCAL: u16 = 4;
    const IFLA_VXLAN_LEARNING: u16 = 7;
    const IFLA_VXLAN_PORT: u16 = 15;
    let find = |wanted| Attributes::new(&link.data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    link.mac == vtep_mac(local.pod_cidr)
        && find(IFLA_VXLAN_ID).and_then(|v| read_u32(v, 0)) == Some(VNI)
        && find(IFLA_VXLAN_LOCAL).is_some_and(|v| v == local.node_ip.octets())
        && find(IFLA_VXLAN_PORT).is_some_and(|v| v == PORT.to_be_bytes())
        && find(IFLA_VXLAN_LEARNING).is_some_and(|v| v == [0])
        && find(IFLA_VXLAN_LINK).and_then(|v| read_u32(v, 0)).unwrap_or(0) == 0
}
