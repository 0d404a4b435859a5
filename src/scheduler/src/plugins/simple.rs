//! Filters of a few lines: NodeUnschedulable, NodeName and NodePorts.
use super::{Filter, Prepared, Refusal, World, check, tolerates};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::PodInfo;

pub struct NodeUnschedulable;

fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    tolerates(&pod.tolerations, "node.kubernetes.io/unschedulable", "", "NoSchedule")
}

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
    fn events(&self) -> u32 {
        bits::NODE_ADD | bits::NODE_TAINT | bits::TARGET_TOLERATION
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Node { old, new: Some(new) } => !new.unschedulable && old.is_none_or(|old| old.unschedulable),
            Change::Target { new, .. } => tolerates_unschedulable(new),
            _ => tolerates_unschedulable(pod),
        }
    }
    fn sees_node_only(&self, _: &PodInfo) -> bool {
        true
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        if tolerates_unschedulable(pod) {
            return Prepared::Skip;
        }
        Prepared::Check(check(|node| match node.unschedulable {
            true => Err(Refusal::unresolvable("node(s) were unschedulable")),
            false => Ok(()),
        }))
    }
}

pub struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
    fn events(&self) -> u32 {
        bits::NODE_ADD
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        matches!(event.change, Change::Node { new: Some(new), .. } if pod.node_name.is_empty() || pod.node_name == new.name)
    }
    fn sees_node_only(&self, _: &PodInfo) -> bool {
        true
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        if pod.node_name.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(check(|node| match node.name == pod.node_name {
            true => Ok(()),
            false => Err(Refusal::unresolvable("node(s) didn't match the requested node name")),
        }))
    }
}

pub struct NodePorts;

fn conflict(a: &PodInfo, b: &PodInfo) -> bool {
    a.host_ports.iter().any(|p| b.host_ports.iter().any(|q| p.conflicts(q)))
}

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
    fn events(&self) -> u32 {
        bits::NODE_ADD | bits::POD_DELETE
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Pod { old: Some(old), .. } => conflict(pod, old),
            _ => true,
        }
    }
    fn sees_node_only(&self, _: &PodInfo) -> bool {
        true
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        if pod.host_ports.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(check(|node| match node.pods.iter().any(|p| conflict(p, pod)) {
            true => Err(Refusal::resolvable("node(s) didn't have free ports for the requested pod ports")),
            false => Ok(()),
        }))
    }
}
