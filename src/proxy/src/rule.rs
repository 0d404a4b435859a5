//! What a Service and its EndpointSlices mean for the node's rules. Pure.
//!
//! Models pkg/proxy/serviceport.go newBaseServiceInfo and pkg/proxy/util/utils.go ShouldSkipService, v1.37.
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::{PortRule, Protocol, ServiceRule};

use crate::endpoints;

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not given (v1.DefaultClientIPServiceAffinitySeconds).
const AFFINITY_SECONDS: i32 = 10_800;

/// The rule of a Service on the node `node`; `None` for one that has no address to proxy.
pub fn of_service(service: &Service, slices: &[Arc<EndpointSlice>], node: &str) -> Option<ServiceRule> {
    let spec = service.spec.as_ref()?;
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        return None;
    }
    let cluster_ips = cluster_ips(spec);
    if cluster_ips.is_empty() {
        return None;
    }
    let external_ips = addresses(spec.external_ips.iter().flatten());
    let open_to_outside = match kind {
        "NodePort" | "LoadBalancer" => true,
        _ => !external_ips.is_empty(),
    };
    Some(ServiceRule {
        ports: spec.ports.iter().flatten().filter_map(|port| port_rule(port, slices, node)).collect(),
        load_balancer_ips: load_balancer_ips(service),
        load_balancer_source_ranges: source_ranges(spec),
        affinity: affinity(spec),
        external_traffic_local: open_to_outside && spec.external_traffic_policy.as_deref() == Some("Local"),
        internal_traffic_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        cluster_ips,
        external_ips,
    })
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The IPv4 ones; none for a headless Service.
fn cluster_ips(spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    match &spec.cluster_ips {
        Some(all) if !all.is_empty() => addresses(all.iter()),
        _ => addresses(spec.cluster_ip.iter()),
    }
}

/// Those that reach the node as they are; with the mode Proxy the balancer sends to the node's own address.
fn load_balancer_ips(service: &Service) -> Vec<Ipv4Addr> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter(|i| i.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|i| i.ip.as_deref()?.parse().ok())
        .collect()
}

fn source_ranges(spec: &ServiceSpec) -> Vec<Ipv4Net> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    ranges.filter_map(|text| text.trim().parse().ok()).collect()
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let client_ip = config.and_then(|c| c.client_ip.as_ref());
    let seconds = client_ip.and_then(|c| c.timeout_seconds);
    let seconds = seconds.unwrap_or(AFFINITY_SECONDS);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)))
}

fn port_rule(port: &ServicePort, slices: &[Arc<EndpointSlice>], node: &str) -> Option<PortRule> {
    let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return None,
    };
    let endpoints = endpoints::of_port(port, slices, node);
    Some(PortRule {
        protocol,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0),
        endpoints: endpoints.all,
        local_endpoints: endpoints.local,
    })
}
