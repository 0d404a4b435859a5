//! Which endpoints of a Service's port take connections. Pure.
//!
//! Models pkg/proxy/topology.go CategorizeEndpoints, v1.37. Left out: topology hints.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};

struct Candidate {
    address: SocketAddrV4,
    local: bool,
    ready: bool,
    /// Going away, but still answering.
    draining: bool,
}

/// The endpoints of one port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub all: Vec<SocketAddrV4>,
    pub local: Vec<SocketAddrV4>,
}

/// Ready endpoints; where there is none, those that are going away but still answer. The same for the local ones alone.
pub(crate) fn of_port(port: &ServicePort, slices: &[Arc<EndpointSlice>], node: &str) -> Endpoints {
    let candidates: Vec<Candidate> = slices.iter().flat_map(|slice| candidates(port, slice, node)).collect();
    let pick = |wanted: &dyn Fn(&Candidate) -> bool| {
        let mut ready: Vec<SocketAddrV4> = candidates.iter().filter(|c| c.ready && wanted(c)).map(|c| c.address).collect();
        if ready.is_empty() {
            let draining = candidates.iter().filter(|c| c.draining && wanted(c));
            ready.extend(draining.map(|c| c.address));
        }
        ready.sort_unstable();
        ready.dedup();
        ready
    };
    Endpoints { all: pick(&|_| true), local: pick(&|c| c.local) }
}

fn candidates(port: &ServicePort, slice: &EndpointSlice, node: &str) -> Vec<Candidate> {
    if slice.address_type != "IPv4" {
        return Vec::new();
    }
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    // Ports are matched by name: the numbers behind a named target port may differ from slice to slice.
    let number = slice
        .ports
        .iter()
        .flatten()
        .find(|p| name(&p.name) == name(&port.name) && protocol(&p.protocol) == protocol(&port.protocol))
        .and_then(|p| p.port)
        .and_then(|number| u16::try_from(number).ok());
    let Some(number) = number else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let EndpointConditions { ready, serving, terminating } = conditions;
        // All addresses of one endpoint are fungible; upstream takes the first.
        let Some(address) = endpoint.addresses.first() else {
            continue;
        };
        let Ok(ip) = address.parse::<Ipv4Addr>() else {
            tracing::warn!(address, slice = slice.metadata.name, "endpoint address is not IPv4");
            continue;
        };
        all.push(Candidate {
            address: SocketAddrV4::new(ip, number),
            local: endpoint.node_name.as_deref() == Some(node),
            ready: ready.unwrap_or(true),
            draining: serving.unwrap_or(true) && terminating.unwrap_or(false),
        });
    }
    all
}
