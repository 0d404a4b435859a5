//! Events about pods and their containers, as the kubelet words them.

use client::{Clock, Client, EventRecorder, EventType, object_reference};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};

#[derive(Clone)]
pub struct Recorder {
    inner: EventRecorder,
    node_name: String,
}

impl Recorder {
    pub fn new(client: &Client, node_name: &str) -> Self {
        Self { inner: EventRecorder::new(client, "kubelet", Some(node_name), Clock::system()), node_name: node_name.to_owned() }
    }

    pub fn pod(&self, pod: &Pod, warning: bool, reason: &str, message: impl Into<String>) {
        self.inner.record_on(object_reference(pod), kind(warning), reason, message);
    }

    /// About one container: the reference carries its place in the pod.
    pub fn container(&self, pod: &Pod, name: &str, warning: bool, reason: &str, message: impl Into<String>) {
        let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| c.name == name);
        let list = if init { "initContainers" } else { "containers" };
        let about = ObjectReference { field_path: Some(format!("spec.{list}{{{name}}}")), ..object_reference(pod) };
        self.inner.record_on(about, kind(warning), reason, message);
    }

    /// As upstream, a node event's uid is the node's name.
    pub fn node(&self, warning: bool, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            api_version: None,
            uid: Some(self.node_name.clone()),
            ..object_reference(&Node {
                metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { name: Some(self.node_name.clone()), ..Default::default() },
                ..Node::default()
            })
        };
        self.inner.record_on(about, kind(warning), reason, message);
    }
}

fn kind(warning: bool) -> EventType {
    if warning { EventType::Warning } else { EventType::Normal }
}
