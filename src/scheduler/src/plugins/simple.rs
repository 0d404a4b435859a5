//! Filters of a few lines: NodeUnschedulable, NodeName, NodePorts, and the refusal of what is not there yet.
use super::{ClusterEvent, Filter, Reason, World};
use crate::cache::NodeState;
use crate::plugins::taints::tolerates;
use crate::pod::PodInfo;

type Answer<'a> = Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>;

pub struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeTaints)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Answer<'a>> {
        let tolerated = tolerates(&pod.tolerations, "node.kubernetes.io/unschedulable", "", "NoSchedule");
        Some(Box::new(move |node| match node.unschedulable && !tolerated {
            true => Err(vec!["node(s) were unschedulable".into()]),
            false => Ok(()),
        }))
    }
}

pub struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        event == ClusterEvent::NodeAdded
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Answer<'a>> {
        if pod.node_name.is_empty() {
            return None;
        }
        Some(Box::new(|node| match node.name == pod.node_name {
            true => Ok(()),
            false => Err(vec!["node(s) didn't match the requested node name".into()]),
        }))
    }
}

pub struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::PodRemoved)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Answer<'a>> {
        if pod.host_ports.is_empty() {
            return None;
        }
        Some(Box::new(|node| {
            let mut taken = node.pods.values().flat_map(|p| &p.host_ports);
            match taken.any(|t| pod.host_ports.iter().any(|p| p.conflicts(t))) {
                true => Err(vec!["node(s) didn't have free ports for the requested pod ports".into()]),
                false => Ok(()),
            }
        }))
    }
}

/// Keeps a pod pending, with the reason in its events, where scheduling it needs a part that does not exist yet.
pub struct Unsupported;

impl Filter for Unsupported {
    fn name(&self) -> &'static str {
        "Unsupported"
    }
    fn helped_by(&self, _: ClusterEvent) -> bool {
        false
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Answer<'a>> {
        let what = pod.unsupported?;
        Some(Box::new(move |_| Err(vec![format!("node(s) cannot serve {what}, which this version does not schedule")])))
    }
}
