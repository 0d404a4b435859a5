//! From a Service's rule to the addresses it is reached at and what happens there. Pure.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::types::{HostPort, PortRule, Protocol, ServiceRule};

/// Where a connection may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Frontend {
    Address {
        ip: Ipv4Addr,
        protocol: Protocol,
        port: u16,
    },
    /// On every address of the node but loopback.
    Port {
        protocol: Protocol,
        port: u16,
    },
}

impl Frontend {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Frontend::Address { protocol, .. } | Frontend::Port { protocol, .. } => protocol,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// All endpoints for everyone; who comes from outside is masqueraded.
    Everywhere,
    /// From outside only the local endpoints, with the client's address kept; pods and the node itself reach all.
    LocalForOutside,
    /// The endpoints, never masqueraded: they are local.
    Direct,
}

/// What is done with connections when there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenEmpty {
    Reject,
    /// Other nodes have endpoints; the client may try there.
    Drop,
}

/// What happens to the connections of one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub policy: Policy,
    pub endpoints: Arc<[SocketAddrV4]>,
    /// For [`Policy::LocalForOutside`].
    pub local: Arc<[SocketAddrV4]>,
    pub when_empty: WhenEmpty,
    pub affinity_seconds: Option<u32>,
    /// Who may connect; empty: everyone.
    pub sources: Arc<[Ipv4Net]>,
    /// The frontend is a ClusterIP: its other ports are refused.
    pub cluster_ip: bool,
}

impl Backend {
    /// Whether connections to `endpoint` are still right.
    pub(crate) fn has(&self, endpoint: &SocketAddrV4) -> bool {
        self.endpoints.contains(endpoint) || self.local.contains(endpoint)
    }
}

/// Affinity chains are made per timeout; upstream allows up to a day.
const AFFINITY_SECONDS_MAX: u64 = 86_400;

fn sorted(endpoints: &[SocketAddrV4]) -> Arc<[SocketAddrV4]> {
    let mut all = endpoints.to_vec();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// All frontends of a Service. An address named twice (say, as external and load balancer IP) comes once, with its first role.
pub(crate) fn of_service(rule: &ServiceRule) -> Vec<(Frontend, Arc<Backend>)> {
    let mut all: Vec<(Frontend, Arc<Backend>)> = Vec::new();
    let affinity_seconds = rule.affinity.map(|a| {
        let seconds = a.as_secs().clamp(1, AFFINITY_SECONDS_MAX);
        u32::try_from(seconds).expect("at most a day")
    });
    let none: Arc<[SocketAddrV4]> = Arc::from([]);
    let everyone: Arc<[Ipv4Net]> = Arc::from([]);
    let sources: Arc<[Ipv4Net]> = rule.load_balancer_source_ranges.iter().map(|range| range.trunc()).collect();
    for port in &rule.ports {
        let cluster_wide = sorted(&port.endpoints);
        let local = sorted(&port.local_endpoints);
        let inside = Arc::new(Backend {
            policy: Policy::Everywhere,
            endpoints: match rule.internal_traffic_local {
                true => local.clone(),
                false => cluster_wide.clone(),
            },
            local: none.clone(),
            when_empty: match rule.internal_traffic_local && !cluster_wide.is_empty() {
                true => WhenEmpty::Drop,
                false => WhenEmpty::Reject,
            },
            affinity_seconds,
            sources: everyone.clone(),
            cluster_ip: true,
        });
        let outside = Backend {
            policy: match rule.external_traffic_local {
                true => Policy::LocalForOutside,
                false => Policy::Everywhere,
            },
            local: match rule.external_traffic_local {
                true => local,
                false => none.clone(),
            },
            endpoints: cluster_wide,
            when_empty: WhenEmpty::Reject,
            affinity_seconds,
            sources: everyone.clone(),
            cluster_ip: false,
        };
        let balanced = Arc::new(Backend { sources: sources.clone(), ..outside.clone() });
        let outside = Arc::new(outside);
        let mut add = |frontend: Frontend, backend: &Arc<Backend>| {
            if !all.iter().any(|(known, _)| *known == frontend) {
                all.push((frontend, backend.clone()));
            }
        };
        for ip in &rule.cluster_ips {
            add(at(*ip, port), &inside);
        }
        for ip in &rule.external_ips {
            add(at(*ip, port), &outside);
        }
        for ip in &rule.load_balancer_ips {
            add(at(*ip, port), &balanced);
        }
        if let Some(node_port) = port.node_port {
            let frontend = Frontend::Port { protocol: port.protocol, port: node_port };
            add(frontend, &outside);
        }
    }
    all
}

fn at(ip: Ipv4Addr, port: &PortRule) -> Frontend {
    Frontend::Address { ip, protocol: port.protocol, port: port.port }
}

/// The frontends of a sandbox's host ports.
pub(crate) fn of_host_ports(ports: &[HostPort]) -> Vec<(Frontend, Arc<Backend>)> {
    let mut all: Vec<(Frontend, Arc<Backend>)> = Vec::new();
    for port in ports {
        let frontend = match port.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => Frontend::Address { ip, protocol: port.protocol, port: port.host_port },
            None => Frontend::Port { protocol: port.protocol, port: port.host_port },
        };
        let backend = Backend {
            policy: Policy::Direct,
            endpoints: Arc::from([SocketAddrV4::new(port.pod_ip, port.pod_port)]),
            local: Arc::from([]),
            when_empty: WhenEmpty::Reject,
            affinity_seconds: None,
            sources: Arc::from([]),
            cluster_ip: false,
        };
        if !all.iter().any(|(known, _)| *known == frontend) {
            all.push((frontend, Arc::new(backend)));
        }
    }
    all
}
