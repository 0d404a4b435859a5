//! Makes one node's network in the network namespace it is started in, and leaves it there: for measurements by hand and by
//! `tests/bench/network.py`.
//!
//! `node ADDRESS POD_CIDR STATE_DIR BACKEND [peer=ADDRESS,POD_CIDR]... [pod=NETNS]... [service=VIP:PORT,POD_IP:PORT]`; prints the
//! address of each pod. Needs root.
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use network::{Network, NodeConfig, Peer, PortRule, Protocol, ServiceRule};

const USAGE: &str = "see the first lines of this example's source";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().ok_or(USAGE);
    let (address, cidr, state, backend) = (next()?.parse::<Ipv4Addr>()?, next()?.parse()?, next()?, next()?.parse()?);
    let (cluster, services) = ("10.42.0.0/16".parse()?, "10.43.0.0/16".parse()?);
    let network = Network::setup(NodeConfig { backend, ..NodeConfig::new(cidr, cluster, services, address, state.into()) }).await?;
    let mut peers = Vec::new();
    for word in words {
        let (what, value) = word.split_once('=').ok_or(USAGE)?;
        match what {
            "peer" => {
                let (ip, cidr) = value.split_once(',').ok_or(USAGE)?;
                peers.push(Peer { name: ip.to_owned(), node_ip: ip.parse()?, pod_cidr: cidr.parse()?, public_key: None });
            }
            "pod" => {
                let attached = network.attach(value, &Path::new("/run/netns").join(value)).await?;
                println!("{}", attached.address);
            }
            "service" => {
                let (vip, endpoint) = value.split_once(',').ok_or(USAGE)?;
                let (vip, endpoint): (SocketAddrV4, SocketAddrV4) = (vip.parse()?, endpoint.parse()?);
                let port = PortRule {
                    protocol: Protocol::Tcp,
                    port: vip.port(),
                    node_port: None,
                    endpoints: vec![endpoint],
                    local_endpoints: vec![],
                };
                let rule = ServiceRule { cluster_ips: vec![*vip.ip()], ports: vec![port], ..ServiceRule::default() };
                network.services().set_service(value.into(), rule).await?;
            }
            _ => return Err(USAGE.into()),
        }
    }
    match network.mesh().set_peers(peers).await?.first() {
        Some(unreachable) => Err(unreachable.to_string().into()),
        None => Ok(()),
    }
}
