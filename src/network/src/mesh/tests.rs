//! What a set of peers means for the kernel.
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use expect_test::{Expect, expect};

use super::plan::{Entry, Local, Place, Step, diff, wanted};
use super::{Backend, Peer, PublicKey};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);

fn local(backend: Backend) -> Local {
    let cidr = |text: &str| text.parse().expect("a network");
    Local { backend, node_ip: Ipv4Addr::new(192, 168, 77, 1), pod_cidr: cidr("10.42.0.0/24"), cluster_cidr: cidr("10.42.0.0/16") }
}

/// "name address network" and, for WireGuard, the key's first byte.
fn peers(text: &str) -> Vec<Peer> {
    let peer = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Peer {
            name: words[0].to_owned(),
            node_ip: words[1].parse().expect("an address"),
            pod_cidr: words[2].parse().expect("a network"),
            public_key: words.get(3).map(|byte| PublicKey::new([byte.parse().expect("a byte"); 32])),
        }
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(peer).collect()
}

/// 192.168.77.0/24 is on link 2, 192.168.0.0/16 behind a router, all else nowhere.
fn place(node: Ipv4Addr) -> Place {
    match node.octets() {
        [192, 168, 77, _] => Place::OnLink(2),
        [192, 168, ..] => Place::Behind(ROUTER),
        _ => Place::Nowhere,
    }
}

fn entries(backend: Backend, text: &str) -> BTreeSet<Entry> {
    wanted(&local(backend), Some(7), &peers(text), place).0
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn show(entry: &Entry) -> String {
    match entry {
        Entry::Neighbour { address, mac: m } => format!("neighbour {address} is {}", mac(*m)),
        Entry::Forward { mac: m, node } => format!("{} is at {node}", mac(*m)),
        Entry::Tunnel { key, node, cidr } => format!("tunnel {}.. at {node} for {cidr}", &key.to_string()[..4]),
        Entry::Route { to, via: Some(via), link } => format!("route {to} via {via} link {link}"),
        Entry::Route { to, via: None, link } => format!("route {to} link {link}"),
    }
}

#[track_caller]
fn check_wanted(backend: Backend, text: &str, expected: Expect) {
    let (entries, unreachable) = wanted(&local(backend), Some(7), &peers(text), place);
    let mut out = String::new();
    entries.iter().for_each(|entry| writeln!(out, "{}", show(entry)).expect("a string"));
    unreachable.iter().for_each(|peer| writeln!(out, "{peer}").expect("a string"));
    expected.assert_eq(&out);
}

#[track_caller]
fn check_change(backend: Backend, before: &str, after: &str, expected: Expect) {
    let steps = diff(&entries(backend, before), &entries(backend, after));
    let mut out = String::new();
    for step in steps {
        let (sign, entry) = match &step {
            Step::Remove(entry) => ('-', entry),
            Step::Put(entry) => ('+', entry),
        };
        writeln!(out, "{sign} {}", show(entry)).expect("a string");
    }
    expected.assert_eq(&out);
}

#[test]
fn each_backend_has_its_own_way_to_a_peer() {
    let two = "b 192.168.77.2 10.42.1.0/24 1\nc 192.168.99.3 10.42.2.0/24";
    check_wanted(
        Backend::Vxlan,
        two,
        expect![[r#"
            neighbour 10.42.1.0 is 0a:58:0a:2a:01:00
            neighbour 10.42.2.0 is 0a:58:0a:2a:02:00
            0a:58:0a:2a:01:00 is at 192.168.77.2
            0a:58:0a:2a:02:00 is at 192.168.99.3
            route 10.42.1.0/24 via 10.42.1.0 link 7
            route 10.42.2.0/24 via 10.42.2.0 link 7
        "#]],
    );
    check_wanted(
        Backend::HostGw,
        two,
        expect![[r#"
            route 10.42.1.0/24 via 192.168.77.2 link 2
            pods of node c (192.168.99.3, 10.42.2.0/24) cannot be reached: it is behind the router 192.168.77.254, and the backend host-gw needs nodes on one link: use vxlan or wireguard
        "#]],
    );
    check_wanted(
        Backend::Wireguard,
        two,
        expect![[r#"
            tunnel AQEB.. at 192.168.77.2 for 10.42.1.0/24
            route 10.42.1.0/24 link 7
            pods of node c (192.168.99.3, 10.42.2.0/24) cannot be reached: it has published no WireGuard key
        "#]],
    );
}

#[test]
fn peers_that_would_take_others_packets_are_refused() {
    check_wanted(
        Backend::HostGw,
        "everything 192.168.77.2 0.0.0.0/0
         ours 192.168.77.3 10.42.0.128/25
         whole 192.168.77.4 10.42.0.0/16
         me 192.168.77.1 10.42.9.0/24
         first 192.168.77.5 10.42.4.0/23
         inside 192.168.77.6 10.42.5.0/24
         around 192.168.77.7 10.42.4.0/22
         beside 192.168.77.8 10.42.6.0/24
         away 172.16.0.1 10.42.7.0/24",
        expect![[r#"
            route 10.42.4.0/23 via 192.168.77.5 link 2
            route 10.42.6.0/24 via 192.168.77.8 link 2
            pods of node everything (192.168.77.2, 0.0.0.0/0) cannot be reached: its pod CIDR is not in the cluster's, 10.42.0.0/16
            pods of node ours (192.168.77.3, 10.42.0.128/25) cannot be reached: its pod CIDR overlaps that of this node
            pods of node whole (192.168.77.4, 10.42.0.0/16) cannot be reached: its pod CIDR overlaps that of this node
            pods of node me (192.168.77.1, 10.42.9.0/24) cannot be reached: its address is this node's own
            pods of node inside (192.168.77.6, 10.42.5.0/24) cannot be reached: its pod CIDR overlaps that of first
            pods of node around (192.168.77.7, 10.42.4.0/22) cannot be reached: its pod CIDR overlaps that of first
            pods of node away (172.16.0.1, 10.42.7.0/24) cannot be reached: there is no route to it
        "#]],
    );
}

#[test]
fn what_a_route_needs_stands_before_it_and_goes_after_it() {
    let one = "b 192.168.77.2 10.42.1.0/24 1";
    check_change(
        Backend::Vxlan,
        "",
        one,
        expect![[r#"
            + neighbour 10.42.1.0 is 0a:58:0a:2a:01:00
            + 0a:58:0a:2a:01:00 is at 192.168.77.2
            + route 10.42.1.0/24 via 10.42.1.0 link 7
        "#]],
    );
    check_change(
        Backend::Vxlan,
        one,
        "",
        expect![[r#"
            - route 10.42.1.0/24 via 10.42.1.0 link 7
            - 0a:58:0a:2a:01:00 is at 192.168.77.2
            - neighbour 10.42.1.0 is 0a:58:0a:2a:01:00
        "#]],
    );
    check_change(Backend::Vxlan, one, one, expect![""]);
}

#[test]
fn a_peer_that_moves_keeps_its_route() {
    let (before, after) = ("b 192.168.77.2 10.42.1.0/24 1", "b 192.168.77.9 10.42.1.0/24 1");
    check_change(
        Backend::Vxlan,
        before,
        after,
        expect![[r#"
            - 0a:58:0a:2a:01:00 is at 192.168.77.2
            + 0a:58:0a:2a:01:00 is at 192.168.77.9
        "#]],
    );
    check_change(
        Backend::HostGw,
        before,
        after,
        expect![[r#"
        + route 10.42.1.0/24 via 192.168.77.9 link 2
    "#]],
    );
    check_change(
        Backend::Wireguard,
        before,
        after,
        expect![[r#"
        + tunnel AQEB.. at 192.168.77.9 for 10.42.1.0/24
    "#]],
    );
    // A new key, as after a reinstallation: the old peer goes.
    check_change(
        Backend::Wireguard,
        before,
        "b 192.168.77.2 10.42.1.0/24 2",
        expect![[r#"
            - tunnel AQEB.. at 192.168.77.2 for 10.42.1.0/24
            + tunnel AgIC.. at 192.168.77.2 for 10.42.1.0/24
        "#]],
    );
}

#[test]
fn backends_and_keys_are_read_as_they_are_printed() {
    for backend in Backend::ALL {
        assert_eq!(backend.to_string().parse::<Backend>().expect("known"), backend);
    }
    assert_eq!(
        "".parse::<Backend>().expect_err("unknown").to_string(),
        r#"unknown network backend "": vxlan, host-gw and wireguard are known"#
    );
    let key = PublicKey::new([0xab; 32]);
    assert_eq!(key.to_string().parse::<PublicKey>().expect("a key"), key);
    for text in ["", "AAAA", "no base64!", "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6ur"] {
        assert!(text.parse::<PublicKey>().is_err(), "{text}");
    }
}
