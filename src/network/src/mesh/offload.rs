//! Whether packets may be wrapped before their checksums are filled in.
//!
//! Left to the card, the checksum of a wrapped packet is a feature of its own, and some cards send wrong ones or crawl, on kernels of
//! today too (k3s#3863, flannel#2152, calico#11435). Those are the cards that offer to work on tunnels: for every other, and for a
//! veth, whose other end is this same kernel, the kernel fills in the checksum before the card sees the packet (`validate_xmit_skb`
//! masks features with `hw_enc_features`). So the offload is off where such a card is beneath the tunnel, and on elsewhere, where it
//! lets large packets stay whole until the last moment: three to four times the throughput (`tests/bench/network.py`).
use std::net::Ipv4Addr;

use crate::genetlink::Generic;
use crate::netlink::{Attributes, Error};
use crate::routes::Routes;

const CHECKSUM: &str = "tx-checksum-ip-generic";
/// What a device offers that works on tunnels (`netif_features`, names as ethtool prints them).
const TUNNEL: [&[u8]; 2] = [b"tx-udp_tnl-segmentation", b"tx-udp_tnl-csum-segmentation"];

const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_HARDWARE: u16 = 2;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_DEV_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
const OMIT_REPLY: u32 = 2;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// Switches transmit checksum offload of the tunnel's link on or off (`ethtool -K LINK tx-checksum-ip-generic ...`), by the link that
/// holds the node's address.
pub(crate) fn choose(routes: &mut Routes, tunnel: u32, node: Ipv4Addr) -> Result<(), Error> {
    let beneath = routes.addresses()?.into_iter().find(|held| held.address == node).map(|held| held.index);
    let on = match beneath {
        None => false,
        Some(index) => {
            let kind = routes.link_by_index(index)?.map(|link| link.kind).unwrap_or_default();
            is_safe(&kind, works_on_tunnels(index)?)
        }
    };
    set(tunnel, on)
}

fn is_safe(kind: &str, works_on_tunnels: bool) -> bool {
    kind == "veth" || !works_on_tunnels
}

fn ethtool() -> Result<Generic, Error> {
    Generic::open("ethtool", 1)?.ok_or(Error::Malformed("the kernel has no ethtool netlink"))
}

/// Whether the device can, or does, fill in what is inside of tunnels.
fn works_on_tunnels(index: u32) -> Result<bool, Error> {
    let mut found = false;
    ethtool()?.ask_one(
        FEATURES_GET,
        |w| w.nest(FEATURES_HEADER, |w| w.bytes(HEADER_DEV_INDEX, &index.to_ne_bytes())),
        |attributes| {
            let sets = attributes.filter(|(kind, _)| matches!(*kind, FEATURES_HARDWARE | FEATURES_ACTIVE));
            found |= sets.into_iter().any(|(_, set)| names_a_tunnel(set));
        },
    )?;
    Ok(found)
}

/// A bitset in its long form: a list of bits, each with its name and, where the set has a mask too, a flag when it is set.
fn names_a_tunnel(set: &[u8]) -> bool {
    const BITSET_NOMASK: u16 = 1;
    let list_only = Attributes::new(set).any(|(kind, _)| kind == BITSET_NOMASK);
    let bits = Attributes::new(set).filter(|(kind, _)| *kind == BITSET_BITS).flat_map(|(_, bits)| Attributes::new(bits));
    bits.filter(|(kind, _)| *kind == BITS_BIT).any(|(_, bit)| {
        let is_set = list_only || Attributes::new(bit).any(|(kind, _)| kind == BIT_VALUE);
        let name = Attributes::new(bit).find(|(kind, _)| *kind == BIT_NAME).map(|(_, name)| name.strip_suffix(&[0]).unwrap_or(name));
        is_set && name.is_some_and(|name| TUNNEL.contains(&name))
    })
}

fn set(index: u32, on: bool) -> Result<(), Error> {
    ethtool()?.execute(FEATURES_SET, |w| {
        w.nest(FEATURES_HEADER, |w| {
            w.bytes(HEADER_DEV_INDEX, &index.to_ne_bytes());
            w.bytes(HEADER_FLAGS, &OMIT_REPLY.to_ne_bytes());
        });
        // A bit that is named without a value is to be off; those not named stay.
        w.nest(FEATURES_WANTED, |w| {
            w.nest(BITSET_BITS, |w| {
                w.nest(BITS_BIT, |w| {
                    w.text(BIT_NAME, CHECKSUM);
                    if on {
                        w.bytes(BIT_VALUE, &[]);
                    }
                })
            })
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genetlink::Writer;

    fn set_of(bits: &[(&str, bool)], list_only: bool) -> Vec<u8> {
        let mut w = Writer::default();
        if list_only {
            w.bytes(1, &[]);
        }
        w.nest(BITSET_BITS, |w| {
            for (name, on) in bits {
                w.nest(BITS_BIT, |w| {
                    w.text(BIT_NAME, name);
                    if *on {
                        w.bytes(BIT_VALUE, &[]);
                    }
                });
            }
        });
        w.into_bytes()
    }

    #[test]
    fn a_card_that_works_on_tunnels_is_known_by_its_features() {
        let tunnel = "tx-udp_tnl-segmentation";
        assert!(names_a_tunnel(&set_of(&[("rx-gro", true), (tunnel, true)], false)));
        assert!(names_a_tunnel(&set_of(&[("tx-udp_tnl-csum-segmentation", false)], true)));
        assert!(!names_a_tunnel(&set_of(&[(tunnel, false)], false)), "not set");
        assert!(!names_a_tunnel(&set_of(&[("tx-udp-segmentation", true)], false)));
        assert!(!names_a_tunnel(&[7, 0, 3]), "cut short");
    }

    #[test]
    fn only_a_card_can_break_checksums() {
        assert!(is_safe("veth", true), "its other end is this kernel");
        assert!(is_safe("", false), "virtio and most cloud cards");
        assert!(!is_safe("", true));
        assert!(!is_safe("bridge", true), "cards may be beneath");
    }
}
