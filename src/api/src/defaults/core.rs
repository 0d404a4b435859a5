//! Defaults of the core group, but for pods and volumes.
//!
//! Models pkg/apis/core/v1/defaults.go.
use super::{absent, child, child_or_new, each, is_zero, pod, resource_list, text, volume, zero};
use crate::tree::{Object, Tree};

pub(super) fn apply(kind: &str, object: &mut Object) {
    match kind {
        "Pod" => pod::pod(object),
        "PodTemplate" => pod::template(object),
        "ReplicationController" => replication_controller(object),
        "Service" => service(object),
        "Endpoints" => {
            for subset in each(object, "subsets") {
                for port in each(subset, "ports") {
                    zero(port, "protocol", "TCP");
                }
            }
        }
        "Namespace" => namespace(object),
        "Secret" => zero(object, "type", "Opaque"),
        "Node" => node(object),
        "PersistentVolume" => volume::persistent_volume(object),
        "PersistentVolumeClaim" => volume::claim(object),
        "LimitRange" => {
            if let Some(spec) = child(object, "spec") {
                each(spec, "limits").for_each(limit_range_item);
            }
        }
        "ResourceQuota" => {
            if let Some(spec) = child(object, "spec") {
                resource_list(spec, "hard");
            }
            if let Some(status) = child(object, "status") {
                resource_list(status, "hard");
                resource_list(status, "used");
            }
        }
        _ => {}
    }
}

fn replication_controller(object: &mut Object) {
    let spec = child_or_new(object, "spec");
    absent(spec, "replicas", 1);
    if spec.get("template").is_some_and(|t| !t.is_null()) {
        pod::template(spec);
    }
    let labels = spec.get("template").and_then(|t| t.at(&["metadata", "labels"])).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some()) {
        zero(spec, "selector", labels.clone());
        zero(child_or_new(object, "metadata"), "labels", labels);
    }
}

fn service(object: &mut Object) {
    let spec = child_or_new(object, "spec");
    zero(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = spec.entry("sessionAffinityConfig", Tree::object);
            if config.at(&["clientIP", "timeoutSeconds"]).is_none_or(Tree::is_null) {
                config.set(&["clientIP", "timeoutSeconds"], 10800);
            }
        }
        _ => {}
    }
    zero(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        zero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            zero(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let external_ips = spec.get("externalIPs").is_some_and(|ips| !is_zero(ips));
    let is_external = matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external_ips);
    if is_external {
        zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        absent(spec, "allocateLoadBalancerNodePorts", true);
    }
    let load_balancer = child_or_new(child_or_new(object, "status"), "loadBalancer");
    if kind == "LoadBalancer" {
        for ingress in each(load_balancer, "ingress") {
            if !text(ingress, "ip").is_empty() {
                absent(ingress, "ipMode", "VIP");
            }
        }
    }
}

fn namespace(object: &mut Object) {
    let metadata = child_or_new(object, "metadata");
    let name = text(metadata, "name").to_owned();
    if !name.is_empty() {
        child_or_new(metadata, "labels").insert("kubernetes.io/metadata.name", name);
    }
    zero(child_or_new(object, "status"), "phase", "Active");
}

fn node(object: &mut Object) {
    let status = child_or_new(object, "status");
    resource_list(status, "capacity");
    resource_list(status, "allocatable");
    if let Some(capacity) = status.get("capacity").filter(|c| !c.is_null()).cloned() {
        absent(status, "allocatable", capacity);
    }
    // Structs that are no pointers are always written.
    let endpoints = child_or_new(status, "daemonEndpoints");
    zero(child_or_new(endpoints, "kubeletEndpoint"), "Port", 0);
}

fn limit_range_item(item: &mut Object) {
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        resource_list(item, list);
    }
    if text(item, "type") != "Container" {
        return;
    }
    let list = |item: &Object, name: &str| item.get(name).and_then(Tree::as_object).cloned().unwrap_or_default();
    for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let amounts = list(item, source);
        let target = child_or_new(item, target);
        for (name, amount) in amounts {
            target.entry(&name, || crate::quantity::from_tree(&amount).map_or(amount, Tree::from));
        }
    }
    // Maps that stayed empty are not written.
    for name in ["default", "defaultRequest"] {
        if item.get(name).is_some_and(is_zero) {
            item.remove(name);
        }
    }
}
