//! The nodes as scheduling sees them: what each has, and what its pods (assumed ones included) take.
//!
//! Models pkg/scheduler/backend/cache: a pod is assumed on its node the moment it is decided, and confirmed when the
//! watch shows the binding; a failed binding takes it back.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::{Named, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{Amounts, PodInfo, add, amount, subtract};

#[derive(Debug, Default)]
pub struct NodeState {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    /// Sizes by name, for the score that prefers a node which has the image.
    pub images: HashMap<String, i64>,
    pub requested: Amounts,
    pub scoring_milli_cpu: i64,
    pub scoring_memory_bytes: i64,
    pub pods: HashMap<ObjectKey, Arc<PodInfo>>,
    /// False for a node known only by its pods (its object is gone, or has not come yet).
    pub present: bool,
}

impl NodeState {
    pub fn allocatable(&self, resource: &str) -> i64 {
        self.allocatable.get(resource).copied().unwrap_or_default()
    }

    pub fn requested(&self, resource: &str) -> i64 {
        self.requested.get(resource).copied().unwrap_or_default()
    }

    fn update(&mut self, node: &Node) {
        self.present = true;
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        self.taints = spec.taints.unwrap_or_default();
        self.unschedulable = spec.unschedulable.unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        self.allocatable = status.allocatable.iter().flatten().map(|(name, q)| (Arc::from(name.as_str()), amount(name, &q.0))).collect();
        self.images = status
            .images
            .unwrap_or_default()
            .into_iter()
            .flat_map(|i| {
                let size = i.size_bytes.unwrap_or_default();
                i.names.unwrap_or_default().into_iter().map(move |n| (n, size))
            })
            .collect();
    }

    fn add_pod(&mut self, pod: Arc<PodInfo>) {
        add(&mut self.requested, &pod.requests);
        self.scoring_milli_cpu += pod.scoring_milli_cpu;
        self.scoring_memory_bytes += pod.scoring_memory_bytes;
        self.pods.insert(pod.key.clone(), pod);
    }

    fn remove_pod(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.remove(key) else { return };
        subtract(&mut self.requested, &pod.requests);
        self.scoring_milli_cpu -= pod.scoring_milli_cpu;
        self.scoring_memory_bytes -= pod.scoring_memory_bytes;
    }
}

#[derive(Debug, Default)]
pub struct Cache {
    pub nodes: BTreeMap<String, NodeState>,
    /// On which node each counted pod is.
    placed: HashMap<ObjectKey, String>,
}

impl Cache {
    pub fn set_node(&mut self, node: &Node) {
        self.node(node.name()).update(node);
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.present = false;
            if node.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Counts a pod on its node: assumed, bound or changed.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        self.placed.insert(pod.key.clone(), node.to_owned());
        self.node(node).add_pod(pod);
    }

    /// Whether a pod was counted.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(name) = self.placed.remove(key) else { return false };
        if let Some(node) = self.nodes.get_mut(&name) {
            node.remove_pod(key);
            if !node.present && node.pods.is_empty() {
                self.nodes.remove(&name);
            }
        }
        true
    }

    fn node(&mut self, name: &str) -> &mut NodeState {
        self.nodes.entry(name.to_owned()).or_insert_with(|| NodeState { name: name.to_owned(), ..NodeState::default() })
    }
}
