//! Endpoints and EndpointSlices.
//!
//! Models pkg/apis/core/validation/validation.go `ValidateEndpoints`, `ValidateNonSpecialIP` and pkg/apis/discovery/validation.
use std::net::IpAddr;

use super::check::*;
use super::container::PROTOCOLS;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

/// Addresses that mean the machine one stands on, or nothing, are refused.
pub(super) fn ordinary_ip(errors: &mut Errors, address: &str, path: &Path) {
    let Some(ip) = names::parse_ip_sloppy(address) else {
        errors.push(FieldError::invalid(path, address, "must be a valid IP address"));
        return;
    };
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.push(FieldError::invalid(path, address, format!("may not be unspecified ({address})")));
    }
    let refused = [
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    for (_, detail) in refused.into_iter().filter(|(applies, _)| *applies) {
        errors.push(FieldError::invalid(path, address, detail));
    }
}

pub(super) fn endpoints(errors: &mut Errors, endpoints: &Tree) {
    let subsets = Path::new("subsets");
    for (i, subset) in list(endpoints, "subsets").iter().enumerate() {
        let path = subsets.index(i);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            errors.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for key in ["addresses", "notReadyAddresses"] {
            let all = path.child(key);
            for (j, address) in list(subset, key).iter().enumerate() {
                let path = all.index(j);
                ip(errors, text(address, "ip"), &path.child("ip"));
                if !text(address, "hostname").is_empty() {
                    dns_label(errors, text(address, "hostname"), &path.child("hostname"));
                }
                if let Some(node) = set(address, "nodeName").and_then(Tree::as_str) {
                    dns_subdomain(errors, node, &path.child("nodeName"));
                }
                ordinary_ip(errors, text(address, "ip"), &path.child("ip"));
            }
        }
        let ports = list(subset, "ports");
        let ports_path = path.child("ports");
        for (j, port) in ports.iter().enumerate() {
            let path = ports_path.index(j);
            match text(port, "name") {
                "" if ports.len() > 1 => errors.push(FieldError::required(path.child("name"), "")),
                "" => {}
                name => dns_label(errors, name, &path.child("name")),
            }
            port_number(errors, int(port, "port").unwrap_or(0), &path.child("port"));
            one_of(errors, text(port, "protocol"), PROTOCOLS, &path.child("protocol"));
            if let Some(protocol) = set(port, "appProtocol").and_then(Tree::as_str) {
                label_name(errors, protocol, &path.child("appProtocol"));
            }
        }
    }
}

pub(super) fn endpoint_slice(errors: &mut Errors, slice: &Tree, old: Option<&Tree>) {
    let kind = text(slice, "addressType");
    let path = Path::new("addressType");
    one_of(errors, kind, &["FQDN", "IPv4", "IPv6"], &path);
    slice_ports(errors, slice);
    if old.is_none_or(|old| !same_at(slice, old, "endpoints")) {
        slice_endpoints(errors, slice, kind);
    }
    if let Some(old) = old {
        declared_immutable(errors, slice, old, "addressType");
    }
}

fn slice_endpoints(errors: &mut Errors, slice: &Tree, kind: &str) {
    let all = Path::new("endpoints");
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > 1000 {
        errors.push(FieldError::too_many(all, endpoints.len(), 1000));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = all.index(i);
        let addresses_path = path.child("addresses");
        let addresses = strings(endpoint, "addresses");
        match addresses.len() {
            0 => errors.push(FieldError::required(addresses_path, "")),
            1..=100 => {}
            count => errors.push(FieldError::too_many(addresses_path, count, 100)),
        }
        for (j, address) in addresses.into_iter().enumerate() {
            let path = addresses_path.index(j);
            match kind {
                "IPv4" | "IPv6" => {
                    let texts = if kind == "IPv6" { names::canonical_ip(address) } else { names::ip(address) };
                    let is_other = names::parse_ip_sloppy(address).is_some_and(|parsed| parsed.is_ipv4() != (kind == "IPv4"));
                    if !texts.is_empty() {
                        invalid(errors, &path, address, texts);
                        continue;
                    }
                    if is_other {
                        errors.push(FieldError::invalid(addresses_path, address, format!("must be an {kind} address")));
                    }
                    ordinary_ip(errors, address, &path);
                }
                "FQDN" => fqdn(errors, address, &path),
                _ => {}
            }
        }
        if let Some(node) = set(endpoint, "nodeName").and_then(Tree::as_str) {
            dns_subdomain(errors, node, &path.child("nodeName"));
        }
        let topology = path.child("deprecatedTopology");
        let count = at(endpoint, "deprecatedTopology").as_object().map_or(0, |o| o.len());
        if count > 16 {
            errors.push(FieldError::too_many(topology, count, 16));
        }
        labels(errors, at(endpoint, "deprecatedTopology"), &topology);
        if let Some(hostname) = set(endpoint, "hostname").and_then(Tree::as_str) {
            dns_label(errors, hostname, &path.child("hostname"));
        }
        let hints = path.child("hints");
        let zones_path = hints.child("forZones");
        let zones: Vec<&str> = endpoint.array_at(&["hints", "forZones"]).iter().map(|z| text(z, "name")).collect();
        if zones.len() > 8 {
            errors.push(FieldError::too_many(zones_path, zones.len(), 8));
        }
        let nodes_path = hints.child("forNodes");
        let nodes: Vec<&str> = endpoint.array_at(&["hints", "forNodes"]).iter().map(|node| text(node, "name")).collect();
        if nodes.len() > 8 {
            errors.push(FieldError::too_many(nodes_path, nodes.len(), 8));
        }
        for (j, node) in nodes.iter().enumerate().take(if nodes.len() > 8 { 0 } else { 8 }) {
            let path = nodes_path.index(j).child("name").to_string();
            if nodes[..j].contains(node) {
                errors.push(FieldError::duplicate(&path, *node));
            }
            errors.extend(names::dns1123_subdomain(node).into_iter().map(|text| FieldError::invalid(&path, *node, text)));
        }
        if zones.len() > 8 {
            continue;
        }
        for (j, zone) in zones.iter().enumerate() {
            let zone_path = zones_path.index(j);
            if zones[..j].contains(zone) {
                errors.push(FieldError::duplicate(zone_path.child("name"), *zone));
            }
            invalid(errors, &zone_path.child("name"), zone, names::label_value(zone));
        }
    }
}

/// Models apimachinery `IsFullyQualifiedDomainName`.
fn fqdn(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let texts = names::dns1123_subdomain(name);
    if !texts.is_empty() {
        errors.push(FieldError::invalid(path, name, texts.join(",")));
    } else if !name.contains('.') {
        errors.push(FieldError::invalid(path, name, "should be a domain with at least two segments separated by dots"));
    } else {
        for label in name.split('.') {
            let texts = names::dns1123_label(label);
            if !texts.is_empty() {
                errors.push(FieldError::invalid(path, label, texts.join(",")));
            }
        }
    }
}

fn slice_ports(errors: &mut Errors, slice: &Tree) {
    let all = Path::new("ports");
    let ports = list(slice, "ports");
    if ports.len() > 20_000 {
        errors.push(FieldError::too_many(all, ports.len(), 20_000));
        return;
    }
    let mut seen: Seen<&str> = Seen::new();
    for (i, port) in ports.iter().enumerate() {
        let path = all.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            dns_label(errors, name, &path.child("name"));
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        match set(port, "protocol") {
            None => errors.push(FieldError::required(path.child("protocol"), "")),
            Some(protocol) => supported(errors, protocol.as_str().unwrap_or(""), PROTOCOLS, &path.child("protocol")),
        }
        if let Some(protocol) = set(port, "appProtocol").and_then(Tree::as_str) {
            label_name(errors, protocol, &path.child("appProtocol"));
        }
    }
}
