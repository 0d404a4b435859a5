//! The sets and maps of the table, and what is put into them.
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::chains::Chain;
use super::frontends::Frontend;
use crate::nft::{SetSpec, kind, set_flag};

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Set {
    /// Address, protocol, port -> chain.
    ServiceIps,
    /// Protocol, port -> chain; for any address of the node.
    NodePorts,
    /// Frontend, index -> endpoint.
    Endpoints,
    PortEndpoints,
    /// Frontend, index -> slot, for Services with session affinity.
    Slots,
    PortSlots,
    /// Frontend, slot -> endpoint.
    SlotEndpoints,
    PortSlotEndpoints,
    /// Frontend, client -> slot; filled by packets.
    Affinity,
    PortAffinity,
    /// Address twice: a pod that reaches itself through a Service.
    Hairpin,
    /// All ClusterIPs, so that their other ports are refused and not lost.
    ClusterIps,
    /// Frontends without endpoints -> refuse or drop.
    NoEndpointIps,
    NoEndpointPorts,
    /// Frontends for which only some sources are allowed, and those sources.
    FirewallIps,
    FirewallAllow,
}

const ADDRESS: (u32, u32) = (kind::IPV4_ADDR, 4);
const PROTOCOL: (u32, u32) = (kind::INET_PROTO, 1);
const PORT: (u32, u32) = (kind::INET_SERVICE, 2);
const MARK: (u32, u32) = (kind::MARK, 4);

/// Clients remembered at a time; beyond it new ones are served without affinity.
const AFFINITY_SIZE: u32 = 262_144;

impl Set {
    pub(crate) const ALL: [Set; 16] = [
        Set::ServiceIps,
        Set::NodePorts,
        Set::Endpoints,
        Set::PortEndpoints,
        Set::Slots,
        Set::PortSlots,
        Set::SlotEndpoints,
        Set::PortSlotEndpoints,
        Set::Affinity,
        Set::PortAffinity,
        Set::Hairpin,
        Set::ClusterIps,
        Set::NoEndpointIps,
        Set::NoEndpointPorts,
        Set::FirewallIps,
        Set::FirewallAllow,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Set::ServiceIps => "service-ips",
            Set::NodePorts => "service-nodeports",
            Set::Endpoints => "endpoints",
            Set::PortEndpoints => "np-endpoints",
            Set::Slots => "ep-slot",
            Set::PortSlots => "np-ep-slot",
            Set::SlotEndpoints => "slot-ep",
            Set::PortSlotEndpoints => "np-slot-ep",
            Set::Affinity => "affinity",
            Set::PortAffinity => "np-affinity",
            Set::Hairpin => "hairpin",
            Set::ClusterIps => "cluster-ips",
            Set::NoEndpointIps => "no-endpoint-ips",
            Set::NoEndpointPorts => "no-endpoint-nodeports",
            Set::FirewallIps => "firewall-ips",
            Set::FirewallAllow => "firewall-allow",
        }
    }

    pub(crate) fn spec(self) -> SetSpec<'static> {
        let plain = |key, flags, value| SetSpec { name: self.name(), flags, key, value, size: 0, timeout_ms: 0 };
        let map = |key, value| plain(key, set_flag::MAP, value);
        let remembered = |key| SetSpec {
            size: AFFINITY_SIZE,
            timeout_ms: 10_800_000,
            ..plain(key, set_flag::MAP | set_flag::TIMEOUT | set_flag::EVAL, &[MARK])
        };
        match self {
            Set::ServiceIps | Set::NoEndpointIps => map(&[ADDRESS, PROTOCOL, PORT], &[]),
            Set::NodePorts | Set::NoEndpointPorts => map(&[PROTOCOL, PORT], &[]),
            Set::Endpoints | Set::SlotEndpoints => map(&[ADDRESS, PROTOCOL, PORT, MARK], &[ADDRESS, PORT]),
            Set::PortEndpoints | Set::PortSlotEndpoints => map(&[PROTOCOL, PORT, MARK], &[ADDRESS, PORT]),
            Set::Slots => map(&[ADDRESS, PROTOCOL, PORT, MARK], &[MARK]),
            Set::PortSlots => map(&[PROTOCOL, PORT, MARK], &[MARK]),
            Set::Affinity => remembered(&[ADDRESS, PROTOCOL, PORT, ADDRESS]),
            Set::PortAffinity => remembered(&[PROTOCOL, PORT, ADDRESS]),
            Set::Hairpin => plain(&[ADDRESS, ADDRESS], 0, &[]),
            Set::ClusterIps => plain(&[ADDRESS], 0, &[]),
            Set::FirewallIps => plain(&[ADDRESS, PROTOCOL, PORT], 0, &[]),
            Set::FirewallAllow => plain(&[ADDRESS, PROTOCOL, PORT, ADDRESS], set_flag::INTERVAL, &[]),
        }
    }

    /// Whether several frontends may own the same element.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Set::Hairpin | Set::ClusterIps)
    }
}

const KEY_BYTES_MAX: usize = 16;

/// The registers of a key: every field begins at four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: u8,
}

impl Key {
    fn empty() -> Key {
        Key { bytes: [0; KEY_BYTES_MAX], length: 0 }
    }

    /// Appends a field, padded to a whole register.
    fn field(mut self, value: &[u8]) -> Key {
        let at = self.length as usize;
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self.length += value.len().next_multiple_of(4) as u8;
        self
    }

    pub(crate) fn address(address: Ipv4Addr) -> Key {
        Key::empty().field(&address.octets())
    }

    pub(crate) fn address_twice(address: Ipv4Addr) -> Key {
        Key::address(address).field(&address.octets())
    }

    pub(crate) fn frontend(frontend: Frontend) -> Key {
        let (key, protocol, port) = match frontend {
            Frontend::Address { ip, protocol, port } => (Key::address(ip), protocol, port),
            Frontend::Port { protocol, port } => (Key::empty(), protocol, port),
        };
        key.field(&[protocol.number()]).field(&port.to_be_bytes())
    }

    /// An index or slot; such numbers are in host order.
    pub(crate) fn number(self, number: u32) -> Key {
        self.field(&number.to_ne_bytes())
    }

    pub(crate) fn source(self, source: Ipv4Addr) -> Key {
        self.field(&source.octets())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Goto(Chain),
    Reject,
    Drop,
    Endpoint(SocketAddrV4),
    Slot(u32),
    /// The other end of an interval.
    Until(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub set: Set,
    pub key: Key,
    pub value: Value,
}

/// The allowed source addresses of a restricted frontend.
pub(crate) fn allowed_source(frontend: Frontend, network: Ipv4Net) -> Element {
    let key = Key::frontend(frontend);
    Element { set: Set::FirewallAllow, key: key.source(network.network()), value: Value::Until(key.source(network.broadcast())) }
}
