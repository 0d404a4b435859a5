//! Neighbours, forwarding entries and routes of the mesh in the kernel.
//!
//! Routes are known by their protocol number (`ip route show proto 114`), whatever link they use; neighbours and forwarding entries
//! by their link. Reading what is there costs a dump of each and happens only when peers change.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::plan::{Entry, Mac, Place};
use crate::netlink::{Attributes, Error, Message, NLM_F_CREATE, NLM_F_REPLACE, read_u16, read_u32};
use crate::routes::{Request, Routes};

/// Who made a route (rtm_protocol); numbers from 5 on mean nothing to the kernel, and this one is in nobody's list.
pub(crate) const PROTOCOL: u8 = 114;

const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// What is there of earlier calls and runs. `link` is the tunnel's, if there is one.
pub(crate) fn installed(routes: &mut Routes, link: Option<u32>) -> Result<BTreeSet<Entry>, Error> {
    let mut all: BTreeSet<Entry> = mesh_routes(routes)?.into_iter().collect();
    if let Some(link) = link {
        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            all.extend(routes.dump(RouteNetlinkMessage::GetNeighbour(request), |message| parse_neighbour(&message, link))?);
        }
    }
    Ok(all)
}

/// The routes alone, over whatever link.
pub(crate) fn mesh_routes(routes: &mut Routes) -> Result<Vec<Entry>, Error> {
    let request = RouteMessageBuilder::<Ipv4Addr>::new().protocol(RouteProtocol::Other(PROTOCOL)).build();
    routes.dump(RouteNetlinkMessage::GetRoute(request), |message| parse_route(&message))
}

/// `struct rtmsg` (12 bytes: destination length at 1, table at 4, protocol at 5, type at 7) and RTA_* attributes.
fn parse_route(message: &Message<'_>) -> Option<Entry> {
    let body = message.body;
    // A kernel before 4.20 does not filter.
    if *body.get(5)? != PROTOCOL || *body.get(7)? != RTN_UNICAST {
        return None;
    }
    let prefix_len = *body.get(1)?;
    let (mut to, mut via, mut link, mut table) = (Ipv4Addr::UNSPECIFIED, None, None, u32::from(*body.get(4)?));
    for (kind, value) in Attributes::new(body.get(12..)?) {
        match kind {
            RTA_DST => to = address(value)?,
            RTA_GATEWAY => via = Some(address(value)?),
            RTA_OIF => link = read_u32(value, 0),
            RTA_TABLE => table = read_u32(value, 0)?,
            _ => {}
        }
    }
    let entry = Entry::Route { to: Ipv4Net::new(to, prefix_len).ok()?, via, link: link? };
    (table == RT_TABLE_MAIN).then_some(entry)
}

/// `struct ndmsg` (12 bytes: family, link at 4, state at 8) and NDA_* attributes.
fn parse_neighbour(message: &Message<'_>, link: u32) -> Option<Entry> {
    let body = message.body;
    if read_u32(body, 4)? != link || read_u16(body, 8)? & NUD_PERMANENT == 0 {
        return None;
    }
    let attributes = Attributes::new(body.get(12..)?);
    let find = |wanted| attributes.clone().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let mac: Mac = find(NDA_LLADDR)?.try_into().ok()?;
    let ip = address(find(NDA_DST)?)?;
    match *body.first()? {
        AF_INET => Some(Entry::Neighbour { address: ip, mac }),
        AF_BRIDGE => Some(Entry::Forward { mac, node: ip }),
        _ => None,
    }
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = value.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

/// The request that makes an entry, with `source` as the address of what this node itself sends; `None` for entries of WireGuard.
pub(crate) fn put(entry: &Entry, link: Option<u32>, source: Ipv4Addr) -> Option<Request> {
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    match entry {
        Entry::Route { .. } => Some(Request::put_route(route(entry, Some(source))?)),
        _ => Some(Request::new(RouteNetlinkMessage::NewNeighbour(neighbour(entry, link?)?), flags)),
    }
}

pub(crate) fn remove(entry: &Entry, link: Option<u32>) -> Option<Request> {
    match entry {
        Entry::Route { .. } => Some(Request::delete_route(route(entry, None)?)),
        _ => Some(Request::new(RouteNetlinkMessage::DelNeighbour(neighbour(entry, link?)?), 0)),
    }
}

/// The thing was gone already.
pub(crate) fn is_gone(e: &Error) -> bool {
    [Errno::SRCH, Errno::NOENT, Errno::NODEV].into_iter().any(|errno| e.is(errno))
}

fn route(entry: &Entry, source: Option<Ipv4Addr>) -> Option<RouteMessage> {
    let Entry::Route { to, via, link } = *entry else { return None };
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .output_interface(link)
        .protocol(RouteProtocol::Other(PROTOCOL));
    builder = match via {
        // The next hop is on the link whatever addresses that has.
        Some(via) => builder.gateway(via).onlink(),
        None => builder.scope(RouteScope::Link),
    };
    if let Some(source) = source {
        builder = builder.pref_source(source);
    }
    Some(builder.build())
}

fn neighbour(entry: &Entry, link: u32) -> Option<NeighbourMessage> {
    let (family, flags, ip, mac) = match *entry {
        Entry::Neighbour { address, mac } => (AddressFamily::Inet, NeighbourFlags::empty(), address, mac),
        // "Own": of the link itself, not of a bridge above it (NTF_SELF).
        Entry::Forward { mac, node } => (AddressFamily::Bridge, NeighbourFlags::Own, node, mac),
        Entry::Tunnel { .. } | Entry::Route { .. } => return None,
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = flags;
    message.attributes =
        vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    Some(message)
}

/// Where packets to `node` would go now.
pub(crate) fn place(routes: &mut Routes, node: Ipv4Addr) -> Result<Place, Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    request.header.destination_prefix_length = 32;
    request.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(node))];
    match routes.one(RouteNetlinkMessage::GetRoute(request), |message| parse_place(&message)) {
        Err(e) if [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::INVAL, Errno::ACCESS].into_iter().any(|errno| e.is(errno)) => {
            Ok(Place::Nowhere)
        }
        other => other,
    }
}

fn parse_place(message: &Message<'_>) -> Option<Place> {
    let body = message.body;
    if *body.get(7)? != RTN_UNICAST {
        return Some(Place::Nowhere);
    }
    let mut link = None;
    for (kind, value) in Attributes::new(body.get(12..)?) {
        match kind {
            RTA_GATEWAY => return Some(Place::Behind(address(value)?)),
            RTA_OIF => link = read_u32(value, 0),
            _ => {}
        }
    }
    Some(link.map_or(Place::Nowhere, Place::OnLink))
}
