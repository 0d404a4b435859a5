//! Ingresses, IngressClasses and NetworkPolicies.
//!
//! Models pkg/apis/networking/validation/validation.go.
use std::net::IpAddr;

use super::check::*;
use super::{service, service_cidr};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "Ingress" => {
            ingress(errors, at(new, "spec"));
            let annotation = new.at(&["metadata", "annotations", CLASS_ANNOTATION]).and_then(Tree::as_str);
            let class = new.at(&["spec", "ingressClassName"]).and_then(Tree::as_str);
            if let (None, Some(annotation), Some(class)) = (old, annotation, class)
                && annotation != class {
                    let path = Path::new("annotations");
                    let detail = "must match `ingressClassName` when both are specified";
                    errors.push(FieldError::invalid(path.child(CLASS_ANNOTATION), annotation, detail));
                }
        }
        "IngressClass" => ingress_class(errors, at(new, "spec"), old.map(|o| at(o, "spec"))),
        "NetworkPolicy" => network_policy(errors, at(new, "spec")),
        "IPAddress" => service_cidr::address(errors, new, old),
        "ServiceCIDR" => service_cidr::range(errors, new, old),
        _ => {}
    }
}

pub(super) fn ingress_status(errors: &mut Errors, ingress: &Tree) {
    service::load_balancer_status(errors, ingress, false);
}

fn ingress(errors: &mut Errors, spec: &Tree) {
    let rules = list(spec, "rules");
    let default = set(spec, "defaultBackend");
    if rules.is_empty() && default.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(SPEC, &Tree::Null, detail));
    }
    if let Some(default) = default {
        backend(errors, default, &SPEC.child("defaultBackend"));
    }
    let rules_path = SPEC.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        let path = rules_path.index(i);
        let host = text(rule, "host");
        if !host.is_empty() {
            if names::parse_ip_sloppy(host).is_some() {
                errors.push(FieldError::invalid(path.child("host"), host, "must be a DNS name, not an IP address"));
            }
            host_name(errors, host, &path.child("host"));
        }
        if let Some(http) = set(rule, "http") {
            let http_path = path.child("http");
            let paths_path = http_path.child("paths");
            let paths = list(http, "paths");
            if paths.is_empty() {
                errors.push(FieldError::required(paths_path, ""));
            }
            for (j, path) in paths.iter().enumerate() {
                http_rule(errors, path, &paths_path.index(j));
            }
        }
    }
    let tls_path = SPEC.child("tls");
    for (i, tls) in list(spec, "tls").iter().enumerate() {
        let path = tls_path.index(i);
        let hosts = path.child("hosts");
        for (j, host) in strings(tls, "hosts").into_iter().enumerate() {
            host_name(errors, host, &hosts.index(j));
        }
        if !text(tls, "secretName").is_empty() {
            dns_subdomain(errors, text(tls, "secretName"), &path.child("secretName"));
        }
    }
    if let Some(class) = set(spec, "ingressClassName").and_then(Tree::as_str) {
        dns_subdomain(errors, class, &SPEC.child("ingressClassName"));
    }
}

fn host_name(errors: &mut Errors, host: &str, path: &Path) {
    let texts = if host.contains('*') { names::wildcard_dns1123_subdomain(host) } else { names::dns1123_subdomain(host) };
    invalid(errors, path, host, texts);
}

fn http_rule(errors: &mut Errors, rule: &Tree, path: &Path) {
    let Some(kind) = set(rule, "pathType").and_then(Tree::as_str) else {
        errors.push(FieldError::required(path.child("pathType"), "pathType must be specified"));
        return;
    };
    let (target, target_path) = (text(rule, "path"), path.child("path"));
    match kind {
        "Exact" | "Prefix" => {
            if !target.starts_with('/') {
                errors.push(FieldError::invalid(target_path, target, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|s| target.contains(s)) {
                errors.push(FieldError::invalid(target_path, target, format!("must not contain '{sequence}'")));
            }
            for suffix in ["/..", "/."].into_iter().filter(|s| target.ends_with(s)) {
                errors.push(FieldError::invalid(target_path, target, format!("cannot end with '{suffix}'")));
            }
        }
        "ImplementationSpecific" => {
            if !target.is_empty() && !target.starts_with('/') {
                errors.push(FieldError::invalid(target_path, target, "must be an absolute path"));
            }
        }
        other => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(path.child("pathType"), other, &kinds));
        }
    }
    backend(errors, at(rule, "backend"), &path.child("backend"));
}

fn backend(errors: &mut Errors, backend: &Tree, path: &Path) {
    match (set(backend, "resource"), set(backend, "service")) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(resource), None) => object_reference(errors, resource, &path.child("resource")),
        (None, Some(service)) => {
            let service_path = path.child("service");
            match text(service, "name") {
                "" => errors.push(FieldError::required(service_path.child("name"), "")),
                name => dns_label(errors, name, &service_path.child("name")),
            }
            let port = at(service, "port");
            let port_path = service_path.child("port");
            match (text(port, "name"), int(port, "number").unwrap_or(0)) {
                ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
                ("", number) => port_number(errors, number, &port_path.child("number")),
                (name, 0) => invalid(errors, &port_path.child("name"), name, names::port_name(name)),
                _ => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
            }
        }
    }
}

fn object_reference(errors: &mut Errors, reference: &Tree, path: &Path) {
    if let Some(group) = set(reference, "apiGroup").and_then(Tree::as_str) {
        dns_subdomain(errors, group, &path.child("apiGroup"));
    }
    for key in ["kind", "name"] {
        match text(reference, key) {
            "" => errors.push(FieldError::required(path.child(key), "")),
            value => invalid(errors, &path.child(key), value, names::path_segment(value)),
        }
    }
}

fn ingress_class(errors: &mut Errors, spec: &Tree, old: Option<&Tree>) {
    let path = SPEC.child("controller");
    if let Some(old) = old {
        if text(spec, "controller") != text(old, "controller") {
            errors.push(FieldError::invalid(path, text(spec, "controller"), IMMUTABLE));
        }
    }
    let controller = text(spec, "controller");
    if controller.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        if controller.len() > 250 {
            errors.push(FieldError::too_long(path, 250));
        }
        domain_prefixed_path(errors, controller, &path);
    }
    let Some(parameters) = set(spec, "parameters") else { return };
    let path = SPEC.child("parameters");
    object_reference(errors, parameters, &path);
    let namespace = set(parameters, "namespace").and_then(Tree::as_str);
    match (set(parameters, "scope").and_then(Tree::as_str), namespace) {
        (None, _) => errors.push(FieldError::required(path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(path.child("namespace"), "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => dns_label(errors, namespace, &path.child("namespace")),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(path.child("namespace"), "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(FieldError::not_supported(path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}

/// `example.com/what`. Models apimachinery/pkg/util/validation IsDomainPrefixedPath; the empty text is the caller's to name.
pub fn domain_prefixed_path(errors: &mut Vec<FieldError>, value: &str, path: &Path) {
    match value.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            for text in names::dns1123_subdomain(host) {
                errors.push(FieldError::invalid(path, host, text));
            }
            if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
                let text = names::regex_error("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]);
                errors.push(FieldError::invalid(path, rest, text));
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
}

fn network_policy(errors: &mut Errors, spec: &Tree) {
    label_selector(errors, at(spec, "podSelector"), &SPEC.child("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = SPEC.child(direction);
        for (i, rule) in list(spec, direction).iter().enumerate() {
            let path = rules.index(i);
            let ports_path = path.child("ports");
            for (j, port) in list(rule, "ports").iter().enumerate() {
                policy_port(errors, port, &ports_path.index(j));
            }
            let peers_path = path.child(peers);
            for (j, peer) in list(rule, peers).iter().enumerate() {
                policy_peer(errors, peer, &peers_path.index(j));
            }
        }
    }
    let types = strings(spec, "policyTypes");
    let path = SPEC.child("policyTypes");
    if types.len() > 2 {
        errors.push(FieldError::invalid(path, at(spec, "policyTypes"), "may not specify more than two policyTypes"));
        return;
    }
    for (i, kind) in types.into_iter().enumerate() {
        supported(errors, kind, &["Ingress", "Egress"], &path.index(i));
    }
}

fn policy_port(errors: &mut Errors, port: &Tree, path: &Path) {
    if let Some(protocol) = set(port, "protocol").and_then(Tree::as_str) {
        supported(errors, protocol, &["TCP", "UDP", "SCTP"], &path.child("protocol"));
    }
    let end = int(port, "endPort");
    let end_path = path.child("endPort");
    match (set(port, "port"), end) {
        (None, Some(end)) => {
            errors.push(FieldError::invalid(end_path, end, "may not be specified when `port` is not specified"));
        }
        (None, None) => {}
        (Some(Tree::String(name)), end) => {
            if let Some(end) = end {
                errors.push(FieldError::invalid(end_path, end, "may not be specified when `port` is non-numeric"));
            }
            invalid(errors, &path.child("port"), name, names::port_name(name));
        }
        (Some(number), end) => {
            let number = number.as_i64().unwrap_or(0);
            port_number(errors, number, &path.child("port"));
            if let Some(end) = end {
                if end < number {
                    errors.push(FieldError::invalid(end_path, end, "must be greater than or equal to `port`"));
                }
                port_number(errors, end, &end_path);
            }
        }
    }
}

fn policy_peer(errors: &mut Errors, peer: &Tree, path: &Path) {
    let mut count = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = set(peer, key) {
            count += 1;
            label_selector(errors, selector, &path.child(key));
        }
    }
    match (set(peer, "ipBlock"), count) {
        (None, 0) => errors.push(FieldError::required(path, "must specify a peer")),
        (None, _) => {}
        (Some(block), count) => {
            if count > 0 {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
            ip_block(errors, block, &path.child("ipBlock"));
        }
    }
}

fn ip_block(errors: &mut Errors, block: &Tree, path: &Path) {
    let range = text(block, "cidr");
    if range.is_empty() {
        errors.push(FieldError::required(path.child("cidr"), ""));
        return;
    }
    cidr(errors, range, &path.child("cidr"));
    let Some((base, bits)) = names::parse_cidr_sloppy(range) else { return };
    let excepts = path.child("except");
    for (i, except) in strings(block, "except").into_iter().enumerate() {
        let path = excepts.index(i);
        cidr(errors, except, &path);
        let Some((inner, inner_bits)) = names::parse_cidr_sloppy(except) else { continue };
        if !contains(base, bits, inner) || bits >= inner_bits {
            errors.push(FieldError::invalid(path, except, "must be a strict subset of `cidr`"));
        }
    }
}

fn contains(base: IpAddr, bits: u8, inner: IpAddr) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((a, a4), (b, b4)) = (number(base), number(inner));
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - u32::from(bits)) };
    a4 == b4 && a & mask == b & mask
}
