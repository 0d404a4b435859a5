//! Rows of the core kinds and of networking.
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::access::{age, condition_is_true, is_deleting, is_set, join, labels, map, number, selector, since, text, text_or, texts};
use super::format::{access_modes, first_of};
use crate::meta;
use crate::tree::Tree;

/// Longer lists of load balancer addresses are cut; wide output, which is what the server prints, shows them whole.
pub(super) fn service(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let ports = object.array_at(&["spec", "ports"]).iter().map(|port| {
        let (number, node, protocol) = (number(port, &["port"]), number(port, &["nodePort"]), port.str_at(&["protocol"]));
        if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
    });
    let ports: Vec<String> = ports.collect();
    let ip = texts(object, &["spec", "clusterIPs"]).next().unwrap_or("<none>");
    vec![
        text(object, &["spec", "type"]),
        ip.into(),
        external_ip(object).into(),
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
        age(object, now),
        labels(object, &["spec", "selector"]),
    ]
}

fn external_ip(object: &Tree) -> String {
    let external = join(texts(object, &["spec", "externalIPs"]), ",");
    match object.str_at(&["spec", "type"]) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let balancer = load_balancer(object);
            match (balancer.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".into(),
                (true, false) => external,
                (false, true) => balancer,
                (false, false) => format!("{balancer},{external}"),
            }
        }
        "ExternalName" => object.str_at(&["spec", "externalName"]).into(),
        _ => "<unknown>".into(),
    }
}

fn load_balancer(object: &Tree) -> String {
    let addresses = object.array_at(&["status", "loadBalancer", "ingress"]).iter().map(|ingress| {
        let ip = ingress.str_at(&["ip"]);
        if ip.is_empty() { ingress.str_at(&["hostname"]) } else { ip }
    });
    let addresses: BTreeSet<&str> = addresses.filter(|a| !a.is_empty()).collect();
    join(addresses.into_iter(), ",")
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) fn endpoints(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let mut list = Vec::new();
    for subset in object.array_at(&["subsets"]) {
        let addresses = || subset.array_at(&["addresses"]).iter().map(|a| a.str_at(&["ip"]));
        let ports = subset.array_at(&["ports"]);
        if ports.is_empty() {
            list.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            list.extend(addresses().map(|ip| host_port(ip, number(port, &["port"]))));
        }
    }
    let shown = if list.is_empty() && !object.array_at(&["subsets"]).is_empty() { String::new() } else { first_of(&list, 3, "<none>") };
    vec![shown.into(), age(object, now)]
}

pub(super) fn endpoint_slice(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let ports = object.array_at(&["ports"]).iter().map(|port| match port.at(&["port"]).and_then(Tree::as_i64) {
        Some(number) => number.to_string(),
        None => port.get("name").and_then(Tree::as_str).unwrap_or("*").to_owned(),
    });
    let ports: Vec<String> = ports.collect();
    let endpoints = object.array_at(&["endpoints"]).iter().flat_map(|e| texts(e, &["addresses"]));
    let endpoints: Vec<String> = endpoints.map(str::to_owned).collect();
    vec![text(object, &["addressType"]), first_of(&ports, 3, "<unset>").into(), first_of(&endpoints, 3, "<unset>").into(), age(object, now)]
}

pub(super) fn ingress(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let rules = object.array_at(&["spec", "rules"]);
    let hosts: Vec<&str> = rules.iter().map(|r| r.str_at(&["host"])).filter(|h| !h.is_empty()).collect();
    let shown = match hosts.len() {
        0 => "*".into(),
        n if n >= 3 && rules.len() > 3 => format!("{} + {} more...", hosts[..3].join(","), rules.len() - 3),
        _ => hosts.join(","),
    };
    let ports = if object.array_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        text_or(object, &["spec", "ingressClassName"], "<none>"),
        shown.into(),
        load_balancer(object).into(),
        ports.into(),
        age(object, now),
    ]
}

pub(super) fn ingress_class(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let parameters = match object.at(&["spec", "parameters"]).filter(|p| !p.is_null()) {
        None => "<none>".into(),
        Some(p) => {
            let group = p.str_at(&["apiGroup"]);
            let kind = p.str_at(&["kind"]);
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            format!("{kind}/{}", p.str_at(&["name"]))
        }
    };
    vec![text(object, &["spec", "controller"]), parameters.into(), age(object, now)]
}

pub(super) fn network_policy(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![selector(object, &["spec", "podSelector"]), age(object, now)]
}

pub(super) fn service_cidr(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![join(texts(object, &["spec", "cidrs"]), ",").into(), age(object, now)]
}

pub(super) fn ip_address(object: &Tree, _: Timestamp) -> Vec<Tree> {
    let parent = match object.at(&["spec", "parentRef"]).filter(|p| !p.is_null()) {
        None => "<none>".into(),
        Some(p) => {
            let (group, resource) = (p.str_at(&["group"]), p.str_at(&["resource"]));
            let mut shown = if group.is_empty() { resource.to_lowercase() } else { format!("{resource}.{group}").to_lowercase() };
            for part in [p.str_at(&["namespace"]), p.str_at(&["name"])] {
                if !part.is_empty() {
                    shown = format!("{shown}/{part}");
                }
            }
            shown
        }
    };
    // Upstream prints an age too, in a column that it does not have.
    vec![parent.into()]
}

pub(super) fn namespace(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![text(object, &["status", "phase"]), age(object, now)]
}

pub(super) fn secret(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![text(object, &["type"]), (map(object, &["data"]).len() as i64).into(), age(object, now)]
}

pub(super) fn config_map(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let entries = map(object, &["data"]).len() + map(object, &["binaryData"]).len();
    vec![(entries as i64).into(), age(object, now)]
}

pub(super) fn node(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let ready = object.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == "Ready");
    let mut status = match ready {
        Some(_) if condition_is_true(object, "Ready") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.at(&["spec", "unschedulable"]) == Some(&Tree::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let info = |field| text_or(object, &["status", "nodeInfo", field], "<unknown>");
    let address = |kind: &str| {
        let found = object.array_at(&["status", "addresses"]).iter().find(|a| a.str_at(&["type"]) == kind);
        found.map_or("<none>", |a| a.str_at(&["address"])).into()
    };
    let architecture = object.str_at(&["status", "nodeInfo", "architecture"]);
    let mut kernel = info("kernelVersion").as_str().unwrap_or_default().to_owned();
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        status.into(),
        roles(object).into(),
        age(object, now),
        text(object, &["status", "nodeInfo", "kubeletVersion"]),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        kernel.into(),
        info("containerRuntimeVersion"),
    ]
}

fn roles(object: &Tree) -> String {
    let roles: BTreeSet<&str> = meta::labels(object)
        .iter()
        .filter_map(|(key, value)| match key {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".into() } else { join(roles.into_iter(), ",") }
}

/// Events of both groups: events.k8s.io names some fields differently.
pub(super) fn event(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let either = |old: &'static str, new: &'static str| if is_set(object, &[old]) { old } else { new };
    let first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let last = either("lastTimestamp", "deprecatedLastTimestamp");
    let count = either("count", "deprecatedCount");
    let source = either("source", "deprecatedSource");
    let target = either("involvedObject", "regarding");
    let first_seen = since(object, &[if is_set(object, &[first]) { first } else { "eventTime" }], now);
    let (last_seen, count) = match object.get("series").filter(|s| !s.is_null()) {
        Some(series) => (since(series, &["lastObservedTime"], now), number(series, &["count"])),
        None if is_set(object, &[last]) => (since(object, &[last], now), number(object, &[count]).max(1)),
        None => (first_seen.clone(), number(object, &[count]).max(1)),
    };
    let kind = object.str_at(&[target, "kind"]).to_lowercase();
    let name = object.str_at(&[target, "name"]);
    let shown = if name.is_empty() { kind } else { format!("{kind}/{name}") };
    let or = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { a.to_owned() };
    let controller = object.str_at(&[either("reportingComponent", "reportingController")]);
    let component = or(object.str_at(&[source, "component"]), controller);
    let instance = or(object.str_at(&[source, "host"]), object.str_at(&["reportingInstance"]));
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        last_seen.into(),
        text(object, &["type"]),
        text(object, &["reason"]),
        shown.into(),
        text(object, &[target, "fieldPath"]),
        source.into(),
        object.str_at(&[either("message", "note")]).trim().into(),
        first_seen.into(),
        count.into(),
        text(object, &["metadata", "name"]),
    ]
}

pub(super) fn resource_quota(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in map(object, &["status", "hard"]).iter() {
        let used = map(object, &["status", "used"]).get(name).and_then(Tree::as_str).unwrap_or("0");
        let list = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{name}: {used}/{}", hard.as_str().unwrap_or("0")));
    }
    vec![requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}

fn phase(object: &Tree) -> Tree {
    if is_deleting(object) { "Terminating".into() } else { text(object, &["status", "phase"]) }
}

fn storage_class(object: &Tree) -> Tree {
    match meta::annotation(object, "volume.beta.kubernetes.io/storage-class") {
        Some(class) => class.into(),
        None => text(object, &["spec", "storageClassName"]),
    }
}

pub(super) fn persistent_volume(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let claim = match object.at(&["spec", "claimRef"]).filter(|c| !c.is_null()) {
        Some(claim) => format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"])),
        None => String::new(),
    };
    vec![
        text_or(object, &["spec", "capacity", "storage"], "0"),
        access_modes(texts(object, &["spec", "accessModes"])).into(),
        text(object, &["spec", "persistentVolumeReclaimPolicy"]),
        phase(object),
        claim.into(),
        storage_class(object),
        text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
        text(object, &["status", "reason"]),
        age(object, now),
        text_or(object, &["spec", "volumeMode"], "<unset>"),
    ]
}

pub(super) fn persistent_volume_claim(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let volume = object.str_at(&["spec", "volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        ("".into(), String::new())
    } else {
        (text_or(object, &["status", "capacity", "storage"], "0"), access_modes(texts(object, &["status", "accessModes"])))
    };
    vec![
        phase(object),
        volume.into(),
        capacity,
        modes.into(),
        storage_class(object),
        text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
        age(object, now),
        text_or(object, &["spec", "volumeMode"], "<unset>"),
    ]
}

pub(super) fn component_status(object: &Tree, _: Timestamp) -> Vec<Tree> {
    match object.array_at(&["conditions"]).iter().find(|c| c.str_at(&["type"]) == "Healthy") {
        None => vec!["Unknown".into(), "".into(), "".into()],
        Some(c) => {
            let status = if c.str_at(&["status"]) == "True" { "Healthy" } else { "Unhealthy" };
            vec![status.into(), text(c, &["message"]), text(c, &["error"])]
        }
    }
}
