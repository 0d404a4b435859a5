//! Links, addresses and routes by rtnetlink(7): several requests in one datagram, answered one by one.
//!
//! Requests are built by the crate `rtnetlink`; they go over the blocking socket of [`crate::netlink`] because a pod's thread
//! lives for a millisecond and enters another namespace, where neither an async connection nor its task is wanted.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;

use crate::netlink::{
    Attributes, Error, Family, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_ERROR, Socket,
    align, read_u32,
};
use crate::types::IfName;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;

/// What is known of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// "bridge", "veth" and so on; empty for plain devices.
    pub kind: String,
    /// Switched on, whether or not it has a carrier.
    pub up: bool,
    pub mac: Vec<u8>,
    /// What the kind says about it: attributes, IFLA_INFO_DATA.
    pub data: Vec<u8>,
}

/// An IPv4 address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkAddress {
    pub index: u32,
    pub address: Ipv4Addr,
    pub prefix_len: u8,
}

/// One change, with what it does when the thing exists already.
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    pub(crate) fn new(message: RouteNetlinkMessage, flags: u16) -> Request {
        Request { message, flags }
    }

    pub(crate) fn create_link(link: LinkMessage) -> Request {
        Request { message: RouteNetlinkMessage::NewLink(link), flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    pub(crate) fn change_link(link: LinkMessage) -> Request {
        Request { message: RouteNetlinkMessage::NewLink(link), flags: 0 }
    }

    pub(crate) fn delete_link(name: &str) -> Request {
        Request { message: RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name).build()), flags: 0 }
    }

    pub(crate) fn put_address(index: u32, address: Ipv4Addr, prefix_len: u8) -> Request {
        Request {
            message: RouteNetlinkMessage::NewAddress(address_message(index, address, prefix_len)),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    pub(crate) fn delete_address(of: &LinkAddress) -> Request {
        let message = address_message(of.index, of.address, of.prefix_len);
        Request { message: RouteNetlinkMessage::DelAddress(message), flags: 0 }
    }

    pub(crate) fn delete_route(route: RouteMessage) -> Request {
        Request { message: RouteNetlinkMessage::DelRoute(route), flags: 0 }
    }

    /// A neighbour whose hardware address is known for good.
    pub(crate) fn put_neighbour(index: u32, address: Ipv4Addr, mac: Vec<u8>) -> Request {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        message.attributes =
            vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(address)), NeighbourAttribute::LinkLayerAddress(mac)];
        Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
    }

    pub(crate) fn put_route(route: RouteMessage) -> Request {
        Request { message: RouteNetlinkMessage::NewRoute(route), flags: NLM_F_CREATE | NLM_F_REPLACE }
    }
}

fn address_message(index: u32, address: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix_len).build()
}

/// A route for everything by way of `gateway`.
pub(crate) fn default_route(gateway: Ipv4Addr, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
}

/// A route to addresses that are on the link itself.
pub(crate) fn link_route(to: Ipv4Net, index: u32, source: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .output_interface(index)
        .pref_source(source)
        .scope(RouteScope::Link)
        .build()
}

/// Refuses at once what no more specific route takes.
pub(crate) fn unreachable_route(to: Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.network(), to.prefix_len()).kind(RouteType::Unreachable).build()
}

pub(crate) struct Routes {
    socket: Socket,
}

impl Routes {
    /// Works on the network namespace of the calling thread, also after that thread has entered another.
    pub(crate) fn open() -> Result<Routes, Error> {
        Ok(Routes { socket: Socket::open(Family::Route)? })
    }

    /// As [`Routes::open`], with dumps filtered by the kernel; see [`Socket::filter_dumps`].
    pub(crate) fn open_filtering() -> Result<Routes, Error> {
        let socket = Socket::open(Family::Route)?;
        socket.filter_dumps()?;
        Ok(Routes { socket })
    }

    /// Sends all requests at once. The kernel goes through all of them in order, also past one that it refuses; the refusals
    /// come back with the position of their request.
    pub(crate) fn send(&mut self, requests: Vec<Request>) -> Result<Vec<(usize, Error)>, Error> {
        let count = u32::try_from(requests.len()).expect("a handful of requests");
        let first = self.socket.sequences(count);
        let mut datagram = Vec::with_capacity(1024);
        for (sequence, request) in (first..).zip(requests) {
            append(&mut datagram, request.message, request.flags | NLM_F_ACK, sequence);
        }
        self.socket.send(&datagram)?;
        let refused = self.socket.acknowledgements(first, count)?;
        let position = |e: &Error| match e {
            Error::Refused { sequence, .. } => sequence.wrapping_sub(first) as usize,
            _ => 0,
        };
        Ok(refused.into_iter().map(|e| (position(&e), e)).collect())
    }

    /// As [`Routes::send`], with the first refusal as the error.
    pub(crate) fn run(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        match self.send(requests)?.into_iter().next() {
            Some((_, e)) => Err(e),
            None => Ok(()),
        }
    }

    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_name(name).build();
        self.one_link(message)
    }

    pub(crate) fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_index(index).build();
        self.one_link(message)
    }

    fn one_link(&mut self, message: LinkMessage) -> Result<Option<Link>, Error> {
        match self.one(RouteNetlinkMessage::GetLink(message), |answer| parse_link(&answer)) {
            Err(e) if e.is(Errno::NODEV) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Asks for one thing; `parse` says `None` to a message that is no answer.
    pub(crate) fn one<T>(&mut self, request: RouteNetlinkMessage, mut parse: impl FnMut(Message<'_>) -> Option<T>) -> Result<T, Error> {
        let sequence = self.socket.sequences(1);
        let mut datagram = Vec::new();
        append(&mut datagram, request, 0, sequence);
        self.socket.send(&datagram)?;
        loop {
            for answer in self.socket.receive()? {
                if answer.sequence != sequence {
                    continue;
                }
                if answer.kind == NLMSG_ERROR {
                    answer.verdict()?;
                    return Err(Error::Malformed("acknowledgement without an answer"));
                }
                if let Some(found) = parse(answer) {
                    return Ok(found);
                }
            }
        }
    }

    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(request, |message| parse_link(&message))
    }

    pub(crate) fn addresses(&mut self) -> Result<Vec<LinkAddress>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(request, |message| parse_address(&message))
    }

    /// The index of the link that the IPv4 default route of the lowest metric uses.
    pub(crate) fn default_route_link(&mut self) -> Result<Option<u32>, Error> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes = self.dump(request, |message| parse_default_route(&message))?;
        Ok(routes.into_iter().min().map(|(_metric, index)| index))
    }

    pub(crate) fn dump<T>(
        &mut self,
        request: RouteNetlinkMessage,
        mut parse: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let sequence = self.socket.sequences(1);
        let mut datagram = Vec::new();
        append(&mut datagram, request, NLM_F_DUMP, sequence);
        let mut found = Vec::new();
        self.socket.transact(&datagram, sequence, |message| found.extend(parse(message)))?;
        Ok(found)
    }
}

fn append(datagram: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = datagram.len();
    datagram.resize(start + align(message.buffer_len()), 0);
    message.serialize(&mut datagram[start..]);
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// `struct ifinfomsg` (16 bytes: index at 4, flags at 8) and IFLA_* attributes.
pub(crate) fn parse_link(message: &Message<'_>) -> Option<Link> {
    const IFF_UP: u32 = 1;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    if ![RTM_NEWLINK, RTM_DELLINK].contains(&message.kind) {
        return None;
    }
    let up = read_u32(message.body, 8)? & IFF_UP != 0;
    let mut link = Link { index: read_u32(message.body, 4)?, up, ..Link::default() };
    for (kind, value) in Attributes::new(message.body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = read_u32(value, 0)?,
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_LINKINFO => {
                for (kind, value) in Attributes::new(value) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = text(value),
                        IFLA_INFO_DATA => link.data = value.to_vec(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// `struct ifaddrmsg` (8 bytes: family, prefix length, flags, scope, index) and IFA_* attributes.
fn parse_address(message: &Message<'_>) -> Option<LinkAddress> {
    const AF_INET: u8 = 2;
    const IFA_LOCAL: u16 = 2;
    if message.body.first() != Some(&AF_INET) {
        return None;
    }
    let local = Attributes::new(message.body.get(8..)?).find(|(kind, _)| *kind == IFA_LOCAL)?;
    let octets: [u8; 4] = local.1.try_into().ok()?;
    Some(LinkAddress { index: read_u32(message.body, 4)?, address: Ipv4Addr::from(octets), prefix_len: *message.body.get(1)? })
}

/// `struct rtmsg` (12 bytes: family, destination length, .., table at 4, type at 7) and RTA_* attributes; metric and link.
fn parse_default_route(message: &Message<'_>) -> Option<(u32, u32)> {
    const RT_TABLE_MAIN: u32 = 254;
    const RTN_UNICAST: u8 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_PRIORITY: u16 = 6;
    const RTA_TABLE: u16 = 15;
    let body = message.body;
    if *body.get(1)? != 0 || *body.get(7)? != RTN_UNICAST {
        return None;
    }
    let (mut table, mut metric, mut link) = (u32::from(*body.get(4)?), 0, None);
    for (kind, value) in Attributes::new(body.get(12..)?) {
        match kind {
            RTA_OIF => link = read_u32(value, 0),
            RTA_PRIORITY => metric = read_u32(value, 0)?,
            RTA_TABLE => table = read_u32(value, 0)?,
            _ => {}
        }
    }
    (table == RT_TABLE_MAIN).then_some((metric, link?))
}

/// The link's name for a pod's address: unique on the node, and found again without a record.
pub(crate) fn pod_link_name(address: Ipv4Addr) -> IfName {
    IfName::new(&format!("{POD_LINK_PREFIX}{:08x}", u32::from(address))).expect("eleven letters and digits")
}

/// Every pod link of this node starts so.
pub(crate) const POD_LINK_PREFIX: &str = "rkv";

/// The address of which a link has its name.
pub(crate) fn pod_link_address(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix(POD_LINK_PREFIX)?;
    Some(Ipv4Addr::from(u32::from_str_radix(digits, 16).ok()?))
}
