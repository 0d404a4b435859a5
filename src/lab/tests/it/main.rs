//! Labs of idle machines: what the links do, and that nothing is left. With rk: tests/conformance and by hand.
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{HUB, Lab, Link, Plan, Role, State};

/// Labs need root; without it the test says so and passes.
fn up(name: &str) -> Option<Lab> {
    if fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) != 0) {
        eprintln!("skipped: labs need root");
        return None;
    }
    Some(Lab::up(&Plan::new(name).machine("a", Role::Idle).machine("b", Role::Idle)).expect("the lab comes up"))
}

fn address(state: &State, machine: &str) -> String {
    state.machine(machine).expect("the machine exists").address.to_string()
}

/// One TCP connection, refused or not: whether packets pass both ways, and how long that took.
fn reach(lab: &Lab, from: &str, to: &str) -> Option<Duration> {
    let script = "import socket, sys\ns = socket.socket()\ns.settimeout(2)\ntry:\n  s.connect((sys.argv[1], 9))\nexcept ConnectionRefusedError:\n  pass";
    let start = Instant::now();
    lab.run(from, ["python3", "-c", script, to]).ok().map(|_| start.elapsed())
}

/// What a lab could leave on the host.
fn host() -> BTreeSet<String> {
    let lines = |program: &str, words: &[&str]| {
        let done = Command::new(program).args(words).output().expect("the program runs");
        String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found: BTreeSet<String> =
        lines("ip", &["-br", "link"]).into_iter().filter_map(|l| l.split_whitespace().next().map(str::to_owned)).collect();
    found.extend(lines("findmnt", &["-rno", "TARGET"]).into_iter().filter(|m| m.contains("rk-lab")));
    found.extend(lines("find", &["/sys/fs/cgroup", "/run/rk-lab", "/var/tmp/rk-lab", "-name", "*it-*", "-not", "-name", ".*"]));
    found.retain(|l| !l.contains("veth"));
    found
}

#[test]
fn machines_see_each_other_and_nothing_else() {
    let Some(lab) = up("it-net") else { return };
    let b = address(lab.state(), "b");
    assert!(reach(&lab, "a", &b).is_some());
    assert_eq!(lab.run("a", ["hostname"]).expect("runs").trim(), "a");
    assert_eq!(lab.run("a", ["cat", "/proc/1/comm"]).expect("runs").trim(), "bash");
    assert!(
        lab.run("a", ["sh", "-c", "grep -v ':/$' /proc/self/cgroup | grep -v '/processes$'"]).is_err(),
        "the machine's group is its root"
    );

    let start = Instant::now();
    let lookup = "import socket\ntry:\n  socket.getaddrinfo('registry.k8s.io', 443)\nexcept socket.gaierror:\n  raise SystemExit(0)\nraise SystemExit(1)";
    lab.run("a", ["python3", "-c", lookup]).expect("the name is not found");
    assert!(lab.run("a", ["curl", "-sS", "http://1.1.1.1/"]).is_err());
    assert!(start.elapsed() < Duration::from_secs(3), "the outside is refused at once, not after {:?}", start.elapsed());
}

#[test]
fn links_are_cut_slowed_and_moved() {
    let Some(lab) = up("it-link") else { return };
    let b = address(lab.state(), "b");
    let usual = reach(&lab, "a", &b).expect("reached");
    lab.link("b", Link::Cut).expect("cut");
    assert!(reach(&lab, "a", &b).is_none());
    lab.link("b", Link::Restore).expect("restored");
    assert!(reach(&lab, "a", &b).is_some());

    lab.link("b", Link::Delay { milliseconds: 300 }).expect("delayed");
    let slow = reach(&lab, "a", &b).expect("reached");
    assert!(slow >= usual + Duration::from_millis(400), "{slow:?} after {usual:?}");
    lab.link("b", Link::Restore).expect("restored");
    assert!(reach(&lab, "a", &b).expect("reached") < Duration::from_millis(600) + usual);

    lab.link("b", Link::Loss { percent: 50 }).expect("made lossy");
    let sent =
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor _ in range(400): s.sendto(b'x', (sys.argv[1], 7))";
    let received = |lab: &Lab| {
        let text = lab.run("b", ["cat", "/sys/class/net/eth0/statistics/rx_packets"]).expect("read");
        text.trim().parse::<i64>().expect("a number")
    };
    let before = received(&lab);
    // The neighbour may be lost too, so it is fixed first.
    let mac = lab.run("b", ["cat", "/sys/class/net/eth0/address"]).expect("read");
    lab.run("a", ["ip", "neigh", "replace", &b, "lladdr", mac.trim(), "dev", "eth0"]).expect("fixed");
    lab.run("a", ["python3", "-c", sent, &b]).expect("sent");
    let arrived = received(&lab) - before;
    assert!((100..300).contains(&arrived), "{arrived} of 400 arrived");
    lab.link("b", Link::Restore).expect("restored");

    let moved = b.replace(".11", ".77");
    lab.link("b", Link::Address { address: moved.parse().expect("an address") }).expect("moved");
    assert!(reach(&lab, "a", &moved).is_some());
}

#[test]
fn two_labs_run_at_once_and_leave_nothing() {
    let before = host();
    let Some(one) = up("it-one") else { return };
    let Some(two) = up("it-two") else { return };
    assert_ne!(one.state().network, two.state().network);
    assert!(two.run(HUB, ["ip", "link", "show", "v-a"]).is_ok());
    drop(one);
    assert!(reach(&two, "a", &address(two.state(), "b")).is_some());
    drop(two);
    // Other tests of this file run beside this one and have groups of their own.
    let mine: Vec<_> = host().into_iter().filter(|l| l.contains("it-one") || l.contains("it-two")).collect();
    assert!(mine.is_empty(), "left: {mine:?}, was {before:?}");
}

#[test]
fn what_a_crash_left_is_removed_by_name() {
    let Some(lab) = up("it-crash") else { return };
    let pid = lab.run(HUB, ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]).expect("started");
    lab.keep();
    fs::remove_file("/run/rk-lab/it-crash/lab.json").expect("the state is lost as well");
    Lab::down("it-crash").expect("removed");
    // Killed; whoever is its parent now may not have collected it yet.
    assert!(fs::read_link(format!("/proc/{}/exe", pid.trim())).is_err());
    assert!(!fs::exists("/run/rk-lab/it-crash").expect("looked"));
}
