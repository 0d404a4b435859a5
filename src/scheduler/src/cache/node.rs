//! One node: what its object says, and what its pods take.
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use client::{Named, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::PodInfo;
use crate::resources::Resources;

/// What the Node object says.
#[derive(Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    /// Sizes by name, for the score that prefers a node which has the image.
    pub images: HashMap<String, i64>,
    /// Region and zone.
    pub zone: String,
}

impl NodeFacts {
    pub fn new(node: &Node) -> Self {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let mut allocatable = Resources::of(status.and_then(|s| s.allocatable.as_ref()));
        let allowed_pods = allocatable.get("pods");
        allocatable.scalars.retain(|(name, _)| **name != *"pods");
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten().flat_map(|i| {
            let size = i.size_bytes.unwrap_or_default();
            i.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        let label = |keys: [&str; 2]| keys.into_iter().find_map(|k| labels.get(k)).cloned().unwrap_or_default();
        let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
        let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
        Self {
            name: node.name().to_owned(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or_default(),
            allocatable,
            allowed_pods,
            images: images.collect(),
            zone: format!("{region}:\0:{zone}"),
            labels,
        }
    }
}

/// A copy is cheap enough to try out what would be without some of its pods.
#[derive(Clone, Debug)]
pub struct NodeState {
    pub facts: Arc<NodeFacts>,
    pub slot: usize,
    /// False for a node known only by its pods (its object is gone, or has not come yet).
    pub present: bool,
    pub requested: Resources,
    /// The same, with what scoring assumes of pods that ask for nothing.
    pub assumed: Resources,
    pub pods: Vec<Arc<PodInfo>>,
}

impl Deref for NodeState {
    type Target = NodeFacts;

    fn deref(&self) -> &NodeFacts {
        &self.facts
    }
}

impl NodeState {
    pub fn unknown(name: &str, slot: usize) -> Self {
        let facts = Arc::new(NodeFacts { name: name.to_owned(), ..NodeFacts::default() });
        Self { facts, slot, present: false, requested: Resources::default(), assumed: Resources::default(), pods: Vec::new() }
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.assumed.add(&pod.assumed);
        self.pods.push(pod);
    }

    pub fn remove_pod(&mut self, key: &ObjectKey) {
        let Some(at) = self.pods.iter().position(|p| p.key == *key) else { return };
        let pod = self.pods.remove(at);
        self.requested.subtract(&pod.requests);
        self.assumed.subtract(&pod.assumed);
    }
}
