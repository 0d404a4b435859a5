//! Loads 10,000 Services with 10 endpoints each in a network namespace of its own, and measures changes of one of them.
//!
//! `cargo run --release -p network --example services_load [SERVICES [ENDPOINTS]]`, as root.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use network::{Network, NodeConfig, PortRule, Protocol, ServiceId, ServiceRule, ServiceTable};

fn rule(number: u32, endpoints: u32, change: u32) -> ServiceRule {
    let endpoint = |n: u32| {
        let ip = 0x0a2a_0000 + (number * 16 + n + change) % 0xff00;
        SocketAddrV4::new(Ipv4Addr::from(ip), 8080)
    };
    ServiceRule {
        cluster_ips: vec![Ipv4Addr::from(0x0a2b_0001 + number)],
        ports: vec![PortRule {
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            endpoints: (0..endpoints).map(endpoint).collect(),
            local_endpoints: Vec::new(),
        }],
        ..ServiceRule::default()
    }
}

fn id(number: u32) -> ServiceId {
    format!("bench/service-{number}").into()
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse().expect("a number"));
    let services = numbers.next().unwrap_or(10_000);
    let endpoints = numbers.next().unwrap_or(10);
    let name = format!("rk-bench-{}", std::process::id());
    let ip = |arguments: &[&str]| {
        let status = std::process::Command::new("ip").args(arguments).status();
        assert!(status.expect("the program ip").success(), "ip {arguments:?}");
    };
    ip(&["netns", "add", &name]);
    let netns = std::fs::File::open(format!("/run/netns/{name}")).expect("just made");
    let inside = std::thread::spawn(move || {
        use std::os::fd::AsFd;
        rustix::thread::move_into_link_name_space(netns.as_fd(), None).expect("root may enter");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(measure(services, endpoints));
    });
    let result = inside.join();
    ip(&["netns", "del", &name]);
    result.expect("measured");
}

async fn measure(services: u32, endpoints: u32) {
    let state = std::env::temp_dir().join(format!("rk-bench-{}", std::process::id()));
    std::fs::create_dir_all(&state).expect("a folder");
    let net = |text: &str| text.parse().expect("a network");
    let config = NodeConfig {
        mtu: Some(1500),
        ..NodeConfig::new(net("10.42.0.0/24"), net("10.42.0.0/16"), net("10.43.0.0/16"), Ipv4Addr::LOCALHOST, state.clone())
    };
    let start = Instant::now();
    let network = Network::setup(config).await.expect("set up");
    println!("set up the node: {:?}", start.elapsed());
    let writer = network.services();
    let table: ServiceTable = (0..services).map(|n| (id(n), rule(n, endpoints, 0))).collect();
    let start = Instant::now();
    writer.replace(table).await.expect("loaded");
    println!("load {services} Services with {endpoints} endpoints: {:?}", start.elapsed());

    let times = |what: &str, change: &mut dyn FnMut(u32) -> ServiceRule| {
        let mut all: Vec<Duration> = Vec::new();
        let writer = writer.clone();
        let changes: Vec<(ServiceId, ServiceRule)> =
            (0..50).map(|n| (id(n * (services / 50).max(1)), change(n * (services / 50).max(1)))).collect();
        let what = what.to_owned();
        async move {
            for (id, rule) in changes {
                let start = Instant::now();
                writer.set_service(id, rule).await.expect("written");
                all.push(start.elapsed());
            }
            all.sort();
            println!("{what}: median {:?}, p95 {:?}", all[25], all[47]);
        }
    };
    times("replace one endpoint", &mut |n| rule(n, endpoints, 1)).await;
    times("remove one endpoint", &mut |n| rule(n, endpoints - 1, 1)).await;
    times("add one endpoint", &mut |n| rule(n, endpoints, 1)).await;
    let _ = std::fs::remove_dir_all(&state);
}
