//! Whether a pod that was put on this node can be here beside the others. Models pkg/kubelet/lifecycle/predicate.go, v1.37.
//!
//! The scheduler asks first; this is for pods that name their node themselves, and for races. A pod that is turned away fails,
//! and its owner makes another. Whether its resources fit is `allocation`'s question. Left out: node affinity and taints, and that
//! a critical pod drives others away.
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::status::Verdict;

#[derive(PartialEq, Eq)]
struct HostPort<'a> {
    ip: &'a str,
    protocol: &'a str,
    port: i32,
}

impl HostPort<'_> {
    /// `0.0.0.0` stands for every address.
    fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (self.ip == other.ip || any(self.ip) || any(other.ip))
    }
}

/// Ports of the node that the pod takes: of its containers and of its sidecars.
fn host_ports(pod: &Pod) -> Vec<HostPort<'_>> {
    let spec = pod.spec.iter();
    let sidecars = spec.clone().flat_map(|s| s.init_containers.iter().flatten()).filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers = spec.flat_map(|s| &s.containers).chain(sidecars);
    let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        Some(HostPort { ip: p.host_ip.as_deref().unwrap_or_default(), protocol: p.protocol.as_deref().unwrap_or("TCP"), port })
    });
    ports.collect()
}

fn is_active(pod: &Pod) -> bool {
    !matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Why the pod cannot be here; `others` are the pods that are here already.
pub fn refusal(pod: &Pod, others: &[Arc<Pod>]) -> Option<Verdict> {
    let ports = host_ports(pod);
    if ports.is_empty() {
        return None;
    }
    let mut taken = others.iter().filter(|p| is_active(p)).flat_map(|p| host_ports(p));
    taken.any(|t| ports.iter().any(|p| p.conflicts(&t))).then(|| Verdict {
        reason: "NodePorts".to_owned(),
        message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str, ports: Value) -> Arc<Pod> {
        let containers = json!([{"name": "c", "ports": ports}]);
        Arc::new(serde_json::from_value(json!({"spec": {"containers": containers}, "status": {"phase": phase}})).unwrap())
    }

    #[track_caller]
    fn check(own: Value, phase: &str, others: Value, refused: bool) {
        let reason = refusal(&pod("Pending", own), &[pod(phase, others)]).map(|v| v.reason);
        assert_eq!(reason.as_deref(), refused.then_some("NodePorts"));
    }

    #[test]
    fn a_port_of_the_node_is_given_once() {
        let port = |n: i32| json!([{"containerPort": 1, "hostPort": n}]);
        check(port(80), "Running", port(80), true);
        check(port(80), "Running", port(81), false);
        check(port(80), "Failed", port(80), false);
        check(json!([{"containerPort": 80}]), "Running", json!([{"containerPort": 80}]), false);
        check(port(80), "Running", json!([{"containerPort": 1, "hostPort": 80, "protocol": "UDP"}]), false);
        check(port(80), "Running", json!([{"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"}]), true);
        let at = |ip: &str| json!([{"containerPort": 1, "hostPort": 80, "hostIP": ip}]);
        check(at("10.0.0.2"), "Running", at("10.0.0.1"), false);
    }
}
