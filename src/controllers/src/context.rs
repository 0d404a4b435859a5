//! What every controller is given.
use std::sync::Arc;

use client::{Client, Clock, EventRecorder, SharedInformers};
use ipnet::IpNet;

/// What the operator decides about the controllers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pod addresses of all nodes.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of one node's part of it.
    pub node_cidr_mask: u8,
    /// The certificate that pods trust the API server by, in PEM; published in every namespace.
    pub root_ca: String,
    /// Finished pods beyond this number are deleted, oldest first; 0 keeps all.
    pub terminated_pods_max: usize,
    /// The node of the server itself: nobody joins under its name.
    pub server_node: String,
    /// Of HorizontalPodAutoscalers.
    pub autoscaling: crate::autoscaling::Settings,
    /// The image whose only program is this binary; every node has it.
    pub system_image: String,
}

/// What the controllers run on.
#[derive(Clone)]
pub struct ControllerContext {
    /// A client with the identity of the controller of this name (`deployment-controller` ...).
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The process's informers, shared with whoever else reads.
    pub informers: SharedInformers,
    pub clock: Clock,
    pub config: Arc<Config>,
    /// Signs requests for certificates.
    pub pki: Arc<pki::Cluster>,
    /// Signs the tokens that stand in Secrets.
    pub tokens: Arc<pki::ServiceAccountSigner>,
}

impl ControllerContext {
    pub(crate) fn client(&self, name: &str) -> Client {
        (self.client_for)(name)
    }

    pub(crate) fn recorder(&self, client: &Client, component: &str) -> EventRecorder {
        EventRecorder::new(client, component, None, self.clock.clone())
    }
}
