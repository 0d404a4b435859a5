//! The node's network: bridge, addresses, and the pods' links.
use std::path::Path;

use crate::error::{AttachError, CommitError, DetachError, SetupError, TeardownError};
use crate::services::{Change, ServiceWriter};
use crate::types::{Attachment, HostPort, IfName, NodeConfig};

/// The network of this node. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: std::sync::Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    services: ServiceWriter,
}

impl Network {
    /// Makes the node's network, or takes over what is there. Call within a tokio runtime.
    pub async fn setup(config: NodeConfig) -> Result<Network, SetupError> {
        Err(SetupError::PodCidrTooSmall {
            cidr: config.pod_cidr,
        })
    }

    /// Gives the sandbox whose network namespace is at `netns` an address and a link. Idempotent by `sandbox_id`: a second
    /// call completes or repeats the first with the same address.
    pub async fn attach(&self, sandbox_id: &str, netns: &Path) -> Result<Attachment, AttachError> {
        let _ = netns;
        Err(AttachError::InvalidSandboxId {
            sandbox_id: sandbox_id.to_owned(),
        })
    }

    /// Takes link, host ports and address of the sandbox back. Nothing to do is success.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), DetachError> {
        let _ = sandbox_id;
        Ok(())
    }

    /// Everything attached, including what an earlier run attached.
    pub fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    /// Sets all host ports of one sandbox; an empty list removes them. Returns when the kernel uses them. After a restart
    /// the caller sets them again for the sandboxes that run on.
    pub async fn set_host_ports(
        &self,
        sandbox_id: &str,
        ports: Vec<HostPort>,
    ) -> Result<(), CommitError> {
        self.inner
            .services
            .apply(vec![Change::HostPorts(sandbox_id.to_owned(), ports)])
            .await
    }

    /// The way to write Services.
    pub fn services(&self) -> ServiceWriter {
        self.inner.services.clone()
    }

    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }
}

/// Removes the bridge, the pods' links, the table `rk-proxy` and the records below `state_dir`, whoever made them. Tries every
/// step and reports all that failed.
pub async fn teardown(bridge: &IfName, state_dir: &Path) -> Result<(), TeardownError> {
    let _ = (bridge, state_dir);
    Ok(())
}
