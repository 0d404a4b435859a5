//! Services.
//!
//! Models pkg/apis/core/validation/validation.go `ValidateService`, `ValidateServiceUpdate`, `ValidateLoadBalancerStatus`.
use super::check::*;
use super::container::PROTOCOLS;
use super::endpoints::ordinary_ip;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

/// Of a port that another is, its protocol and numbers alone are shown.
const PORT: [(&str, &str, &str); 6] = [
    ("Name", "", "\"\""),
    ("Protocol", "protocol", "\"\""),
    ("AppProtocol", "", "null"),
    ("Port", "port", "0"),
    ("TargetPort", "targetPort", "0"),
    ("NodePort", "", "0"),
];
const SPEC: Path<'static> = Path::new("spec");

fn is_headless(spec: &Tree) -> bool {
    strings(spec, "clusterIPs") == ["None"]
}

fn is_externally_accessible(spec: &Tree) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_health_check(spec: &Tree) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

pub(super) fn service(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    if let Some(old) = old.map(|o| at(o, "spec")) {
        update(errors, spec, old);
    }
    let kind = text(spec, "type");
    let headless = is_headless(spec);
    let ports = list(spec, "ports");
    let ports_path = SPEC.child("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(ports_path, ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(SPEC.child("clusterIPs").index(0), "None", detail));
        }
        "ExternalName" => external_name(errors, spec),
        _ => {}
    }
    let mut names_seen: Seen<&str> = Seen::new();
    for (i, port) in ports.iter().enumerate() {
        service_port(errors, port, ports.len() > 1, &mut names_seen, &ports_path.index(i));
    }
    labels(errors, at(spec, "selector"), &SPEC.child("selector"));
    session_affinity(errors, spec);
    cluster_ips(errors, spec);
    let external = SPEC.child("externalIPs");
    for (i, address) in strings(spec, "externalIPs").into_iter().enumerate() {
        let path = external.index(i);
        let texts = names::ip(address);
        if texts.is_empty() {
            ordinary_ip(errors, address, &path);
        } else {
            invalid(errors, &path, address, texts);
        }
    }
    one_of(errors, kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &SPEC.child("type"));
    port_numbers(errors, kind, ports, &ports_path);
    source_ranges(errors, new, spec, kind);
    let allocate = SPEC.child("allocateLoadBalancerNodePorts");
    match (set(spec, "allocateLoadBalancerNodePorts"), kind) {
        (Some(_), "LoadBalancer") => {}
        (Some(_), _) => errors.push(FieldError::forbidden(allocate, "may only be used when `type` is 'LoadBalancer'")),
        (None, "LoadBalancer") => errors.push(FieldError::required(Path::new("allocateLoadBalancerNodePorts"), "")),
        (None, _) => {}
    }
    if let Some(class) = set(spec, "loadBalancerClass").and_then(Tree::as_str) {
        let path = SPEC.child("loadBalancerClass");
        if kind == "LoadBalancer" {
            label_name(errors, class, &path);
        } else {
            errors.push(FieldError::forbidden(path, "may only be used when `type` is 'LoadBalancer'"));
        }
    }
    traffic_policies(errors, spec, kind);
}

fn external_name(errors: &mut Errors, spec: &Tree) {
    let detail = "may not be set for ExternalName services";
    for key in ["clusterIPs", "ipFamilies"] {
        if !list(spec, key).is_empty() {
            errors.push(FieldError::forbidden(SPEC.child(key), detail));
        }
    }
    if set(spec, "ipFamilyPolicy").is_some() {
        errors.push(FieldError::forbidden(SPEC.child("ipFamilyPolicy"), detail));
    }
    let name = text(spec, "externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(FieldError::required(SPEC.child("externalName"), ""));
    } else {
        dns_subdomain(errors, name, &SPEC.child("externalName"));
    }
}

fn service_port<'t>(errors: &mut Errors, port: &'t Tree, needs_name: bool, seen: &mut Seen<&'t str>, path: &Path) {
    let name = text(port, "name");
    if !name.is_empty() {
        dns_label(errors, name, &path.child("name"));
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
    } else if needs_name {
        errors.push(FieldError::required(path.child("name"), ""));
    }
    port_number(errors, int(port, "port").unwrap_or(0), &path.child("port"));
    one_of(errors, text(port, "protocol"), PROTOCOLS, &path.child("protocol"));
    port_number_or_name(errors, at(port, "targetPort"), &path.child("targetPort"));
    if let Some(protocol) = set(port, "appProtocol").and_then(Tree::as_str) {
        label_name(errors, protocol, &path.child("appProtocol"));
    }
}

fn session_affinity(errors: &mut Errors, spec: &Tree) {
    let affinity = text(spec, "sessionAffinity");
    one_of(errors, affinity, &["ClientIP", "None"], &SPEC.child("sessionAffinity"));
    let (config, path) = (set(spec, "sessionAffinityConfig"), SPEC.child("sessionAffinityConfig"));
    match (affinity, config) {
        ("None", Some(_)) => errors.push(FieldError::forbidden(path, "must not be set when session affinity is None")),
        ("ClientIP", config) => {
            let needed = "when session affinity type is ClientIP";
            let client = path.child("clientIP");
            match (config, config.and_then(|c| set(c, "clientIP"))) {
                (None, _) => errors.push(FieldError::required(path, needed)),
                (Some(_), None) => errors.push(FieldError::required(client, needed)),
                (Some(_), Some(config)) => match int(config, "timeoutSeconds") {
                    None => errors.push(FieldError::required(client.child("timeoutSeconds"), needed)),
                    Some(seconds) if !(1..=86400).contains(&seconds) => {
                        let detail = "must be greater than 0 and less than 86400";
                        errors.push(FieldError::invalid(client.child("timeoutSeconds"), seconds, detail));
                    }
                    Some(_) => {}
                },
            }
        }
        _ => {}
    }
}

pub(super) fn cluster_ips(errors: &mut Errors, spec: &Tree) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let all = at(spec, "clusterIPs");
    let ips = strings(spec, "clusterIPs");
    match (text(spec, "clusterIP"), ips.first()) {
        ("", Some(_)) => errors.push(FieldError::invalid(path, all, "must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(path, "")),
        (ip, Some(first)) if ip != *first => {
            errors.push(FieldError::invalid(path, all, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = strings(spec, "ipFamilies");
    let families_path = SPEC.child("ipFamilies");
    let again = repeated(&families);
    for (i, family) in families.iter().enumerate() {
        supported(errors, family, &["IPv4", "IPv6"], &families_path.index(i));
        if again[i] {
            errors.push(FieldError::duplicate(families_path.index(i), *family));
        }
    }
    if let Some(policy) = set(spec, "ipFamilyPolicy") {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        supported(errors, policy.as_str().unwrap_or(""), &policies, &SPEC.child("ipFamilyPolicy"));
    }
    let mut has_invalid = false;
    for (i, ip_) in ips.iter().enumerate() {
        if i == 0 && *ip_ == "None" {
            if ips.len() > 1 {
                has_invalid = true;
                errors.push(FieldError::invalid(path, all, "'None' must be the first and only value"));
            }
            continue;
        }
        let before = errors.len();
        ip(errors, ip_, &path.index(i));
        has_invalid |= errors.len() > before;
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(path, all, "may only hold up to 2 values"));
    }
    if has_invalid {
        return;
    }
    if ips.len() > 1 && ips.iter().all(|ip| ip.contains(':')) | ips.iter().all(|ip| !ip.contains(':')) {
        errors.push(FieldError::invalid(path, all, "may specify no more than one IP for each IP family"));
    }
    if !is_headless(spec) {
        for (i, (ip, family)) in ips.iter().zip(&families).enumerate() {
            let is_v6 = ip.contains(':');
            if is_v6 != (*family == "IPv6") {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.push(FieldError::invalid(path.index(i), *ip, detail));
            }
        }
    }
}

fn port_numbers(errors: &mut Errors, kind: &str, ports: &[Tree], path: &Path) {
    let node_port = |port: &Tree| int(port, "nodePort").filter(|n| *n != 0);
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| node_port(p).is_some()) {
            errors.push(FieldError::forbidden(path.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let again = repeated(ports.iter().map(|port| (node_port(port), text(port, "protocol"))));
    for (i, port) in ports.iter().enumerate() {
        if let Some(number) = node_port(port)
            && again[i] {
                errors.push(FieldError::duplicate(path.index(i).child("nodePort"), number));
            }
    }
    let again = repeated(ports.iter().map(|port| (int(port, "port").unwrap_or(0), text(port, "protocol"))));
    for (i, port) in ports.iter().enumerate() {
        if again[i] {
            let mut key = Tree::object();
            key.set(&["port"], at(port, "port").clone());
            key.set(&["protocol"], text(port, "protocol"));
            key.set(&["targetPort"], 0);
            errors.push(FieldError::duplicate(path.index(i), in_go(&key, &PORT)));
        }
    }
}

fn source_ranges(errors: &mut Errors, service: &Tree, spec: &Tree, kind: &str) {
    const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let detail = "may only be used when `type` is 'LoadBalancer'";
    let ranges = strings(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let path = SPEC.child("LoadBalancerSourceRanges"); // upstream's capital
        if kind != "LoadBalancer" {
            errors.push(FieldError::forbidden(path, detail));
        }
        for (i, range) in ranges.into_iter().enumerate() {
            cidr(errors, range.trim(), &path.index(i));
        }
    } else if let Some(value) = service.at(&["metadata", "annotations", ANNOTATION]).and_then(Tree::as_str) {
        let meta = Path::new("metadata");
        let annotations = meta.child("annotations");
        let path = annotations.key(ANNOTATION);
        if kind != "LoadBalancer" {
            errors.push(FieldError::forbidden(path, detail));
        }
        for range in value.trim().split(',').map(str::trim).filter(|_| !value.trim().is_empty()) {
            cidr(errors, range, &path);
        }
    }
}

fn traffic_policies(errors: &mut Errors, spec: &Tree, kind: &str) {
    let (policy, path) = (text(spec, "externalTrafficPolicy"), SPEC.child("externalTrafficPolicy"));
    if is_externally_accessible(spec) {
        one_of(errors, policy, &["Cluster", "Local"], &path);
    } else if !policy.is_empty() {
        errors.push(FieldError::invalid(path, policy, "may only be set for externally-accessible services"));
    }
    let (port, path) = (int(spec, "healthCheckNodePort").unwrap_or(0), SPEC.child("healthCheckNodePort"));
    match (needs_health_check(spec), port) {
        (true, 0) => errors.push(FieldError::required(path, "")),
        (true, port) => port_number(errors, port, &path),
        (false, 0) => {}
        (false, port) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(path, port, detail));
        }
    }
    let path = SPEC.child("internalTrafficPolicy");
    match set(spec, "internalTrafficPolicy") {
        Some(policy) => supported(errors, policy.as_str().unwrap_or(""), &["Cluster", "Local"], &path),
        None if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") => errors.push(FieldError::required(path, "")),
        None => {}
    }
    if let Some(distribution) = set(spec, "trafficDistribution") {
        let values = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        supported(errors, distribution.as_str().unwrap_or(""), &values, &SPEC.child("trafficDistribution"));
    }
}

/// The first address of a service stays; a second one may come and go.
fn update(errors: &mut Errors, spec: &Tree, old: &Tree) {
    let is_external = |s: &Tree| text(s, "type") == "ExternalName";
    let (headless, was_headless) = (is_headless(spec), is_headless(old));
    if !is_external(spec) && !is_external(old) {
        if !(headless && was_headless) {
            let single = "must be set to 'SingleStack' when releasing the secondary clusterIP";
            released(errors, spec, old, "clusterIPs", "primary clusterIP can not be unset", single);
        }
        if !headless && !was_headless {
            let single = "must be set to 'SingleStack' when releasing the secondary ipFamily";
            released(errors, spec, old, "ipFamilies", "primary ipFamily can not be unset", single);
        }
    }
    let is_balanced = |s: &Tree| text(s, "type") == "LoadBalancer";
    if is_balanced(spec) && is_balanced(old) && !same_at(spec, old, "loadBalancerClass") {
        let path = SPEC.child("loadBalancerClass");
        errors.push(FieldError::invalid(path, at(spec, "loadBalancerClass"), "may not change once set"));
    }
    if needs_health_check(spec) && needs_health_check(old) && !same_at(spec, old, "healthCheckNodePort") {
        errors.push(FieldError::forbidden(SPEC.child("healthCheckNodePort"), IMMUTABLE));
    }
}

fn released(errors: &mut Errors, spec: &Tree, old: &Tree, key: &str, unset: &str, single: &str) {
    let path = SPEC.child(key);
    let value = || at(spec, key);
    let (now, before) = (strings(spec, key), strings(old, key));
    let changed = now.first().zip(before.first()).is_some_and(|(a, b)| a != b);
    if now.len() == before.len() {
        for (i, _) in now.iter().zip(&before).enumerate().filter(|(_, (a, b))| a != b) {
            errors.push(FieldError::invalid(path.index(i), value(), "may not change once set"));
        }
        return;
    }
    if now.is_empty() {
        errors.push(FieldError::invalid(path.index(0), value(), unset));
    }
    if changed {
        errors.push(FieldError::invalid(path.index(0), value(), "may not change once set"));
    }
    if now.len() < before.len() && now.len() == 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        errors.push(FieldError::invalid(SPEC.child("ipFamilyPolicy"), at(spec, "ipFamilyPolicy"), single));
    }
}

/// `status.loadBalancer` of a Service or an Ingress.
pub(super) fn load_balancer_status(errors: &mut Errors, object: &Tree, is_service: bool) {
    let status = Path::new("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    let ingress = object.array_at(&["status", "loadBalancer", "ingress"]);
    if is_service && object.str_at(&["spec", "type"]) != "LoadBalancer" && !ingress.is_empty() {
        errors.push(FieldError::forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for (i, ingress) in ingress.iter().enumerate() {
        let path = path.index(i);
        let address = text(ingress, "ip");
        if !address.is_empty() {
            ip(errors, address, &path.child("ip"));
        }
        if is_service {
            let mode_path = path.child("ipMode");
            match (set(ingress, "ipMode"), address.is_empty()) {
                (None, false) => errors.push(FieldError::required(mode_path, "must be specified when `ip` is set")),
                (Some(_), true) => errors.push(FieldError::forbidden(mode_path, "may not be specified when `ip` is not set")),
                (Some(mode), false) => supported(errors, mode.as_str().unwrap_or(""), &["Proxy", "VIP"], &mode_path),
                (None, true) => {}
            }
        }
        let host = text(ingress, "hostname");
        if !host.is_empty() {
            dns_subdomain(errors, host, &path.child("hostname"));
            if names::parse_ip_sloppy(host).is_some() {
                errors.push(FieldError::invalid(path.child("hostname"), host, "must be a DNS name, not an IP address"));
            }
        }
    }
}
