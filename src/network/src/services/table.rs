//! The table's fixed part, and how elements become messages.
use ipnet::Ipv4Net;

use super::elements::{Element, Set, Value};
use crate::netlink::{Error, Family, Socket};
use crate::nft::{self, Batch, Data, Hook, Rule, Verdict, reg};

pub(crate) const NAME: &str = "rk-proxy";
pub(crate) const MARK_MASQUERADE: &str = "mark-masq";

/// Upstream's bit (pkg/proxy/nftables, masqueradeMark).
const MASQUERADE_BIT: u32 = 0x4000;
const REJECT: &str = "reject-chain";
const NO_ENDPOINTS: &str = "no-endpoints";
const SERVICES: &str = "services";
const FIREWALL_CHECK: &str = "firewall-check";

/// Before connection tracking.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_SNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_BEFORE_DNAT: i32 = PRIORITY_DNAT - 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Networks {
    pub pod_cidr: Ipv4Net,
    pub cluster_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// Where packets for pods of other nodes come in, wrapped into UDP.
    pub tunnel_port: Option<u16>,
}

impl Networks {
    fn gateway(&self) -> std::net::Ipv4Addr {
        std::net::Ipv4Addr::from(u32::from(self.pod_cidr.network()) + 1)
    }
}

fn network(text: &str) -> Ipv4Net {
    text.parse().expect("a constant network")
}

/// Removes the table with everything in it; no table is fine.
pub(crate) fn remove() -> Result<(), Error> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let mut batch = Batch::new();
    batch.remove_table(NAME);
    nft::commit(&mut socket, batch)
}

fn address_key(r: &mut Rule<'_>) {
    r.destination(reg(0));
    r.protocol(reg(1));
    r.destination_port(reg(2));
}

/// Loads a node port's key, for packets to an address of the node. Not to loopback: an answer from a pod to 127.0.0.1 would need
/// route_localnet, which opens the node's loopback to its neighbours (CVE-2020-8558).
fn port_key(r: &mut Rule<'_>) {
    r.if_destination_not_in(network("127.0.0.0/8"));
    r.if_destination_is_local();
    r.protocol(reg(0));
    r.destination_port(reg(1));
}

/// The table, its sets and fixed chains, in place of whatever was there.
pub(crate) fn write_fixed_part(b: &mut Batch, networks: &Networks) {
    let Networks { pod_cidr, cluster_cidr, service_cidr, tunnel_port } = *networks;
    b.remove_table(NAME);
    b.add_table(NAME);
    for set in Set::ALL {
        b.add_set(NAME, &set.spec());
    }
    let dnat = PRIORITY_DNAT;
    b.add_base_chain(NAME, "prerouting", "nat", Hook::Prerouting, dnat);
    b.add_base_chain(NAME, "output", "nat", Hook::Output, dnat);
    b.add_base_chain(NAME, "postrouting", "nat", Hook::Postrouting, PRIORITY_SNAT);
    let filter = [
        ("filter-input", Hook::Input, PRIORITY_FILTER),
        ("filter-forward", Hook::Forward, PRIORITY_FILTER),
        ("filter-output", Hook::Output, PRIORITY_FILTER),
    ];
    let firewall =
        [("firewall-prerouting", Hook::Prerouting, PRIORITY_BEFORE_DNAT), ("firewall-output", Hook::Output, PRIORITY_BEFORE_DNAT)];
    for (name, hook, priority) in filter.iter().chain(&firewall) {
        b.add_base_chain(NAME, name, "filter", *hook, *priority);
    }
    if let Some(port) = tunnel_port {
        write_tunnel(b, port);
    }
    for name in [SERVICES, MARK_MASQUERADE, NO_ENDPOINTS, REJECT, FIREWALL_CHECK] {
        b.add_chain(NAME, name);
    }

    for chain in ["prerouting", "output"] {
        b.add_rule(NAME, chain, |r| r.verdict(Verdict::Jump(SERVICES)));
    }
    b.add_rule(NAME, SERVICES, |r| {
        address_key(r);
        r.verdict_map(Set::ServiceIps.name(), reg(0));
    });
    b.add_rule(NAME, SERVICES, |r| {
        port_key(r);
        r.verdict_map(Set::NodePorts.name(), reg(0));
    });
    b.add_rule(NAME, MARK_MASQUERADE, |r| r.add_to_mark(MASQUERADE_BIT));

    // To pods, of this node and of others, under the gateway's address: their links have none for `masquerade` to choose, and what is
    // answered to this node's own address may not come back the way it went. The mark goes before the packet does: a tunnel hands
    // it on to the packet around this one, which would be masqueraded as well.
    let gateway = networks.gateway();
    b.add_rule(NAME, "postrouting", |r| {
        r.if_mark_has(MASQUERADE_BIT);
        r.if_destination_in(cluster_cidr);
        r.take_from_mark(MASQUERADE_BIT);
        r.snat(gateway);
    });
    b.add_rule(NAME, "postrouting", |r| {
        r.if_mark_has(MASQUERADE_BIT);
        r.take_from_mark(MASQUERADE_BIT);
        r.masquerade();
    });
    b.add_rule(NAME, "postrouting", |r| {
        r.source(reg(0));
        r.destination(reg(1));
        r.if_in(Set::Hairpin.name(), reg(0));
        r.snat(gateway);
    });
    b.add_rule(NAME, "postrouting", |r| {
        r.if_destination_in(network("224.0.0.0/4"));
        r.verdict(Verdict::Return);
    });
    // Pods of other nodes are reached by the cluster's addresses only: the same reason as above.
    b.add_rule(NAME, "postrouting", |r| {
        r.if_destination_in(cluster_cidr);
        r.if_destination_not_in(pod_cidr);
        r.if_source_not_in(cluster_cidr);
        r.snat(gateway);
    });
    b.add_rule(NAME, "postrouting", |r| {
        r.if_source_in(pod_cidr);
        r.if_destination_not_in(cluster_cidr);
        r.masquerade();
    });

    for (chain, ..) in filter {
        b.add_rule(NAME, chain, |r| {
            r.if_new_connection();
            r.verdict(Verdict::Jump(NO_ENDPOINTS));
        });
    }
    b.add_rule(NAME, NO_ENDPOINTS, |r| {
        address_key(r);
        r.verdict_map(Set::NoEndpointIps.name(), reg(0));
    });
    b.add_rule(NAME, NO_ENDPOINTS, |r| {
        port_key(r);
        r.verdict_map(Set::NoEndpointPorts.name(), reg(0));
    });
    // Another port of a ClusterIP is refused; an address that no Service has leads nowhere.
    b.add_rule(NAME, NO_ENDPOINTS, |r| {
        r.destination(reg(0));
        r.if_in(Set::ClusterIps.name(), reg(0));
        r.reject();
    });
    b.add_rule(NAME, NO_ENDPOINTS, |r| {
        r.if_destination_in(service_cidr);
        r.verdict(Verdict::Drop);
    });
    b.add_rule(NAME, REJECT, |r| r.reject());

    for (chain, ..) in firewall {
        b.add_rule(NAME, chain, |r| {
            r.if_new_connection();
            address_key(r);
            r.if_in(Set::FirewallIps.name(), reg(0));
            r.verdict(Verdict::Jump(FIREWALL_CHECK));
        });
    }
    b.add_rule(NAME, FIREWALL_CHECK, |r| {
        address_key(r);
        r.source(reg(3));
        r.if_in(Set::FirewallAllow.name(), reg(0));
        r.verdict(Verdict::Return);
    });
    b.add_rule(NAME, FIREWALL_CHECK, |r| r.verdict(Verdict::Drop));
}

/// What is wrapped into UDP is tracked by itself; tracking the wrapping too would cost a third of the throughput, and the rules for
/// Services have nothing to say to it.
fn write_tunnel(b: &mut Batch, port: u16) {
    b.add_base_chain(NAME, "tunnel-prerouting", "filter", Hook::Prerouting, PRIORITY_RAW);
    b.add_base_chain(NAME, "tunnel-output", "filter", Hook::Output, PRIORITY_RAW);
    b.add_rule(NAME, "tunnel-prerouting", |r| {
        r.if_udp_port(port);
        // What is only passing through is somebody else's, and may need its address translated.
        r.if_destination_is_local();
        r.notrack();
    });
    b.add_rule(NAME, "tunnel-output", |r| {
        r.if_udp_port(port);
        r.notrack();
    });
}

/// An element's value in the form that the encoder borrows from.
enum Encoded {
    None,
    Bytes([u8; 8], usize),
    Goto(String),
    Drop,
}

fn encode(value: &Value) -> Encoded {
    match value {
        Value::None | Value::Until(_) => Encoded::None,
        Value::Goto(chain) => Encoded::Goto(chain.to_string()),
        Value::Reject => Encoded::Goto(REJECT.to_owned()),
        Value::Drop => Encoded::Drop,
        Value::Endpoint(endpoint) => {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&endpoint.ip().octets());
            bytes[4..6].copy_from_slice(&endpoint.port().to_be_bytes());
            Encoded::Bytes(bytes, 8)
        }
        Value::Slot(slot) => {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&slot.to_ne_bytes());
            Encoded::Bytes(bytes, 4)
        }
    }
}

fn interval_end(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Until(key) => Some(key.as_bytes()),
        _ => None,
    }
}

/// Adds elements of one set.
pub(crate) fn add<'a>(batch: &mut Batch, set: Set, elements: impl Iterator<Item = &'a Element>) {
    let encoded: Vec<(&Element, Encoded)> = elements.map(|e| (e, encode(&e.value))).collect();
    let elements = encoded.iter().map(|(element, value)| nft::Element {
        key: element.key.as_bytes(),
        end: interval_end(&element.value),
        data: match value {
            Encoded::None => Data::None,
            Encoded::Bytes(bytes, length) => Data::Value(&bytes[..*length]),
            Encoded::Goto(chain) => Data::Verdict(Verdict::Goto(chain)),
            Encoded::Drop => Data::Verdict(Verdict::Drop),
        },
    });
    batch.add_elements(NAME, set.name(), elements);
}

/// Removes elements of one set.
pub(crate) fn remove_all<'a>(batch: &mut Batch, set: Set, elements: impl Iterator<Item = &'a Element>) {
    let elements =
        elements.map(|element| nft::Element { key: element.key.as_bytes(), end: interval_end(&element.value), data: Data::None });
    batch.remove_elements(NAME, set.name(), elements);
}
