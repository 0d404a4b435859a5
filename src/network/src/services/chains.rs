//! The chains that pick an endpoint: one for each number of endpoints, not for each Service.
use std::fmt;

use super::elements::Set;
use super::placement::SECOND_LIST;
use super::table::{MARK_MASQUERADE, NAME, Networks};
use crate::nft::{Batch, Rule, Verdict, reg};

/// What the key of a frontend is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Destination address, protocol, port.
    Address,
    /// Protocol, port.
    Port,
}

/// How long a client stays with its endpoint, in seconds.
type Affinity = Option<u32>;

/// A chain of the table, made when an element first leads to it. The order is that of creation: a chain after those that it
/// goes on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Chain {
    /// Remembers the client and goes to the endpoint whose slot is in the ct mark.
    Remember { group: Group, seconds: u32 },
    /// One of `count` endpoints, never masqueraded.
    Direct { group: Group, count: u32, affinity: Affinity },
    /// One of `count` endpoints; clients from outside are masqueraded.
    Spread { group: Group, count: u32, affinity: Affinity },
    /// One of `local` endpoints for clients from outside, one of `all` for pods and the node.
    Local { group: Group, local: u32, all: u32, affinity: Affinity },
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = |group: &Group| match group {
            Group::Address => "lb",
            Group::Port => "np",
        };
        let (letters, affinity) = match self {
            Chain::Remember { .. } => ("", &None),
            Chain::Direct { affinity, .. } => ("d", affinity),
            Chain::Spread { affinity, .. } => ("", affinity),
            Chain::Local { affinity, .. } => ("l", affinity),
        };
        let sticky = if affinity.is_some() { "a" } else { "" };
        match self {
            Chain::Remember { group, seconds } => {
                write!(f, "{}-affinity-{seconds}", prefix(group))?;
            }
            Chain::Direct { group, count, .. } | Chain::Spread { group, count, .. } => {
                write!(f, "{}{letters}{sticky}-{count}", prefix(group))?;
            }
            Chain::Local { group, local, all, .. } => write!(f, "{}{letters}{sticky}-{local}-{all}", prefix(group))?,
        }
        match affinity {
            Some(seconds) => write!(f, "-{seconds}"),
            None => Ok(()),
        }
    }
}

impl Chain {
    /// The chains that this one leads to, which must exist before it.
    pub(crate) fn needs(self) -> Vec<Chain> {
        let remember = |group, affinity: Affinity| {
            let chain = affinity.map(|seconds| Chain::Remember { group, seconds });
            chain.into_iter()
        };
        match self {
            Chain::Remember { .. } => Vec::new(),
            Chain::Direct { group, affinity, .. } | Chain::Spread { group, affinity, .. } => remember(group, affinity).collect(),
            Chain::Local { group, all, affinity, .. } => {
                remember(group, affinity).chain([direct(group, all, affinity), spread(group, all, affinity)]).collect()
            }
        }
    }

    /// Writes the chain with its rules.
    pub(crate) fn write(self, batch: &mut Batch, networks: &Networks) {
        let name = self.to_string();
        batch.add_chain(NAME, &name);
        match self {
            Chain::Remember { group, seconds } => write_remember(batch, &name, group, seconds),
            Chain::Direct { group, count, affinity } => write_pick(batch, &name, group, count, 0, affinity),
            Chain::Spread { group, count, affinity } => {
                batch.add_rule(NAME, &name, |r| {
                    // What comes in by a node port may have to go out by another node, whatever its source.
                    if group == Group::Address {
                        r.if_source_not_in(networks.cluster_cidr);
                    }
                    r.verdict(Verdict::Jump(MARK_MASQUERADE));
                });
                write_pick(batch, &name, group, count, 0, affinity);
            }
            Chain::Local { group, local, all, affinity } => {
                let (pods, node) = (direct(group, all, affinity), spread(group, all, affinity));
                batch.add_rule(NAME, &name, |r| {
                    r.if_source_in(networks.cluster_cidr);
                    r.verdict(Verdict::Goto(&pods.to_string()));
                });
                batch.add_rule(NAME, &name, |r| {
                    r.if_source_is_local();
                    r.verdict(Verdict::Goto(&node.to_string()));
                });
                if local == 0 {
                    batch.add_rule(NAME, &name, |r| r.verdict(Verdict::Drop));
                } else {
                    write_pick(batch, &name, group, local, SECOND_LIST, affinity);
                }
            }
        }
    }
}

fn direct(group: Group, count: u32, affinity: Affinity) -> Chain {
    Chain::Direct { group, count, affinity }
}

fn spread(group: Group, count: u32, affinity: Affinity) -> Chain {
    Chain::Spread { group, count, affinity }
}

/// Loads a frontend's key from the packet and returns the next free register.
fn load_key(rule: &mut Rule<'_>, group: Group) -> u32 {
    match group {
        Group::Address => {
            rule.destination(reg(0));
            rule.protocol(reg(1));
            rule.destination_port(reg(2));
            reg(3)
        }
        Group::Port => {
            rule.protocol(reg(0));
            rule.destination_port(reg(1));
            reg(2)
        }
    }
}

/// Behind every key, which takes four registers at most.
const VALUE: u32 = reg(4);

struct Maps {
    endpoints: &'static str,
    slots: &'static str,
    slot_endpoints: &'static str,
    affinity: &'static str,
}

fn maps(group: Group) -> Maps {
    let (endpoints, slots, slot_endpoints, affinity) = match group {
        Group::Address => (Set::Endpoints, Set::Slots, Set::SlotEndpoints, Set::Affinity),
        Group::Port => (Set::PortEndpoints, Set::PortSlots, Set::PortSlotEndpoints, Set::PortAffinity),
    };
    Maps { endpoints: endpoints.name(), slots: slots.name(), slot_endpoints: slot_endpoints.name(), affinity: affinity.name() }
}

/// Picks one of `count` endpoints, whose indices begin at `offset`.
fn write_pick(batch: &mut Batch, chain: &str, group: Group, count: u32, offset: u32, affinity: Affinity) {
    let maps = maps(group);
    let Some(seconds) = affinity else {
        // dnat ip to ip daddr . meta l4proto . th dport . numgen random mod N map @endpoints
        batch.add_rule(NAME, chain, |r| {
            let next = load_key(r, group);
            r.random(next, count, offset);
            r.map(maps.endpoints, reg(0), VALUE);
            r.dnat(VALUE, VALUE + 1);
        });
        return;
    };
    let remember = Chain::Remember { group, seconds }.to_string();
    // ct mark set ip daddr . meta l4proto . th dport . ip saddr map @affinity; a miss breaks off and leaves the mark 0
    batch.add_rule(NAME, chain, |r| {
        let next = load_key(r, group);
        r.source(next);
        r.map(maps.affinity, reg(0), reg(0));
        r.set_ct_mark(reg(0));
    });
    // ct mark != 0 jump lb-affinity-T
    batch.add_rule(NAME, chain, |r| {
        r.ct_mark(reg(0));
        r.if_not_zero(reg(0));
        r.verdict(Verdict::Jump(&remember));
    });
    // Only if the slot has no endpoint any more: delete @affinity { ip daddr . meta l4proto . th dport . ip saddr : ct mark }
    batch.add_rule(NAME, chain, |r| {
        let next = load_key(r, group);
        r.source(next);
        r.ct_mark(VALUE);
        r.delete(maps.affinity, reg(0), VALUE);
    });
    // ct mark set ip daddr . meta l4proto . th dport . numgen random mod N map @ep-slot
    batch.add_rule(NAME, chain, |r| {
        let next = load_key(r, group);
        r.random(next, count, offset);
        r.map(maps.slots, reg(0), reg(0));
        r.set_ct_mark(reg(0));
    });
    batch.add_rule(NAME, chain, |r| r.verdict(Verdict::Goto(&remember)));
}

fn write_remember(batch: &mut Batch, chain: &str, group: Group, seconds: u32) {
    let maps = maps(group);
    // update @affinity { ip daddr . meta l4proto . th dport . ip saddr timeout T : ct mark }
    batch.add_rule(NAME, chain, |r| {
        let next = load_key(r, group);
        r.source(next);
        r.ct_mark(VALUE);
        r.update(maps.affinity, reg(0), VALUE, u64::from(seconds) * 1000);
    });
    // dnat ip to ip daddr . meta l4proto . th dport . ct mark map @slot-ep
    batch.add_rule(NAME, chain, |r| {
        let next = load_key(r, group);
        r.ct_mark(next);
        r.map(maps.slot_endpoints, reg(0), VALUE);
        r.dnat(VALUE, VALUE + 1);
    });
}
