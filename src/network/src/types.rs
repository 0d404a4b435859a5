//! The vocabulary of this crate: what callers hand in and get back.
use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::error::InvalidIfName;
use crate::mesh::Backend;

/// The name of a network link: 1 to 15 bytes, and no dot, because a dot breaks sysctl paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName(String);

impl IfName {
    pub fn new(name: &str) -> Result<Self, InvalidIfName> {
        let fits = (1..=15).contains(&name.len());
        let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits && clean { Ok(IfName(name.to_owned())) } else { Err(InvalidIfName { name: name.to_owned() }) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node must know to connect its pods.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The link that holds the pods' gateway address; `rk0` by default.
    pub bridge: IfName,
    /// This node's share of the cluster's pod addresses. The first address is the bridge's own.
    pub pod_cidr: Ipv4Net,
    /// Addresses of all pods of the cluster.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services (ClusterIPs).
    pub service_cidr: Ipv4Net,
    /// How pods of other nodes are reached.
    pub backend: Backend,
    /// Of the pods' links. `None`: that of the node's own links, less what the backend puts around a packet.
    pub mtu: Option<u32>,
    /// Allocated addresses are recorded below this directory.
    pub state_dir: PathBuf,
    pub node_ip: Ipv4Addr,
}

impl NodeConfig {
    /// A configuration with the customary bridge name, the usual backend, and an MTU that fits the node's links.
    pub fn new(pod_cidr: Ipv4Net, cluster_cidr: Ipv4Net, service_cidr: Ipv4Net, node_ip: Ipv4Addr, state_dir: PathBuf) -> Self {
        NodeConfig {
            bridge: IfName("rk0".to_owned()),
            pod_cidr: pod_cidr.trunc(),
            cluster_cidr: cluster_cidr.trunc(),
            service_cidr: service_cidr.trunc(),
            backend: Backend::default(),
            mtu: None,
            state_dir,
            node_ip,
        }
    }

    /// The bridge's address, which is the pods' gateway: the first of the pod CIDR.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).wrapping_add(1))
    }
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub sandbox_id: String,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// The host's end of the pod's link.
    pub link: IfName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol's number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// A port of the host that leads to a port of one local pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `None`: every address of the host but loopback.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub protocol: Protocol,
    pub pod_ip: Ipv4Addr,
    pub pod_port: u16,
}

/// Identifies a Service to the writer; callers use `namespace/name`.
pub type ServiceId = Arc<str>;

/// All Services of a node at once.
pub type ServiceTable = HashMap<ServiceId, ServiceRule>;

/// How one Service is reached and where its connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRule {
    pub cluster_ips: Vec<Ipv4Addr>,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    pub ports: Vec<PortRule>,
    /// Session affinity by client address: how long a client stays with its endpoint.
    pub affinity: Option<Duration>,
    /// From outside the cluster only `local_endpoints` are used, and the client's address is kept.
    pub external_traffic_local: bool,
    /// To the cluster IPs only `local_endpoints` are used.
    pub internal_traffic_local: bool,
    /// Who may use the load balancer IPs; empty: everyone.
    pub load_balancer_source_ranges: Vec<Ipv4Net>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    /// Endpoints for the traffic policy Cluster.
    pub endpoints: Vec<SocketAddrV4>,
    /// Endpoints on this node for the traffic policy Local. May hold terminating ones that `endpoints` leaves out.
    pub local_endpoints: Vec<SocketAddrV4>,
}
