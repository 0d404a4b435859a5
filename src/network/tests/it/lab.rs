//! A node, a client outside and pods, as network namespaces; servers and clients as threads inside them.
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use network::{Network, NodeConfig, PortRule, Protocol, ServiceRule};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 80);
pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);

static NAMES: AtomicU32 = AtomicU32::new(0);

/// A named network namespace, removed when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Namespace {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let name = format!("rk-t{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Namespace { name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs a program inside and returns what it prints.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.name, program];
        all.extend(arguments);
        run("ip", &all)
    }

    /// Runs `work` on a thread inside.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.thread(work).join().expect("the thread does not panic")
    }

    fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let netns = File::open(self.path()).expect("the namespace exists");
        std::thread::spawn(move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
            work()
        })
    }

    /// Answers every TCP connection and UDP datagram to `port` with this server's name and the client's address.
    pub fn serve(&self, server: &'static str, port: u16) {
        let (tcp, udp) = self.inside(move || {
            let any = SocketAddr::from(([0, 0, 0, 0], port));
            let tcp = TcpListener::bind(any).expect("a free port");
            let udp = UdpSocket::bind(any).expect("a free port");
            (tcp, udp)
        });
        // Both threads end with the test process.
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("a connection");
                let peer = stream.peer_addr().expect("a peer").ip();
                let _ = write!(stream, "{server} {peer}");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{server} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// What the server behind `to` says: its name and the address that it sees.
    pub fn ask(&self, to: SocketAddrV4) -> Result<(String, Ipv4Addr), std::io::ErrorKind> {
        self.inside(move || {
            let stream = TcpStream::connect_timeout(&to.into(), Duration::from_millis(1500)).map_err(|e| e.kind())?;
            read_answer(stream)
        })
    }

    /// As [`Namespace::ask`], from one of several addresses of the namespace.
    pub fn ask_as(&self, from: Ipv4Addr, to: SocketAddrV4) -> Result<(String, Ipv4Addr), std::io::ErrorKind> {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        self.inside(move || {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
            bind(&socket, &SocketAddrV4::new(from, 0)).expect("an own address");
            connect(&socket, &to).map_err(|e| std::io::Error::from(e).kind())?;
            read_answer(TcpStream::from(socket))
        })
    }

    /// The names of the servers that answer `times` connections, sorted, each once.
    pub fn servers(&self, to: SocketAddrV4, times: usize) -> Vec<String> {
        let mut names: Vec<String> = (0..times).map(|_| self.ask(to).expect("an answer").0).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn read_answer(mut stream: TcpStream) -> Result<(String, Ipv4Addr), std::io::ErrorKind> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.kind())?;
    let (server, peer) = text.split_once(' ').expect("two words");
    Ok((server.to_owned(), peer.parse().expect("an address")))
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A node without a default route, a client on its wire, and a folder for its state.
pub struct Lab {
    pub node: Namespace,
    pub client: Namespace,
    pub state: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let (node, client) = (Namespace::new("node"), Namespace::new("client"));
        node.run("ip", &["link", "set", "lo", "up"]);
        let pair = "link add wire0 mtu 1400 type veth peer name wire0 netns";
        let mut words: Vec<&str> = pair.split(' ').collect();
        words.push(&client.name);
        node.run("ip", &words);
        for (side, address) in [(&node, NODE), (&client, CLIENT)] {
            side.run("ip", &["addr", "add", &format!("{address}/24"), "dev", "wire0"]);
            side.run("ip", &["link", "set", "wire0", "up"]);
        }
        // External IPs are somebody's to route here.
        client.run("ip", &["route", "add", "203.0.113.0/24", "via", &NODE.to_string()]);
        let state = tempfile::tempdir().expect("a directory");
        Lab { node, client, state }
    }

    pub fn config(&self) -> NodeConfig {
        let cidr = |text: &str| text.parse().expect("a network");
        NodeConfig::new(cidr("10.42.0.0/24"), cidr("10.42.0.0/16"), cidr("10.43.0.0/16"), NODE, self.state.path().to_owned())
    }

    /// Attached pods that serve TCP and UDP port 8080 under their names, with their addresses.
    pub async fn pods<const N: usize>(&self, network: &Network, names: [&'static str; N]) -> [(Namespace, Ipv4Addr); N] {
        let mut all = Vec::new();
        for name in names {
            let pod = Namespace::new(name);
            let attached = network.attach(name, &pod.path()).await.expect("attached");
            pod.serve(name, 8080);
            all.push((pod, attached.address));
        }
        all.try_into().unwrap_or_else(|_| panic!("as many as names"))
    }

    /// The rules as nft prints them; that it can print them is part of every test.
    pub fn ruleset(&self) -> String {
        self.node.run("nft", &["-j", "list", "table", "ip", "rk-proxy"]);
        self.node.run("nft", &["list", "ruleset"])
    }
}

/// Whether the tests can run here; says so if not.
pub fn able() -> bool {
    let able = rustix::process::geteuid().is_root()
        && ["ip", "nft"].iter().all(|program| {
            let found = Command::new(program).arg("-V").output();
            found.is_ok()
        });
    if !able {
        eprintln!("SKIPPED: needs root and the programs ip and nft");
    }
    able
}

/// Runs a test with a lab, on a thread inside its node.
pub fn with_lab<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<Lab>) -> F + Send + 'static) {
    if !able() {
        return;
    }
    let lab = std::sync::Arc::new(Lab::new());
    let thread = lab.node.thread({
        let lab = lab.clone();
        move || {
            // Threads begin in the namespace of the one that starts them.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(test(lab));
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A Service with one TCP port 80 on [`VIP`] and port 8080 of its endpoints, all of which are local.
pub fn service(endpoints: &[Ipv4Addr]) -> ServiceRule {
    let endpoints: Vec<SocketAddrV4> = endpoints.iter().map(|ip| SocketAddrV4::new(*ip, 8080)).collect();
    ServiceRule {
        cluster_ips: vec![VIP],
        ports: vec![PortRule { protocol: Protocol::Tcp, port: 80, node_port: None, local_endpoints: endpoints.clone(), endpoints }],
        ..ServiceRule::default()
    }
}

pub fn at(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}
