//! Fields of a Service that belong together: what a client leaves out of an update stays, and what its new type has no use for goes.
//!
//! Models pkg/registry/core/service/storage/storage.go `patchAllocatedValues`, `normalizeClusterIPs`, and
//! pkg/registry/core/service/strategy.go `dropTypeDependentFields`, v1.37.
use std::collections::{HashMap, HashSet};

use api::tree::Tree;

use super::service::{health_check_port, kind, may_have_node_ports, needs_health_check_port, needs_node_ports, node_port};

const CLUSTER_IP: [&str; 2] = ["spec", "clusterIP"];
const CLUSTER_IPS: [&str; 2] = ["spec", "clusterIPs"];

fn needs_cluster_ip(service: &Tree) -> bool {
    kind(service) != "ExternalName"
}

fn same(new: &Tree, old: &Tree, path: &[&str]) -> bool {
    let is_there = |value: &&Tree| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    new.at(path).filter(is_there) == old.at(path).filter(is_there)
}

fn copy(to: &mut Tree, from: &Tree, path: &[&str]) {
    if let Some(value) = from.at(path) {
        to.set(path, value.clone());
    }
}

fn numbers(service: &Tree) -> HashSet<i64> {
    service.array_at(&["spec", "ports"]).iter().map(node_port).filter(|number| *number != 0).collect()
}

/// A client that leaves allocated fields out keeps them. Models patchAllocatedValues.
pub fn carry_over(new: &mut Tree, old: &Tree) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if new.str_at(&CLUSTER_IP).is_empty() {
            copy(new, old, &CLUSTER_IP);
        }
        if new.array_at(&CLUSTER_IPS).is_empty() && !old.array_at(&CLUSTER_IPS).is_empty() {
            copy(new, old, &CLUSTER_IPS);
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let used: HashSet<i64> = numbers(old).intersection(&numbers(new)).copied().collect();
        // By name: other properties of a port may have changed. Of two with one name the last counts.
        let before: HashMap<&str, i64> =
            old.array_at(&["spec", "ports"]).iter().map(|port| (port.str_at(&["name"]), node_port(port))).collect();
        let ports = new.at_mut(&["spec", "ports"]).and_then(Tree::as_array_mut);
        for port in ports.into_iter().flatten().filter(|port| node_port(port) == 0) {
            let known = before.get(port.str_at(&["name"])).copied().unwrap_or(0);
            if known != 0 && !used.contains(&known) {
                port.set(&["nodePort"], known);
            }
        }
    }
    if needs_health_check_port(old) && needs_health_check_port(new) && health_check_port(new) == 0 {
        copy(new, old, &["spec", "healthCheckNodePort"]);
    }
}

/// Brings `clusterIPs` in step with `clusterIP`, which is all that old clients know. Models normalizeClusterIPs.
pub fn normalize(new: &mut Tree, old: Option<&Tree>) {
    let single = |ip: &str| Tree::Array(vec![ip.into()]);
    let ip = new.str_at(&CLUSTER_IP).to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && new.array_at(&CLUSTER_IPS).is_empty() {
            new.set(&CLUSTER_IPS, single(&ip));
        }
        return;
    };
    let before = old.str_at(&CLUSTER_IP);
    if !old.array_at(&CLUSTER_IPS).is_empty() && new.array_at(&CLUSTER_IPS).is_empty() && before == ip {
        copy(new, old, &CLUSTER_IPS);
    }
    if before != ip && same(new, old, &CLUSTER_IPS) {
        match ip.is_empty() {
            true => drop(new.remove(&CLUSTER_IPS)),
            false => new.set(&CLUSTER_IPS, single(&ip)),
        }
    }
}

/// What the type of before had and the new one cannot have, where the client did not touch it. Models dropTypeDependentFields.
pub fn drop_unused(new: &mut Tree, old: &Tree) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if same(new, old, &CLUSTER_IP) && same(new, old, &CLUSTER_IPS) {
            new.remove(&CLUSTER_IP);
            new.remove(&CLUSTER_IPS);
        }
        for path in [["spec", "ipFamilies"], ["spec", "ipFamilyPolicy"]] {
            if same(new, old, &path) {
                new.remove(&path);
            }
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(new) && numbers(old).is_superset(&numbers(new)) {
        for port in new.at_mut(&["spec", "ports"]).and_then(Tree::as_array_mut).into_iter().flatten() {
            port.remove(&["nodePort"]);
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) && health_check_port(new) == health_check_port(old) {
        new.remove(&["spec", "healthCheckNodePort"]);
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        for path in [["spec", "allocateLoadBalancerNodePorts"], ["spec", "loadBalancerClass"]] {
            if same(new, old, &path) {
                new.remove(&path);
            }
        }
    }
    if is_externally_accessible(old) && !is_externally_accessible(new) && same(new, old, &["spec", "externalTrafficPolicy"]) {
        new.remove(&["spec", "externalTrafficPolicy"]);
    }
    if kind(new) != "LoadBalancer" {
        new.set(&["status", "loadBalancer"], Tree::object());
    }
}

fn is_externally_accessible(service: &Tree) -> bool {
    may_have_node_ports(service) || (kind(service) == "ClusterIP" && !service.array_at(&["spec", "externalIPs"]).is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::service::with_spec as service;
    use super::*;

    fn shown(service: &Tree) -> String {
        String::from_utf8(service.get("spec").unwrap().to_json()).unwrap()
    }

    #[test]
    fn an_update_keeps_node_ports_by_the_names_of_ports() {
        let old = service(r#"{"type":"NodePort","ports":[{"name":"a","port":1,"nodePort":30001},{"name":"b","port":2,"nodePort":30002}]}"#);
        let mut new =
            service(r#"{"type":"NodePort","ports":[{"name":"a","port":3},{"name":"b","port":2,"nodePort":30001},{"name":"c","port":4}]}"#);
        carry_over(&mut new, &old);
        // That of a is b's now.
        assert_eq!(numbers(&new), HashSet::from([30001]));
        let mut new = service(r#"{"type":"NodePort","ports":[{"name":"b","port":9}]}"#);
        carry_over(&mut new, &old);
        assert_eq!(numbers(&new), HashSet::from([30002]));
    }

    #[test]
    fn the_list_of_addresses_follows_the_one_that_old_clients_write() {
        let old = service(r#"{"type":"ClusterIP","clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]}"#);
        let after = |spec: &str| {
            let mut new = service(spec);
            normalize(&mut new, Some(&old));
            shown(&new)
        };
        assert_eq!(after(r#"{"clusterIP":"10.0.0.1"}"#), r#"{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]}"#);
        assert_eq!(after(r#"{"clusterIP":"10.0.0.2","clusterIPs":["10.0.0.1"]}"#), r#"{"clusterIP":"10.0.0.2","clusterIPs":["10.0.0.2"]}"#);
        assert_eq!(after(r#"{"clusterIPs":["10.0.0.1"]}"#), "{}");
        let changed = r#"{"clusterIP":"10.0.0.2","clusterIPs":["10.0.0.3"]}"#;
        assert_eq!(after(changed), changed);
    }

    #[test]
    fn a_type_drops_what_it_cannot_have_unless_it_was_asked_for() {
        let old = service(
            r#"{"type":"LoadBalancer","loadBalancerClass":"a","externalTrafficPolicy":"Cluster","ports":[{"port":1,"nodePort":30001}]}"#,
        );
        let mut new = service(
            r#"{"type":"ClusterIP","loadBalancerClass":"a","externalTrafficPolicy":"Local","ports":[{"port":1,"nodePort":30001}]}"#,
        );
        drop_unused(&mut new, &old);
        assert_eq!(shown(&new), r#"{"externalTrafficPolicy":"Local","ports":[{"port":1}],"type":"ClusterIP"}"#);
        let mut new = service(r#"{"type":"ClusterIP","ports":[{"port":1,"nodePort":30002}]}"#);
        drop_unused(&mut new, &old);
        assert_eq!(numbers(&new), HashSet::from([30002]));
    }
}
