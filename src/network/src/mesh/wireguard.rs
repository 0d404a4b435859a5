//! The WireGuard link of a node: link by rtnetlink, key and peers by generic netlink (include/uapi/linux/wireguard.h).
//!
//! The private key is in a file that only root reads; its public half is asked of the kernel, which has computed it anyway, so no
//! cryptography is needed here.
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ipnet::Ipv4Net;
use rtnetlink::{LinkUnspec, LinkWireguard};
use rustix::io::Errno;

use super::key::{KEY_BYTES, PublicKey};
use super::plan::Entry;
use crate::error::StepError;
use crate::genetlink::{Generic, Writer};
use crate::netlink::{Attributes, Error};
use crate::routes::{Request, Routes};

pub(crate) const LINK: &str = "rk-wg";
/// Below the state directory.
pub(crate) const KEY_FILE: &str = "wireguard.key";
pub(crate) const PORT: u16 = 51820;

const FAMILY: &str = "wireguard";
const VERSION: u8 = 1;
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

const DEVICE_IFINDEX: u16 = 1;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;

const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_ALLOWED_IPS: u16 = 9;
const PEER_REMOVE_ME: u32 = 1;
const PEER_REPLACE_ALLOWED_IPS: u32 = 2;

const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_PREFIX_LEN: u16 = 3;
const AF_INET: u16 = 2;

/// Makes the link, or brings one that is there in line; returns its index.
pub(crate) fn ensure(routes: &mut Routes, state_dir: &Path, mtu: u32) -> Result<u32, StepError> {
    let step = |what: &str| StepError::new(format!("{what} link {LINK}"));
    if let Some(found) = routes.link(LINK).map_err(|e| step("find")(e.into()))? {
        if found.kind != "wireguard" {
            let taken = io::Error::new(io::ErrorKind::AlreadyExists, "a link of this name exists and is no WireGuard link: rename it");
            return Err(step("create")(taken));
        }
        if !found.up || found.mtu != mtu {
            let change = LinkUnspec::new_with_index(found.index).mtu(mtu).up().build();
            routes.run(vec![Request::change_link(change)]).map_err(|e| step("change")(e.into()))?;
        }
        return Ok(found.index);
    }
    let link = LinkWireguard::new(LINK).mtu(mtu).up().build();
    routes.run(vec![Request::create_link(link)]).map_err(|e| step("create")(explain(e)))?;
    let made = routes.link(LINK).map_err(|e| step("find")(e.into()))?;
    let index = made.map(|link| link.index).ok_or_else(|| step("find")(Errno::NODEV.into()))?;
    let private = private_key(&state_dir.join(KEY_FILE))?;
    let set = open().and_then(|mut device| device.execute(SET_DEVICE, |w| write_device(w, index, &private)));
    set.map_err(|e| step("give a key to")(e.into()))?;
    Ok(index)
}

fn explain(e: Error) -> io::Error {
    match e.is(Errno::OPNOTSUPP) {
        true => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no WireGuard: load the module wireguard, or choose another --network-backend",
        ),
        false => e.into(),
    }
}

fn open() -> Result<Generic, Error> {
    Generic::open(FAMILY, VERSION)?.ok_or(Error::Malformed("the kernel has no WireGuard netlink"))
}

/// The node's own key, made once. Whole or absent after a crash, and never readable by others.
fn private_key(path: &Path) -> Result<[u8; KEY_BYTES], StepError> {
    let step = |what: &str| StepError::new(format!("{what} {}", path.display()));
    match fs::read(path) {
        Ok(bytes) => {
            return bytes.try_into().map_err(|_| step("read")(io::Error::new(io::ErrorKind::InvalidData, "it does not hold 32 bytes")));
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(step("read")(e)),
        Err(_) => {}
    }
    let mut key = [0; KEY_BYTES];
    let filled = rustix::rand::getrandom(&mut key[..], rustix::rand::GetRandomFlags::empty());
    if filled.map_err(|e| StepError::new("make a WireGuard key")(e.into()))? != KEY_BYTES {
        return Err(StepError::new("make a WireGuard key")(io::ErrorKind::UnexpectedEof.into()));
    }
    let aside = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    written.map_err(step("write"))?;
    Ok(key)
}

fn write_device(w: &mut Writer, index: u32, private: &[u8; KEY_BYTES]) {
    w.bytes(DEVICE_IFINDEX, &index.to_ne_bytes());
    w.bytes(DEVICE_PRIVATE_KEY, private);
    w.bytes(DEVICE_LISTEN_PORT, &PORT.to_ne_bytes());
}

/// The link's public key and its peers. Peers that are not of our making come with empty networks, so that they are removed.
pub(crate) fn read(index: u32) -> Result<(PublicKey, BTreeSet<Entry>), Error> {
    let (mut own, mut peers) = (None, BTreeSet::new());
    open()?.dump(
        GET_DEVICE,
        |w| w.bytes(DEVICE_IFINDEX, &index.to_ne_bytes()),
        |attributes| {
            for (kind, value) in attributes {
                match kind {
                    DEVICE_PUBLIC_KEY => own = value.try_into().ok().map(PublicKey::new),
                    DEVICE_PEERS => peers.extend(Attributes::new(value).filter_map(|(_, peer)| parse_peer(peer))),
                    _ => {}
                }
            }
        },
    )?;
    Ok((own.ok_or(Error::Malformed("a WireGuard link without a key"))?, peers))
}

fn parse_peer(peer: &[u8]) -> Option<Entry> {
    let (mut key, mut node, mut cidr) = (None, Ipv4Addr::UNSPECIFIED, Ipv4Net::default());
    for (kind, value) in Attributes::new(peer) {
        match kind {
            PEER_PUBLIC_KEY => key = value.try_into().ok().map(PublicKey::new),
            // struct sockaddr_in: family, port, address.
            PEER_ENDPOINT => node = ipv4(value.get(4..8)?).unwrap_or(node),
            PEER_ALLOWED_IPS => cidr = Attributes::new(value).find_map(|(_, allowed)| parse_allowed(allowed)).unwrap_or(cidr),
            _ => {}
        }
    }
    Some(Entry::Tunnel { key: key?, node, cidr })
}

fn parse_allowed(allowed: &[u8]) -> Option<Ipv4Net> {
    let find = |wanted| Attributes::new(allowed).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    Ipv4Net::new(ipv4(find(ALLOWED_ADDRESS)?)?, *find(ALLOWED_PREFIX_LEN)?.first()?).ok()
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

/// Makes or changes a peer.
pub(crate) fn put(index: u32, key: PublicKey, node: Ipv4Addr, cidr: Ipv4Net) -> Result<(), Error> {
    open()?.execute(SET_DEVICE, |w| write_peer(w, index, key, node, cidr))
}

pub(crate) fn remove(index: u32, key: PublicKey) -> Result<(), Error> {
    open()?.execute(SET_DEVICE, |w| {
        w.bytes(DEVICE_IFINDEX, &index.to_ne_bytes());
        w.nest(DEVICE_PEERS, |w| {
            w.nest(0, |w| {
                w.bytes(PEER_PUBLIC_KEY, key.as_bytes());
                w.bytes(PEER_FLAGS, &PEER_REMOVE_ME.to_ne_bytes());
            });
        });
    })
}

fn write_peer(w: &mut Writer, index: u32, key: PublicKey, node: Ipv4Addr, cidr: Ipv4Net) {
    w.bytes(DEVICE_IFINDEX, &index.to_ne_bytes());
    w.nest(DEVICE_PEERS, |w| {
        w.nest(0, |w| {
            w.bytes(PEER_PUBLIC_KEY, key.as_bytes());
            w.bytes(PEER_FLAGS, &PEER_REPLACE_ALLOWED_IPS.to_ne_bytes());
            w.bytes(PEER_ENDPOINT, &socket_address(node));
            w.nest(PEER_ALLOWED_IPS, |w| {
                w.nest(0, |w| {
                    w.bytes(ALLOWED_FAMILY, &AF_INET.to_ne_bytes());
                    w.bytes(ALLOWED_ADDRESS, &cidr.network().octets());
                    w.bytes(ALLOWED_PREFIX_LEN, &[cidr.prefix_len()]);
                });
            });
        });
    });
}

/// `struct sockaddr_in`.
fn socket_address(node: Ipv4Addr) -> [u8; 16] {
    let mut all = [0; 16];
    all[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    all[2..4].copy_from_slice(&PORT.to_be_bytes());
    all[4..8].copy_from_slice(&node.octets());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_as_it_was_written() {
        let key = PublicKey::new([7; KEY_BYTES]);
        let (node, cidr) = (Ipv4Addr::new(192, 168, 77, 2), "10.42.1.0/24".parse().expect("a network"));
        let mut writer = Writer::default();
        write_peer(&mut writer, 5, key, node, cidr);
        let bytes = writer.into_bytes();
        let all: Vec<(u16, &[u8])> = Attributes::new(&bytes).collect();
        assert_eq!(all[0], (DEVICE_IFINDEX, &5u32.to_ne_bytes()[..]));
        assert_eq!(all[1].0, DEVICE_PEERS);
        let peers: Vec<Entry> = Attributes::new(all[1].1).filter_map(|(_, peer)| parse_peer(peer)).collect();
        assert_eq!(peers, [Entry::Tunnel { key, node, cidr }]);
    }

    /// As `wg set rk-wg peer ... endpoint 192.168.77.2:51820 allowed-ips 10.42.1.0/24` sends it, up to the keys' bytes.
    #[test]
    fn a_peers_message_has_the_kernels_layout() {
        let mut writer = Writer::default();
        write_peer(
            &mut writer,
            1,
            PublicKey::new([0; KEY_BYTES]),
            Ipv4Addr::new(192, 168, 77, 2),
            "10.42.1.0/24".parse().expect("a network"),
        );
        let bytes = writer.into_bytes();
        let peer = [
            &[36, 0, 1, 0][..],
            &[0; 32],
            &[8, 0, 3, 0, 2, 0, 0, 0],
            &[20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 168, 77, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            &[32, 0, 9, 0x80, 28, 0, 0, 0x80],
            &[6, 0, 1, 0, 2, 0, 0, 0],
            &[8, 0, 2, 0, 10, 42, 1, 0],
            &[5, 0, 3, 0, 24, 0, 0, 0],
        ]
        .concat();
        let length = |inner: usize| u8::try_from(inner + 4).expect("short");
        let expected =
            [&[8, 0, 1, 0, 1, 0, 0, 0][..], &[length(peer.len() + 4), 0, 8, 0x80, length(peer.len()), 0, 0, 0x80], &peer].concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_key_is_made_once_and_only_root_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(KEY_FILE);
        let key = private_key(&path).expect("made");
        assert_eq!(private_key(&path).expect("read"), key);
        assert_ne!(key, [0; KEY_BYTES]);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
        fs::write(&path, "short").expect("written");
        assert_eq!(private_key(&path).expect_err("broken").source.to_string(), "it does not hold 32 bytes");
    }
}
