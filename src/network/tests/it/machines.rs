//! Several nodes on one wire, each a network namespace with a runtime whose threads are inside it.
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;

use network::{Backend, Network, NodeConfig, Peer, Unreachable};
use tokio::runtime::Runtime;

use crate::lab::{Namespace, able, run};

/// Two bridges with a router between them: 192.168.77.0/24 and 192.168.78.0/24, the router's addresses end in 254.
pub struct Wire {
    netns: Namespace,
}

impl Wire {
    fn new() -> Wire {
        let netns = Namespace::new("wire");
        for (bridge, address) in [("br77", "192.168.77.254/24"), ("br78", "192.168.78.254/24")] {
            ip(&netns, &format!("link add {bridge} type bridge"));
            ip(&netns, &format!("addr add {address} dev {bridge}"));
            ip(&netns, &format!("link set {bridge} up"));
        }
        netns.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        Wire { netns }
    }

    /// Connects a namespace by its link `wire0`, with the router as the way to everywhere else.
    pub fn connect(&self, machine: &Namespace, address: Ipv4Addr) {
        let [_, _, subnet, host] = address.octets();
        let port = format!("p{subnet}-{host}");
        ip(&self.netns, &format!("link add {port} type veth peer name wire0 netns {}", machine.name()));
        ip(&self.netns, &format!("link set {port} master br{subnet} up"));
        ip(machine, "link set lo up");
        ip(machine, "link set wire0 up");
        self.address(machine, address);
    }

    /// Gives the machine this address and no other.
    pub fn address(&self, machine: &Namespace, address: Ipv4Addr) {
        let subnet = address.octets()[2];
        ip(machine, "addr flush dev wire0");
        ip(machine, &format!("addr add {address}/24 dev wire0"));
        ip(machine, &format!("route replace default via 192.168.{subnet}.254"));
    }
}

pub fn ip(netns: &Namespace, words: &str) -> String {
    netns.run("ip", &words.split(' ').collect::<Vec<_>>())
}

/// A node with the pod CIDR 10.42.NUMBER.0/24.
pub struct Machine {
    pub netns: Namespace,
    pub number: u8,
    pub ip: Ipv4Addr,
    pub backend: Backend,
    pub network: Option<Network>,
    state: tempfile::TempDir,
    runtime: Option<Runtime>,
}

impl Machine {
    fn new(wire: &Wire, number: u8, subnet: u8, backend: Backend) -> Machine {
        let netns = Namespace::new("node");
        let ip = Ipv4Addr::new(192, 168, subnet, number);
        wire.connect(&netns, ip);
        let runtime = netns.inside(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().build().expect("a runtime")
        });
        let state = tempfile::tempdir().expect("a directory");
        let mut machine = Machine { netns, number, ip, backend, network: None, state, runtime: Some(runtime) };
        machine.start();
        machine
    }

    /// Runs work on this node.
    pub fn block<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, answer) = mpsc::channel();
        self.runtime.as_ref().expect("until dropped").spawn(async move {
            let _ = done.send(work.await);
        });
        answer.recv().expect("the work ends")
    }

    pub fn config(&self) -> NodeConfig {
        let cidr = |text: &str| text.parse().expect("a network");
        let own = cidr(&format!("10.42.{}.0/24", self.number));
        let state = self.state.path().to_owned();
        NodeConfig { backend: self.backend, ..NodeConfig::new(own, cidr("10.42.0.0/16"), cidr("10.43.0.0/16"), self.ip, state) }
    }

    /// As at the start of rk, which knows no peers yet.
    pub fn start(&mut self) {
        if self.network.take().is_some() {
            // A process that ends takes its threads along; here one may just be repairing something.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let network = self.block(Network::setup(self.config()));
        self.network = Some(network.expect("set up"));
    }

    pub fn network(&self) -> Network {
        self.network.clone().expect("started")
    }

    pub fn as_peer(&self) -> Peer {
        let public_key = self.network().mesh().public_key().expect("readable");
        Peer { name: format!("node{}", self.number), node_ip: self.ip, pod_cidr: self.config().pod_cidr, public_key }
    }

    pub fn set_peers(&self, peers: Vec<Peer>) -> Vec<Unreachable> {
        let mesh = self.network().mesh();
        self.block(async move { mesh.set_peers(peers).await }).expect("set")
    }

    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, self.number, 1)
    }

    /// A pod that serves port 8080 under its name.
    pub fn pod(&self, name: &'static str) -> (Namespace, Ipv4Addr) {
        let pod = Namespace::new(name);
        let (network, path): (Network, PathBuf) = (self.network(), pod.path());
        let attached = self.block(async move { network.attach(name, &path).await }).expect("attached");
        pod.serve(name, 8080);
        (pod, attached.address)
    }

    /// What other tools see of the peers: routes, neighbours, forwarding entries.
    pub fn mesh_state(&self) -> String {
        let mut all = ip(&self.netns, "route show proto 114");
        if self.backend == Backend::Vxlan {
            all += &ip(&self.netns, "neigh show dev rk-vx nud permanent");
            all += &self.netns.run("bridge", &["fdb", "show", "dev", "rk-vx"]);
        }
        let mut lines: Vec<String> = all.lines().map(|line| format!("{}\n", line.trim())).collect();
        lines.sort();
        lines.concat()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.network = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Nodes at these places, (number, subnet), that do not know each other yet. `None` where the tests cannot run.
pub fn machines<const N: usize>(backend: Backend, places: [(u8, u8); N]) -> Option<(Wire, [Machine; N])> {
    if !able() {
        return None;
    }
    run("bridge", &["-V"]);
    let wire = Wire::new();
    let machines = places.map(|(number, subnet)| Machine::new(&wire, number, subnet, backend));
    Some((wire, machines))
}

/// Tells all nodes of each other.
pub fn join(machines: &[&Machine]) {
    for machine in machines {
        let others = machines.iter().filter(|other| other.number != machine.number);
        assert_eq!(machine.set_peers(others.map(|other| other.as_peer()).collect()), []);
    }
}
