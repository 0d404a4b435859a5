//! Nodes that come and go, links that fail, restarts, and the end of it all.
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use network::{Backend, teardown};

use crate::lab::{Namespace, at};
use crate::machines::{Machine, ip, join, machines};

/// Asks until there is an answer; how long that took.
fn answered(from: &Namespace, to: SocketAddrV4) -> Duration {
    let start = Instant::now();
    while from.ask(to).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "no answer from {to}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

fn nodes_come_and_go(backend: Backend) {
    let Some((wire, [one, mut two, three])) = machines(backend, [(1, 77), (2, 77), (3, 77)]) else { return };
    join(&[&one, &two, &three]);
    let ((a, a_ip), (b, b_ip), (_c, c_ip)) = (one.pod("a"), two.pod("b"), three.pod("c"));
    let empty = one.mesh_state();
    assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));

    // It goes: nothing of it stays, and its pods are unreachable at once.
    assert_eq!(one.set_peers(vec![three.as_peer()]), []);
    let state = one.mesh_state();
    for trace in ["10.42.2.0", "192.168.77.2 ", "0a:58:0a:2a:02:00"] {
        assert!(!state.contains(trace), "{trace}: {state}");
    }
    assert_eq!(a.ask(at(b_ip, 8080)), Err(ErrorKind::HostUnreachable));
    assert_eq!(a.ask(at(c_ip, 8080)), Ok(("c".to_owned(), a_ip)));

    // It comes back.
    assert_eq!(one.set_peers(vec![two.as_peer(), three.as_peer()]), []);
    assert_eq!(one.mesh_state(), empty);
    assert!(answered(&a, at(b_ip, 8080)) < Duration::from_secs(1));

    // It has another address, as after a lease of DHCP, and rk on it starts anew.
    two.ip = Ipv4Addr::new(192, 168, 77, 22);
    wire.address(&two.netns, two.ip);
    two.start();
    assert_eq!(two.set_peers(vec![one.as_peer(), three.as_peer()]), []);
    for other in [&one, &three] {
        let third = if other.number == 1 { &three } else { &one };
        assert_eq!(other.set_peers(vec![two.as_peer(), third.as_peer()]), []);
        let state = other.mesh_state();
        assert!(!state.contains("192.168.77.2 ") && state.contains("192.168.77.22"), "{state}");
    }
    assert!(answered(&a, at(b_ip, 8080)) < Duration::from_secs(1));
    assert_eq!(b.ask(at(a_ip, 8080)), Ok(("a".to_owned(), b_ip)));

    // It was removed from the cluster, joined again and was given other addresses; its old ones are another's.
    two.network = None;
    two.number = 9;
    two.start();
    let (_d, d_ip) = two.pod("d");
    assert_eq!(d_ip.octets()[..3], [10, 42, 9]);
    assert_eq!(two.set_peers(vec![one.as_peer(), three.as_peer()]), []);
    assert_eq!(one.set_peers(vec![two.as_peer(), three.as_peer()]), []);
    assert_eq!(a.ask(at(d_ip, 8080)), Ok(("d".to_owned(), a_ip)));
    assert!(!one.mesh_state().contains("10.42.2.0"), "{}", one.mesh_state());
    let routes = ip(&two.netns, "route");
    assert!(!routes.contains("10.42.2.0/24"), "{routes}");
}

#[test]
fn nodes_come_and_go_by_vxlan() {
    nodes_come_and_go(Backend::Vxlan);
}

#[test]
fn nodes_come_and_go_by_host_routes() {
    nodes_come_and_go(Backend::HostGw);
}

#[test]
fn a_restart_adopts_what_is_there_and_removes_what_is_stale() {
    let Some((_wire, [mut one, two])) = machines(Backend::Vxlan, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    let ((a, a_ip), (_b, b_ip)) = (one.pod("a"), two.pod("b"));
    let before = (one.mesh_state(), ip(&one.netns, "-j link show rk-vx"));
    one.network = None;
    assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));
    // Of a node that left while rk was down.
    ip(&one.netns, "route add 10.42.7.0/24 via 10.42.7.0 dev rk-vx onlink proto 114");
    ip(&one.netns, "neigh add 10.42.7.0 lladdr 0a:58:0a:2a:07:00 dev rk-vx nud permanent");
    one.netns.run("bridge", &["fdb", "add", "0a:58:0a:2a:07:00", "dev", "rk-vx", "dst", "192.168.77.7", "self", "permanent"]);
    one.start();
    // Until the peers are known, all of it serves.
    assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));
    assert!(one.mesh_state().contains("10.42.7.0"));
    assert_eq!(one.set_peers(vec![two.as_peer()]), []);
    assert_eq!((one.mesh_state(), ip(&one.netns, "-j link show rk-vx")), before);
    assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)));
}

#[test]
fn another_backend_takes_the_place_of_the_first() {
    let Some((_wire, [mut one, mut two])) = machines(Backend::Vxlan, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    let ((a, a_ip), (_b, b_ip)) = (one.pod("a"), two.pod("b"));
    for backend in [Backend::HostGw, Backend::Vxlan] {
        for machine in [&mut one, &mut two] {
            machine.backend = backend;
            machine.start();
        }
        join(&[&one, &two]);
        assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)), "{backend}");
        assert_eq!(ip(&one.netns, "route show proto 114").lines().count(), 1);
        assert_eq!(ip(&one.netns, "link").contains("rk-vx"), backend == Backend::Vxlan);
    }
}

fn repaired(machine: &Machine, wanted: &str) {
    let start = Instant::now();
    while machine.mesh_state() != wanted {
        assert!(start.elapsed() < Duration::from_secs(1), "{}", machine.mesh_state());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_somebody_breaks_is_repaired() {
    let Some((_wire, [one, two])) = machines(Backend::Vxlan, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    let ((a, a_ip), (_b, b_ip)) = (one.pod("a"), two.pod("b"));
    let wanted = one.mesh_state();
    for damage in ["route del 10.42.2.0/24", "link set rk-vx down", "link del rk-vx"] {
        ip(&one.netns, damage);
        // Without a link there is no state to read.
        std::thread::sleep(Duration::from_millis(200));
        repaired(&one, &wanted);
        assert_eq!(a.ask(at(b_ip, 8080)), Ok(("b".to_owned(), a_ip)), "{damage}");
    }

    let Some((wire, [one, two])) = machines(Backend::HostGw, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    let wanted = one.mesh_state();
    // The kernel takes all routes of a link that goes down.
    ip(&one.netns, "link set wire0 down");
    assert_eq!(one.mesh_state(), "");
    ip(&one.netns, "link set wire0 up");
    repaired(&one, &wanted);
    wire.address(&one.netns, one.ip);
    repaired(&one, &wanted);
}

fn nothing_is_left(backend: Backend) {
    let Some((_wire, [mut one, two])) = machines(backend, [(1, 77), (2, 77)]) else { return };
    join(&[&one, &two]);
    let _pod = one.pod("a");
    one.network = None;
    let (config, netns) = (one.config(), &one.netns);
    assert!(ip(netns, "route").contains("proto 114"));
    for _ in 0..2 {
        let (bridge, state) = (config.bridge.clone(), config.state_dir.clone());
        one.block(async move { teardown(&bridge, &state).await }).expect("torn down");
    }
    // Long enough for who repairs to have heard of it.
    std::thread::sleep(Duration::from_millis(300));
    let links = ip(netns, "-br link");
    let names: Vec<&str> = links.lines().filter_map(|line| line.split(['@', ' ']).next()).collect();
    assert_eq!(names, ["lo", "wire0"]);
    let routes = ip(netns, "route show table all");
    assert!(!routes.contains("10.42.") && !routes.contains("10.43.") && !routes.contains("114"), "{routes}");
    assert_eq!(netns.run("nft", &["list", "ruleset"]), "");
    assert_eq!(std::fs::read_dir(&config.state_dir).expect("a directory").count(), 0);
}

#[test]
fn teardown_leaves_nothing_of_vxlan() {
    nothing_is_left(Backend::Vxlan);
}

#[test]
fn teardown_leaves_nothing_of_host_routes() {
    nothing_is_left(Backend::HostGw);
}
