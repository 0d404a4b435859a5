//! Links and addresses of pods.
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Instant;

use network::{Network, teardown};

use crate::lab::{BRIDGE, CLIENT, Namespace, at, with_lab};

#[test]
fn pods_reach_each_other_the_node_and_the_outside() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (b, b_ip)] = lab.pods(&network, ["a", "b"]).await;
        assert_eq!(a_ip, Ipv4Addr::new(10, 42, 0, 2));
        assert_eq!(b_ip, Ipv4Addr::new(10, 42, 0, 3));
        assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));
        assert_eq!(b.ask(at(a_ip, 8080)), Ok(("a".to_owned(), b_ip)));
        let loopback = Ipv4Addr::LOCALHOST;
        assert_eq!(a.ask(at(loopback, 8080)), Ok(("a".to_owned(), loopback)));
        assert_eq!(lab.node.ask(at(a_ip, 8080)), Ok(("a".to_owned(), BRIDGE)));
        // To the outside under the node's address.
        lab.client.serve("client", 8080);
        let outside = a.ask(at(CLIENT, 8080));
        assert_eq!(outside, Ok(("client".to_owned(), crate::lab::NODE)));

        // A pod that is not there, at once.
        let nobody = at(Ipv4Addr::new(10, 42, 0, 99), 8080);
        assert_eq!(a.ask(nobody), Err(ErrorKind::HostUnreachable));
        let link = lab.node.run("ip", &["-j", "link", "show", "rk0"]);
        // That of the wire, as there is no default route, less 50 for VXLAN.
        assert!(link.contains(r#""mtu":1350"#), "{link}");
        let eth0 = a.run("ip", &["-j", "link", "show", "eth0"]);
        assert!(eth0.contains(r#""mtu":1350"#) && eth0.contains("0a:58:0a:2a:00:02"));
    });
}

#[test]
fn attaching_twice_changes_nothing_and_detaching_twice_is_fine() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let pod = Namespace::new("pod");
        let first = network.attach("pod", &pod.path()).await.expect("attached");
        let before = pod.run("ip", &["-j", "addr"]);
        let second = network.attach("pod", &pod.path()).await.expect("again");
        assert_eq!(first, second);
        assert_eq!(pod.run("ip", &["-j", "addr"]), before);
        network.detach("pod").await.expect("detached");
        network.detach("pod").await.expect("nothing to do");
        network.detach("never seen").await.expect("nothing to do");
        assert_eq!(network.attachments(), []);
        assert!(!lab.node.run("ip", &["link"]).contains("rkv"));
        assert!(!pod.run("ip", &["link"]).contains("eth0"));
    });
}

#[test]
fn a_namespace_that_is_gone_is_an_error_that_leaves_no_link() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let missing = std::path::Path::new("/run/netns/rk-there-is-none");
        let error = network.attach("pod", missing).await.expect_err("no such file");
        assert_eq!(error.to_string(), "connect sandbox pod with address 10.42.0.2");
        assert!(!lab.node.run("ip", &["link"]).contains("rkv"));
        network.detach("pod").await.expect("detached");
        // The pod's end goes with its namespace, and the host's end with it.
        let pod = Namespace::new("pod");
        network.attach("pod", &pod.path()).await.expect("attached");
        drop(pod);
        network.detach("pod").await.expect("detached");
        assert_eq!(network.attachments(), []);
    });
}

#[test]
fn a_restart_adopts_what_is_there_and_removes_what_is_nobodys() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let [(a, a_ip), (b, b_ip)] = lab.pods(&network, ["a", "b"]).await;
        let before = network.attachments();
        drop(network);
        // A link whose record was lost.
        let stray = "link add rkv0a2a00fe type veth";
        lab.node.run("ip", &stray.split(' ').collect::<Vec<_>>());

        let network = Network::setup(lab.config()).await.expect("set up again");
        assert_eq!(network.attachments(), before);
        assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));
        let links = lab.node.run("ip", &["link"]);
        assert!(!links.contains("rkv0a2a00fe"), "{links}");
        let again = network.attach("b", &b.path()).await.expect("again");
        assert_eq!(again.address, b_ip);
        let c = Namespace::new("c");
        let third = network.attach("c", &c.path()).await.expect("attached");
        assert_eq!(third.address, Ipv4Addr::new(10, 42, 0, 4));
    });
}

#[test]
fn attaching_takes_about_a_millisecond() {
    with_lab(|lab| async move {
        let network = Network::setup(lab.config()).await.expect("set up");
        let pods: Vec<Namespace> = (0..30).map(|_| Namespace::new("pod")).collect();
        let mut times = Vec::new();
        for (number, pod) in pods.iter().enumerate() {
            let start = Instant::now();
            let id = format!("pod-{number}");
            network.attach(&id, &pod.path()).await.expect("attached");
            times.push(start.elapsed());
        }
        times.sort();
        eprintln!("attach: median {:?}, slowest {:?}", times[15], times[29]);
        // Far above what it takes, and below what moving a link between namespaces takes.
        assert!(times[15].as_millis() < 15, "{times:?}");
    });
}

#[test]
fn teardown_leaves_nothing() {
    with_lab(|lab| async move {
        let snapshot = || {
            let links = lab.node.run("ip", &["-br", "link"]);
            let names: Vec<String> = links
                .lines()
                .map(|line| line.split('@').next().unwrap_or("").trim().to_owned())
                .map(|line| line.split(' ').next().unwrap_or("").to_owned())
                .collect();
            let routes = lab.node.run("ip", &["route", "show", "table", "all"]);
            let rules = lab.node.run("nft", &["list", "ruleset"]);
            let forward = lab.node.run("cat", &["/proc/sys/net/ipv4/ip_forward"]);
            (names, routes.replace(" linkdown", ""), rules, forward)
        };
        lab.node.run("sh", &["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]);
        let before = snapshot();
        let network = Network::setup(lab.config()).await.expect("set up");
        let _pods = lab.pods(&network, ["a", "b"]).await;
        let config = network.config().clone();
        drop(network);
        assert_ne!(snapshot(), before);
        teardown(&config.bridge, &config.state_dir).await.expect("torn down");
        assert_eq!(snapshot(), before);
        let left = std::fs::read_dir(lab.state.path()).expect("a directory");
        assert_eq!(left.count(), 0);
        teardown(&config.bridge, &config.state_dir).await.expect("nothing to do");
    });
}
