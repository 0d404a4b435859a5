//! What must be in the kernel for the peers there are, and the way there from what it holds. Pure.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::backend::Backend;
use super::key::PublicKey;

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// For messages.
    pub name: String,
    pub node_ip: Ipv4Addr,
    /// Its share of the pods' addresses.
    pub pod_cidr: Ipv4Net,
    /// For [`Backend::Wireguard`].
    pub public_key: Option<PublicKey>,
}

/// A peer whose pods cannot be reached, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    pub name: String,
    pub node_ip: Ipv4Addr,
    pub pod_cidr: Ipv4Net,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its addresses are not the cluster's; a route to them could take anybody's packets.
    ForeignAddresses {
        cluster_cidr: Ipv4Net,
    },
    /// Another node, or this one, has some of its addresses.
    AddressesOf {
        name: String,
    },
    /// It says that it is this node.
    OurAddress,
    /// It is behind a router, and the backend needs a link that both nodes share.
    Behind {
        gateway: Ipv4Addr,
    },
    NoRoute,
    /// It has not published its key yet.
    NoKey,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ForeignAddresses { cluster_cidr } => write!(f, "its pod CIDR is not in the cluster's, {cluster_cidr}"),
            Reason::AddressesOf { name } => write!(f, "its pod CIDR overlaps that of {name}"),
            Reason::OurAddress => f.write_str("its address is this node's own"),
            Reason::Behind { gateway } => {
                write!(f, "it is behind the router {gateway}, and the backend host-gw needs nodes on one link: use vxlan or wireguard")
            }
            Reason::NoRoute => f.write_str("there is no route to it"),
            Reason::NoKey => f.write_str("it has published no WireGuard key"),
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pods of node {} ({}, {}) cannot be reached: {}", self.name, self.node_ip, self.pod_cidr, self.reason)
    }
}

/// This node, as far as the plan needs it.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub backend: Backend,
    pub node_ip: Ipv4Addr,
    pub pod_cidr: Ipv4Net,
    pub cluster_cidr: Ipv4Net,
}

/// Where an address is, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    OnLink(u32),
    Behind(Ipv4Addr),
    Nowhere,
}

pub(crate) type Mac = [u8; 6];

/// One thing that the kernel holds for a peer. The order is that of creation: a route that stood before the entries it needs would
/// lose packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// The hardware address behind a next hop of the VXLAN link.
    Neighbour {
        address: Ipv4Addr,
        mac: Mac,
    },
    /// The node behind a hardware address of the VXLAN link.
    Forward {
        mac: Mac,
        node: Ipv4Addr,
    },
    /// A WireGuard peer.
    Tunnel {
        key: PublicKey,
        node: Ipv4Addr,
        cidr: Ipv4Net,
    },
    Route {
        to: Ipv4Net,
        via: Option<Ipv4Addr>,
        link: u32,
    },
}

impl Entry {
    /// Equal for entries of which the kernel puts one in the place of the other.
    fn place(&self) -> Option<Entry> {
        match *self {
            Entry::Neighbour { address, .. } => Some(Entry::Neighbour { address, mac: [0; 6] }),
            // One hardware address may have several nodes behind it, so the old one must go by itself.
            Entry::Forward { .. } => None,
            Entry::Tunnel { key, .. } => Some(Entry::Tunnel { key, node: Ipv4Addr::UNSPECIFIED, cidr: Ipv4Net::default() }),
            Entry::Route { to, .. } => Some(Entry::Route { to, via: None, link: 0 }),
        }
    }
}

/// One change of the kernel's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Remove(Entry),
    Put(Entry),
}

/// The hardware address of a node's VXLAN link, made of its pod CIDR, so that nobody needs to ask for it. Its pods' links have
/// theirs by the same rule, of their own addresses; the network's first address is no pod's.
pub(crate) fn vtep_mac(pod_cidr: Ipv4Net) -> Mac {
    let [a, b, c, d] = pod_cidr.network().octets();
    [0x0a, 0x58, a, b, c, d]
}

/// What the kernel shall hold. `link` is this node's link of the backend; `place` says where a node is.
pub(crate) fn wanted(
    local: &Local,
    link: Option<u32>,
    peers: &[Peer],
    mut place: impl FnMut(Ipv4Addr) -> Place,
) -> (BTreeSet<Entry>, Vec<Unreachable>) {
    let (mut entries, mut unreachable) = (BTreeSet::new(), Vec::new());
    // Accepted so far, by their first address: as they do not overlap, a neighbour in this order tells of any overlap.
    let mut taken = BTreeMap::from([(local.pod_cidr.network(), (local.pod_cidr, "this node"))]);
    for peer in peers {
        let cidr = peer.pod_cidr.trunc();
        let checked = check(local, peer, cidr, &taken).and_then(|()| entries_of(local, link, peer, cidr, &mut place));
        match checked {
            Ok(more) => {
                taken.insert(cidr.network(), (cidr, &peer.name));
                entries.extend(more);
            }
            Err(reason) => unreachable.push(Unreachable { name: peer.name.clone(), node_ip: peer.node_ip, pod_cidr: cidr, reason }),
        }
    }
    (entries, unreachable)
}

fn check(local: &Local, peer: &Peer, cidr: Ipv4Net, taken: &BTreeMap<Ipv4Addr, (Ipv4Net, &str)>) -> Result<(), Reason> {
    if !local.cluster_cidr.contains(&cidr) {
        return Err(Reason::ForeignAddresses { cluster_cidr: local.cluster_cidr });
    }
    if peer.node_ip == local.node_ip {
        return Err(Reason::OurAddress);
    }
    let before = taken.range(..=cidr.network()).next_back();
    let after = taken.range(cidr.network()..).next();
    let overlapping = before.into_iter().chain(after).find(|(_, (other, _))| other.contains(&cidr) || cidr.contains(other));
    match overlapping {
        Some((_, (_, name))) => Err(Reason::AddressesOf { name: (*name).to_owned() }),
        None => Ok(()),
    }
}

fn entries_of(
    local: &Local,
    link: Option<u32>,
    peer: &Peer,
    cidr: Ipv4Net,
    mut place: impl FnMut(Ipv4Addr) -> Place,
) -> Result<Vec<Entry>, Reason> {
    let own_link = || link.ok_or(Reason::NoRoute);
    match local.backend {
        Backend::Vxlan => {
            let (mac, hop) = (vtep_mac(cidr), cidr.network());
            Ok(vec![
                Entry::Neighbour { address: hop, mac },
                Entry::Forward { mac, node: peer.node_ip },
                Entry::Route { to: cidr, via: Some(hop), link: own_link()? },
            ])
        }
        Backend::HostGw => match place(peer.node_ip) {
            Place::OnLink(link) => Ok(vec![Entry::Route { to: cidr, via: Some(peer.node_ip), link }]),
            Place::Behind(gateway) => Err(Reason::Behind { gateway }),
            Place::Nowhere => Err(Reason::NoRoute),
        },
        Backend::Wireguard => {
            let key = peer.public_key.ok_or(Reason::NoKey)?;
            Ok(vec![Entry::Tunnel { key, node: peer.node_ip, cidr }, Entry::Route { to: cidr, via: None, link: own_link()? }])
        }
    }
}

/// First what is no more, routes before what they need, then what is new, the other way round. What the kernel puts in another's
/// place is not removed first, so that a peer that changes loses no packet it need not.
pub(crate) fn diff(have: &BTreeSet<Entry>, want: &BTreeSet<Entry>) -> Vec<Step> {
    let added: BTreeSet<Entry> = want.difference(have).filter_map(Entry::place).collect();
    let replaced = |entry: &Entry| entry.place().is_some_and(|place| added.contains(&place));
    let removed = have.iter().rev().filter(|entry| !want.contains(entry) && !replaced(entry));
    removed.copied().map(Step::Remove).chain(want.difference(have).copied().map(Step::Put)).collect()
}
