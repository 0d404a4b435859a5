//! Services of every kind, as clients see them.
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use network::{HostPort, Network, Protocol};

use crate::lab::{BRIDGE, CLIENT, NODE, VIP, at, service, with_lab};

#[test]
fn a_cluster_ip_leads_to_all_endpoints_from_pods_and_from_the_node() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (b, b_ip), (c, c_ip)] = lab.pods(&network, ["a", "b", "c"]).await;
        let writer = network.services();
        writer.set_service("default/web".into(), service(&[a_ip, b_ip])).await.expect("written");
        lab.ruleset();
        assert_eq!(c.servers(at(VIP, 80), 40), ["a", "b"]);
        assert_eq!(lab.node.servers(at(VIP, 80), 40), ["a", "b"]);
        // The client's address is kept, but for a pod that reaches itself.
        for _ in 0..20 {
            let (server, seen) = a.ask(at(VIP, 80)).expect("an answer");
            let expected = if server == "a" { BRIDGE } else { a_ip };
            assert_eq!(seen, expected, "{server}");
            let (_, seen) = c.ask(at(VIP, 80)).expect("an answer");
            assert_eq!(seen, c_ip);
        }

        // One endpoint less, another, none.
        let set = |ips: Vec<Ipv4Addr>| writer.set_service("default/web".into(), service(&ips));
        set(vec![b_ip]).await.expect("written");
        assert_eq!(c.servers(at(VIP, 80), 20), ["b"]);
        set(vec![c_ip, b_ip, a_ip]).await.expect("written");
        assert_eq!(b.servers(at(VIP, 80), 60), ["a", "b", "c"]);
        set(vec![]).await.expect("written");
        for from in [&a, &lab.node] {
            assert_eq!(from.ask(at(VIP, 80)), Err(ErrorKind::ConnectionRefused));
        }
        set(vec![a_ip]).await.expect("written");
        assert_eq!(b.servers(at(VIP, 80), 10), ["a"]);
        // Another port is refused at once, an address of no Service leads nowhere.
        assert_eq!(c.ask(at(VIP, 81)), Err(ErrorKind::ConnectionRefused));
        let unknown = Ipv4Addr::new(10, 43, 9, 9);
        assert_eq!(c.ask(at(unknown, 80)), Err(ErrorKind::TimedOut));
        writer.remove_service("default/web".into()).await.expect("written");
        assert_eq!(c.ask(at(VIP, 80)), Err(ErrorKind::TimedOut));
        let rules = lab.ruleset();
        assert!(!rules.contains(&VIP.to_string()), "{rules}");
    });
}

#[test]
fn node_ports_and_balancer_addresses_serve_the_outside() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (_b, b_ip)] = lab.pods(&network, ["a", "b"]).await;
        let writer = network.services();
        let external = Ipv4Addr::new(203, 0, 113, 5);
        let mut rule = service(&[a_ip, b_ip]);
        rule.ports[0].node_port = Some(30080);
        rule.load_balancer_ips = vec![NODE];
        rule.external_ips = vec![external];
        writer.set_service("default/web".into(), rule.clone()).await.expect("written");
        lab.ruleset();
        for address in [at(NODE, 30080), at(NODE, 80), at(external, 80)] {
            assert_eq!(lab.client.servers(address, 40), ["a", "b"], "{address}");
            // From outside the cluster through the node: under the node's address on the pods' bridge.
            assert_eq!(lab.client.ask(address).expect("an answer").1, BRIDGE);
            assert_eq!(a.servers(address, 40), ["a", "b"], "{address}");
        }
        for address in [at(NODE, 30080), at(NODE, 80)] {
            assert_eq!(lab.node.servers(address, 40), ["a", "b"], "{address}");
        }
        let loopback = at(Ipv4Addr::LOCALHOST, 30080);
        assert_eq!(lab.node.ask(loopback), Err(ErrorKind::ConnectionRefused));

        rule.external_traffic_local = true;
        rule.ports[0].local_endpoints.truncate(1);
        writer.set_service("default/web".into(), rule.clone()).await.expect("written");
        lab.ruleset();
        for address in [at(NODE, 30080), at(NODE, 80), at(external, 80)] {
            let kept = Ok(("a".to_owned(), CLIENT));
            assert_eq!(lab.client.ask(address), kept, "{address}");
            assert_eq!(lab.client.servers(address, 20), ["a"], "{address}");
            // Pods and the node are inside: they reach all. (To the external address this node has no route.)
            if *address.ip() == NODE {
                assert_eq!(lab.node.servers(address, 40), ["a", "b"], "{address}");
            }
            assert_eq!(a.servers(address, 40), ["a", "b"], "{address}");
        }

        rule.ports[0].local_endpoints.clear();
        writer.set_service("default/web".into(), rule.clone()).await.expect("written");
        lab.ruleset();
        assert_eq!(lab.client.ask(at(NODE, 30080)), Err(ErrorKind::TimedOut));
        assert_eq!(lab.node.servers(at(NODE, 30080), 40), ["a", "b"]);
        assert_eq!(a.servers(at(VIP, 80), 40), ["a", "b"]);

        rule.ports[0].endpoints.clear();
        writer.set_service("default/web".into(), rule).await.expect("written");
        lab.ruleset();
        for address in [at(NODE, 30080), at(NODE, 80)] {
            let refused = Err(ErrorKind::ConnectionRefused);
            assert_eq!(lab.client.ask(address), refused, "{address}");
        }
    });
}

#[test]
fn internal_traffic_local_uses_local_endpoints_only() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (_b, b_ip)] = lab.pods(&network, ["a", "b"]).await;
        let mut rule = service(&[a_ip, b_ip]);
        rule.internal_traffic_local = true;
        rule.ports[0].local_endpoints.remove(0);
        let writer = network.services();
        let id = || "default/web".into();
        writer.set_service(id(), rule.clone()).await.expect("written");
        assert_eq!(a.servers(at(VIP, 80), 20), ["b"]);
        rule.ports[0].local_endpoints.clear();
        writer.set_service(id(), rule).await.expect("written");
        assert_eq!(a.ask(at(VIP, 80)), Err(ErrorKind::TimedOut));
    });
}

#[test]
fn a_client_with_session_affinity_stays_with_its_endpoint() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (b, b_ip), (c, c_ip)] = lab.pods(&network, ["a", "b", "c"]).await;
        let writer = network.services();
        let rule = |ips: &[Ipv4Addr], seconds| {
            let mut rule = service(ips);
            rule.affinity = Some(Duration::from_secs(seconds));
            rule.ports[0].node_port = Some(30080);
            rule
        };
        let id = || "default/web".into();
        writer.set_service(id(), rule(&[a_ip, b_ip, c_ip], 600)).await.expect("written");
        let text = lab.ruleset();
        assert!(text.contains("timeout 10m : ct mark"), "{text}");
        for from in [&a, &b, &c, &lab.client] {
            let address = match std::ptr::eq(from, &lab.client) {
                true => at(NODE, 30080),
                false => at(VIP, 80),
            };
            let first = from.servers(address, 20);
            assert_eq!(first.len(), 1, "{first:?}");
        }
        // Its endpoint goes: a new one, and that one for good. The others stay where they are.
        let chosen = a.servers(at(VIP, 80), 5).remove(0);
        let others = b.servers(at(VIP, 80), 5).remove(0);
        let left: Vec<Ipv4Addr> =
            [("a", a_ip), ("b", b_ip), ("c", c_ip)].into_iter().filter(|(name, _)| *name != chosen).map(|(_, ip)| ip).collect();
        writer.set_service(id(), rule(&left, 600)).await.expect("written");
        let moved = a.servers(at(VIP, 80), 20);
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert_ne!(moved[0], chosen);
        if others != chosen {
            assert_eq!(b.servers(at(VIP, 80), 10), [others]);
        }
        // Forgotten after its time.
        writer.set_service(id(), rule(&[a_ip, b_ip, c_ip], 1)).await.expect("written");
        lab.ruleset();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..12 {
            seen.insert(c.ask(at(VIP, 80)).expect("an answer").0);
            std::thread::sleep(Duration::from_millis(1600));
            if seen.len() > 1 {
                return;
            }
        }
        panic!("always {seen:?}");
    });
}

#[test]
fn host_ports_lead_to_their_pod_and_keep_the_clients_address() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (b, b_ip)] = lab.pods(&network, ["a", "b"]).await;
        let port = |host_ip, host_port| HostPort { host_ip, host_port, protocol: Protocol::Tcp, pod_ip: a_ip, pod_port: 8080 };
        let ports = vec![port(None, 80), port(Some(NODE), 8443)];
        network.set_host_ports("a", ports).await.expect("written");
        lab.ruleset();
        for number in [80, 8443] {
            let address = at(NODE, number);
            assert_eq!(lab.client.ask(address), Ok(("a".to_owned(), CLIENT)));
            assert_eq!(b.ask(address), Ok(("a".to_owned(), b_ip)));
            // The pod itself, through its own host port.
            assert_eq!(a.ask(address), Ok(("a".to_owned(), BRIDGE)));
            assert_eq!(lab.node.ask(address).expect("an answer").0, "a");
        }
        let elsewhere = at(BRIDGE, 8443);
        assert_eq!(b.ask(elsewhere), Err(ErrorKind::ConnectionRefused));
        network.detach("a").await.expect("detached");
        assert_eq!(lab.client.ask(at(NODE, 80)), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn source_ranges_bar_others_from_the_balancer_address_only() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(_a, a_ip), (b, _)] = lab.pods(&network, ["a", "b"]).await;
        let range = |text: &str| text.parse().expect("a network");
        let mut rule = service(&[a_ip]);
        rule.load_balancer_ips = vec![NODE];
        rule.ports[0].node_port = Some(30080);
        rule.load_balancer_source_ranges = vec![range("192.168.77.0/30"), range("192.168.77.2/32")];
        let writer = network.services();
        let id = || "default/web".into();
        writer.set_service(id(), rule.clone()).await.expect("written");
        lab.ruleset();
        assert_eq!(lab.client.servers(at(NODE, 80), 5), ["a"]);
        assert_eq!(b.ask(at(NODE, 80)), Err(ErrorKind::TimedOut));
        rule.load_balancer_source_ranges = vec![range("10.42.0.0/16")];
        writer.set_service(id(), rule.clone()).await.expect("written");
        lab.ruleset();
        assert_eq!(lab.client.ask(at(NODE, 80)), Err(ErrorKind::TimedOut));
        assert_eq!(lab.client.servers(at(NODE, 30080), 5), ["a"]);
        assert_eq!(b.servers(at(NODE, 80), 5), ["a"]);
        rule.load_balancer_source_ranges.clear();
        writer.set_service(id(), rule).await.expect("written");
        assert_eq!(lab.client.servers(at(NODE, 80), 5), ["a"]);
    });
}

#[test]
fn the_rules_of_an_earlier_run_serve_until_all_services_are_known() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(_a, a_ip), (b, b_ip)] = lab.pods(&network, ["a", "b"]).await;
        let writer = network.services();
        writer.set_service("default/old".into(), service(&[a_ip])).await.expect("written");
        drop((network, writer));

        let network = Network::setup(lab.config()).await.expect("set up again");
        assert_eq!(b.servers(at(VIP, 80), 5), ["a"]);
        let ports = vec![HostPort { host_ip: None, host_port: 81, protocol: Protocol::Tcp, pod_ip: a_ip, pod_port: 8080 }];
        let writer = network.services();
        let table = HashMap::from([("default/new".into(), service(&[b_ip]))]);
        let (host_ports, replaced) = tokio::join!(network.set_host_ports("a", ports), writer.replace(table));
        host_ports.expect("written");
        replaced.expect("written");
        assert_eq!(b.servers(at(VIP, 80), 5), ["b"]);
        assert_eq!(lab.client.servers(at(NODE, 81), 2), ["a"]);
        lab.ruleset();
    });
}
