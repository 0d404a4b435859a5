//! The addresses behind a Service, for the server's own calls.
use std::net::IpAddr;

use api::tree::Tree;

use crate::cache::Cache;

/// The ready endpoints of a Service's port, which has a name or is the only one.
pub fn ready(cache: &Cache, namespace: &str, service: &str, port_name: &str) -> Vec<(IpAddr, u16)> {
    let mut found = Vec::new();
    let slices = cache.list("discovery.k8s.io", "endpointslices", Some(namespace));
    for slice in slices.iter().filter(|s| s.label("kubernetes.io/service-name") == Some(service)) {
        let slice = slice.tree();
        let port = slice.array_at(&["ports"]).iter().find(|p| p.str_at(&["name"]) == port_name);
        let port = port.and_then(|p| p.get("port")).and_then(Tree::as_i64).and_then(|n| u16::try_from(n).ok());
        let Some(port) = port else { continue };
        for endpoint in slice.array_at(&["endpoints"]) {
            if endpoint.at(&["conditions", "ready"]).and_then(Tree::as_bool) != Some(false) {
                let addresses = endpoint.array_at(&["addresses"]).iter().filter_map(Tree::as_str);
                found.extend(addresses.filter_map(|ip| Some((ip.parse().ok()?, port))));
            }
        }
    }
    found
}
