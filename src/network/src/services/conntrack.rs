//! Makes the kernel forget UDP connections that lead to endpoints which are gone.
//!
//! Address translation is decided by the first packet of a connection, and a UDP "connection" lives as long as its client keeps
//! sending. Models pkg/proxy/conntrack/cleanup.go, v1.37: one dump, then a deletion for each entry that is wrong.
//!
//! Primer (ctnetlink, subsystem 1): an entry has the tuple of the original direction (CTA_TUPLE_ORIG: what the client sent) and of the
//! reply (CTA_TUPLE_REPLY: its source is where translation led). A deletion names the original tuple, and the entry's id, so that
//! an entry made meanwhile is left alone.
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::io::Errno;

use super::frontends::Frontend;
use crate::netlink::{Attributes, Error, Family, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Socket, align};
use crate::types::Protocol;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NEW: u16 = 0;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// Deletions are sent in groups, each answered before the next.
const DELETIONS_AT_ONCE: usize = 256;

/// The parts of an entry that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Where the client sent it.
    asked: SocketAddrV4,
    /// Where it went.
    answering: SocketAddrV4,
    /// CTA_TUPLE_ORIG, CTA_ID and CTA_ZONE as received.
    identity: Vec<u8>,
}

/// Deletes the UDP entries of `frontends` that lead where `allows` says no. Returns how many there were.
pub(crate) fn forget(frontends: &BTreeSet<Frontend>, allows: impl Fn(Frontend, SocketAddrV4) -> bool) -> Result<usize, Error> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let sequence = socket.sequences(1);
    let mut request = Vec::new();
    message(&mut request, GET, NLM_F_DUMP, sequence, &[]);
    let mut wrong = Vec::new();
    socket.transact(&request, sequence, |answer| {
        let Some(entry) = parse(&answer) else {
            return;
        };
        if is_wrong(&entry, frontends, &allows) {
            wrong.push(entry.identity);
        }
    })?;
    for group in wrong.chunks(DELETIONS_AT_ONCE) {
        let count = u32::try_from(group.len()).expect("a small group");
        let first = socket.sequences(count);
        let mut datagram = Vec::new();
        for (sequence, identity) in (first..).zip(group) {
            message(&mut datagram, DELETE, NLM_F_ACK, sequence, identity);
        }
        socket.send(&datagram)?;
        let refused = socket.acknowledgements(first, count)?;
        // Entries time out by themselves; one that did so meanwhile is fine.
        if let Some(e) = refused.into_iter().find(|e| !e.is(Errno::NOENT)) {
            return Err(e);
        }
    }
    Ok(wrong.len())
}

fn is_wrong(entry: &Entry, frontends: &BTreeSet<Frontend>, allows: impl Fn(Frontend, SocketAddrV4) -> bool) -> bool {
    let protocol = Protocol::Udp;
    let (ip, port) = (*entry.asked.ip(), entry.asked.port());
    let by_address = Frontend::Address { ip, protocol, port };
    if frontends.contains(&by_address) {
        return !allows(by_address, entry.answering);
    }
    let by_port = Frontend::Port { protocol, port };
    // Only what was translated is surely for this node's port, and not on its way through to another machine's.
    let translated = entry.asked != entry.answering;
    frontends.contains(&by_port) && translated && !allows(by_port, entry.answering)
}

fn message(datagram: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, attributes: &[u8]) {
    const AF_INET: u8 = 2;
    let length = u32::try_from(20 + attributes.len()).expect("a small message");
    datagram.extend_from_slice(&length.to_ne_bytes());
    datagram.extend_from_slice(&((SUBSYSTEM << 8) | kind).to_ne_bytes());
    datagram.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    datagram.extend_from_slice(&0u32.to_ne_bytes());
    datagram.extend_from_slice(&[AF_INET, 0, 0, 0]);
    datagram.extend_from_slice(attributes);
    datagram.resize(align(datagram.len()), 0);
}

/// An IPv4 UDP entry, or nothing.
fn parse(message: &Message<'_>) -> Option<Entry> {
    if message.kind != (SUBSYSTEM << 8) | NEW {
        return None;
    }
    let (mut original, mut reply, mut identity) = (None, None, Vec::new());
    for (kind, value) in Attributes::new(message.body.get(4..)?) {
        match kind {
            CTA_TUPLE_ORIG => original = Some(tuple(value)?),
            CTA_TUPLE_REPLY => reply = Some(tuple(value)?),
            _ => {}
        }
        if matches!(kind, CTA_TUPLE_ORIG | CTA_ID | CTA_ZONE) {
            const NLA_F_NESTED: u16 = 0x8000;
            let nested = if kind == CTA_TUPLE_ORIG { NLA_F_NESTED } else { 0 };
            let length = u16::try_from(value.len() + 4).ok()?;
            identity.extend_from_slice(&length.to_ne_bytes());
            identity.extend_from_slice(&(kind | nested).to_ne_bytes());
            identity.extend_from_slice(value);
            identity.resize(align(identity.len()), 0);
        }
    }
    Some(Entry { asked: original?.destination, answering: reply?.source, identity })
}

#[derive(Clone, Copy)]
struct Tuple {
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

/// CTA_TUPLE_IP { CTA_IP_V4_SRC, CTA_IP_V4_DST }, CTA_TUPLE_PROTO { CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT }
fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let find = |bytes, kind| {
        let mut all = Attributes::new(bytes);
        all.find(|(k, _)| *k == kind).map(|(_, value)| value)
    };
    let (ip, protocol) = (find(bytes, 1)?, find(bytes, 2)?);
    if find(protocol, 1)? != [Protocol::Udp.number()] {
        return None;
    }
    let address = |kind| {
        let octets: [u8; 4] = find(ip, kind)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |kind| {
        let bytes: [u8; 2] = find(protocol, kind)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    Some(Tuple { source: SocketAddrV4::new(address(1)?, port(2)?), destination: SocketAddrV4::new(address(2)?, port(3)?) })
}
