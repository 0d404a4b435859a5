//! Pods and Services across nodes.
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use expect_test::expect;
use network::{Backend, Network, ServiceRule};

use crate::lab::{Namespace, VIP, able, at, service};
use crate::machines::{Machine, ip, join, machines};

fn set_service(machine: &Machine, rule: ServiceRule) {
    let writer = machine.network().services();
    machine.block(async move { writer.set_service("default/web".into(), rule).await }).expect("written");
}

fn pods_reach_each_other(backend: Backend) {
    let Some((_wire, [one, two, three])) = machines(backend, [(1, 77), (2, 77), (3, 77)]) else { return };
    join(&[&one, &two, &three]);
    let pods = [(&one, "a"), (&two, "b"), (&three, "c")].map(|(machine, name)| (machine.pod(name), name));
    for ((from, from_ip), _) in &pods {
        for ((_, to_ip), name) in &pods {
            assert_eq!(from.ask(at(*to_ip, 8080)), Ok(((*name).to_owned(), *from_ip)), "{name}");
        }
    }
    // The node itself, and a pod in its namespace: under the node's place among the pods.
    let (_, remote) = pods[1].0;
    assert_eq!(one.netns.ask(at(remote, 8080)), Ok(("b".to_owned(), one.gateway())));
    assert_eq!(one.netns.ask_as(one.ip, at(remote, 8080)), Ok(("b".to_owned(), one.gateway())));
    // From a pod to another node, as to any host outside.
    two.netns.serve("node2", 9000);
    assert_eq!(pods[0].0.0.ask(at(two.ip, 9000)), Ok(("node2".to_owned(), one.ip)));
    // A pod that nobody has, of a node and of none.
    for nobody in [Ipv4Addr::new(10, 42, 2, 200), Ipv4Addr::new(10, 42, 9, 9)] {
        assert_eq!(pods[0].0.0.ask(at(nobody, 8080)), Err(ErrorKind::HostUnreachable), "{nobody}");
    }
    // A full packet, which may not be cut on its way, behind the headers of IP (20) and UDP (8).
    let mtu = 1500 - backend.overhead_bytes();
    let answer = pods[0].0.0.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
        socket.send_to(&vec![0; mtu as usize - 28], at(remote, 8080)).expect("sent");
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).map(|length| buffer[..length].to_vec())
    });
    assert_eq!(answer.expect("an answer"), format!("b {}", pods[0].0.1).into_bytes());
    let link = ip(&pods[0].0.0, "-j link show eth0");
    assert!(link.contains(&format!(r#""mtu":{mtu}"#)), "{link}");
}

#[test]
fn pods_of_several_nodes_reach_each_other_by_vxlan() {
    pods_reach_each_other(Backend::Vxlan);
}

#[test]
fn pods_of_several_nodes_reach_each_other_by_host_routes() {
    pods_reach_each_other(Backend::HostGw);
}

#[test]
fn nodes_behind_a_router_are_reached_by_vxlan_and_refused_by_host_gw() {
    let Some((_wire, [one, two])) = machines(Backend::Vxlan, [(1, 77), (2, 78)]) else { return };
    join(&[&one, &two]);
    let ((a, a_ip), (_b, b_ip)) = (one.pod("a"), two.pod("b"));
    assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));

    let Some((_wire, [one, two, three])) = machines(Backend::HostGw, [(1, 77), (2, 78), (3, 77)]) else { return };
    let refused = one.set_peers(vec![two.as_peer(), three.as_peer()]);
    let texts: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["pods of node node2 (192.168.78.2, 10.42.2.0/24) cannot be reached: it is behind the router 192.168.77.254, and the backend \
         host-gw needs nodes on one link: use vxlan or wireguard"]
    );
    three.set_peers(vec![one.as_peer()]);
    let ((a, a_ip), (_c, c_ip)) = (one.pod("a"), three.pod("c"));
    assert_eq!(a.ask(at(c_ip, 8080)), Ok(("c".to_owned(), a_ip)));
}

#[test]
fn the_kernel_holds_what_other_tools_call_right() {
    let Some((_wire, [one, two])) = machines(Backend::Vxlan, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    expect![[r#"
        0a:58:0a:2a:02:00 dst 192.168.77.2 self permanent
        10.42.2.0 lladdr 0a:58:0a:2a:02:00 PERMANENT
        10.42.2.0/24 via 10.42.2.0 dev rk-vx src 10.42.1.1 onlink
    "#]]
    .assert_eq(&one.mesh_state());
    let link = ip(&one.netns, "-d link show rk-vx");
    for part in ["mtu 1450", "vxlan id 1 local 192.168.77.1", "dstport 8472 nolearning", "link/ether 0a:58:0a:2a:01:00"] {
        assert!(link.contains(part), "{part}: {link}");
    }
    // The wire is a veth: no card is beneath the tunnel that could break a checksum.
    let offload = |machine: &Machine| machine.netns.run("ethtool", &["-k", "rk-vx"]);
    assert!(offload(&one).contains("tx-checksum-ip-generic: on"), "{}", offload(&one));
    // Cards may be beneath a bridge, and it offers to work on tunnels.
    ip(&one.netns, "addr flush dev wire0");
    ip(&one.netns, "link add uplink0 type bridge");
    ip(&one.netns, "link set wire0 master uplink0");
    ip(&one.netns, "link set uplink0 up");
    ip(&one.netns, "addr add 192.168.77.1/24 dev uplink0");
    one.set_peers(vec![two.as_peer()]);
    assert!(offload(&one).contains("tx-checksum-ip-generic: off"), "{}", offload(&one));

    let Some((_wire, [one, two])) = machines(Backend::HostGw, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    expect![[r#"
        10.42.2.0/24 via 192.168.77.2 dev wire0 src 10.42.1.1 onlink
    "#]]
    .assert_eq(&one.mesh_state());
    assert!(!ip(&one.netns, "link").contains("rk-vx"));
}

fn services_work_across_nodes(backend: Backend) {
    let Some((wire, [one, two])) = machines(backend, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    let client = Namespace::new("client");
    let client_ip = Ipv4Addr::new(192, 168, 77, 100);
    wire.connect(&client, client_ip);
    let ((a, a_ip), (b, b_ip)) = (one.pod("a"), two.pod("b"));
    // Its only endpoint is on the second node.
    let mut rule = service(&[b_ip]);
    rule.ports[0].node_port = Some(30080);
    set_service(&two, rule.clone());
    rule.ports[0].local_endpoints.clear();
    set_service(&one, rule.clone());

    let served = |from| Ok(("b".to_owned(), from));
    assert_eq!(a.ask(at(VIP, 80)), served(a_ip));
    assert_eq!(one.netns.ask(at(VIP, 80)), served(one.gateway()));
    assert_eq!(b.ask(at(VIP, 80)), served(two.gateway()));
    // By a node without an endpoint, and by the other.
    assert_eq!(client.ask(at(one.ip, 30080)), served(one.gateway()));
    assert_eq!(client.ask(at(two.ip, 30080)), served(two.gateway()));
    assert_eq!(a.ask(at(one.ip, 30080)), served(one.gateway()));
    assert_eq!(a.ask(at(two.ip, 30080)), served(two.gateway()));
    assert_eq!(one.netns.ask(at(one.ip, 30080)).map(|(server, _)| server), Ok("b".to_owned()));
    assert_eq!(two.netns.ask(at(one.ip, 30080)).map(|(server, _)| server), Ok("b".to_owned()));

    rule.external_traffic_local = true;
    set_service(&one, rule.clone());
    rule.ports[0].local_endpoints = rule.ports[0].endpoints.clone();
    set_service(&two, rule);
    assert_eq!(client.ask(at(one.ip, 30080)), Err(ErrorKind::TimedOut));
    assert_eq!(client.ask(at(two.ip, 30080)), served(client_ip));
    // From inside the cluster the policy does not hold.
    assert_eq!(a.ask(at(one.ip, 30080)), served(a_ip));
    assert_eq!(one.netns.ask(at(one.ip, 30080)).map(|(server, _)| server), Ok("b".to_owned()));
}

#[test]
fn services_work_across_nodes_by_vxlan() {
    services_work_across_nodes(Backend::Vxlan);
}

#[test]
fn services_work_across_nodes_by_host_routes() {
    services_work_across_nodes(Backend::HostGw);
}

#[test]
fn wireguard_works_or_says_what_is_missing() {
    if !able() {
        return;
    }
    let probe = Namespace::new("probe");
    let has = probe.run("sh", &["-c", "ip link add wg-test type wireguard 2>/dev/null && echo yes || echo no"]);
    if has.trim() == "yes" {
        return pods_reach_each_other(Backend::Wireguard);
    }
    let Some((_wire, [one])) = machines(Backend::HostGw, [(1, 77)]) else { return };
    let mut config = one.config();
    config.backend = Backend::Wireguard;
    let error = one.block(async move { Network::setup(config).await.map(drop) }).expect_err("no WireGuard");
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        texts.push(inner.to_string());
        source = inner.source();
    }
    assert_eq!(
        texts.join(": "),
        "set up the node's network: create link rk-wg: this kernel has no WireGuard: load the module wireguard, or choose another \
         --network-backend"
    );
}
