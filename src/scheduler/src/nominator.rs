//! Pods that have been promised a place on a node: preemption made room for them, or a binding waits for its volumes.
//!
//! Models pkg/scheduler/backend/queue/nominator.go, v1.37.
use std::collections::HashMap;
use std::sync::Arc;

use client::{ObjectKey, Room};

use crate::cache::Cache;
use crate::pod::PodInfo;

#[derive(Debug, Default)]
pub struct Nominator {
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
    node_of: HashMap<ObjectKey, String>,
    /// Nodes whose promises the cache does not know yet.
    changed: Vec<String>,
}

impl Nominator {
    /// Promises the place on `node`; without one, as the pod's status has it.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: Option<&str>) {
        self.remove(&pod.key);
        let node = node.unwrap_or(&pod.nominated_node).to_owned();
        if node.is_empty() || pod.is_assigned() {
            return;
        }
        self.node_of.insert(pod.key.clone(), node.clone());
        self.changed.push(node.clone());
        self.by_node.entry(node).or_default().push(pod);
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let node = self.node_of.remove(key)?;
        self.node_of.give_back();
        let pods = self.by_node.get_mut(&node)?;
        let pod = pods.iter().position(|p| p.key == *key).map(|at| pods.remove(at));
        if pods.is_empty() {
            self.by_node.remove(&node);
            self.by_node.give_back();
        }
        self.changed.push(node);
        pod
    }

    /// The pod has changed; a promise that its status does not show yet is kept.
    pub fn update(&mut self, old: &PodInfo, new: Arc<PodInfo>) {
        let kept = match (old.nominated_node.is_empty(), new.nominated_node.is_empty()) {
            (true, true) => self.node_of.get(&new.key).cloned(),
            _ => None,
        };
        self.set(new, kept.as_deref());
    }

    pub fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Tells the cache on which nodes there are promises, as far as that has changed.
    pub fn tell(&mut self, cache: &mut Cache) {
        for node in self.changed.drain(..) {
            cache.set_promised(&node, self.by_node.contains_key(&node));
        }
    }

    /// The same of a node that has come.
    pub fn tell_of(&self, node: &str, cache: &mut Cache) {
        if self.by_node.contains_key(node) {
            cache.set_promised(node, true);
        }
    }

    pub fn node_of(&self, key: &ObjectKey) -> Option<&str> {
        self.node_of.get(key).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}
