//! The node's network: bridge, addresses, the pods' links, and the way to other nodes.
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::addresses::Addresses;
use crate::bridge;
use crate::error::{AttachError, CommitError, DetachError, SetupError, StepError, TeardownError};
use crate::mesh::{self, Mesh};
use crate::netlink;
use crate::pod;
use crate::routes::{Routes, pod_link_name};
use crate::services::{self, Change, ServiceWriter};
use crate::types::{Attachment, HostPort, IfName, NodeConfig};

/// The network of this node. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    mtu: u32,
    addresses: Mutex<Addresses>,
    services: ServiceWriter,
    mesh: Mesh,
}

impl Network {
    /// Makes the node's network, or takes over what is there. Must be called within a tokio runtime.
    pub async fn setup(config: NodeConfig) -> Result<Network, SetupError> {
        if config.pod_cidr.prefix_len() > 30 {
            return Err(SetupError::PodCidrTooSmall { cidr: config.pod_cidr });
        }
        let given = config.clone();
        let (mtu, addresses, mesh) = on_own_thread("rk-net-setup", move || {
            let boot_id = boot_id()?;
            let addresses =
                Addresses::open(&given.state_dir, given.pod_cidr, &boot_id).map_err(StepError::new("read the recorded addresses"))?;
            let mtu = bridge::setup(&given, |address| addresses.contains(address))?;
            let mesh = Mesh::setup(&given, mtu)?;
            Ok::<_, StepError>((mtu, addresses, mesh))
        })
        .await?;
        let services = services::start(&config).await?;
        Ok(Network { inner: Arc::new(Inner { config, mtu, addresses: Mutex::new(addresses), services, mesh }) })
    }

    /// Gives the sandbox whose network namespace is at `netns` an address and a link. Idempotent by `sandbox_id`: a second
    /// call completes or repeats the first with the same address, and leaves a link that is in place as it is.
    pub async fn attach(&self, sandbox_id: &str, netns: &Path) -> Result<Attachment, AttachError> {
        let address = self.addresses().allocate(sandbox_id)?;
        let plan = pod::Plan {
            netns: netns.to_owned(),
            link: pod_link_name(address),
            address,
            gateway: self.inner.config.gateway(),
            mtu: self.inner.mtu,
        };
        on_own_thread("rk-net-pod", move || pod::connect(&plan)).await.map_err(|source| AttachError::Step {
            sandbox_id: sandbox_id.to_owned(),
            address,
            source,
        })?;
        Ok(self.attachment(sandbox_id, address))
    }

    /// Takes link, host ports and address of the sandbox back. Nothing to do is success.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), DetachError> {
        let error = |source| DetachError { sandbox_id: sandbox_id.to_owned(), source };
        let commit = |e: CommitError| StepError::new("remove the host ports")(std::io::Error::other(e));
        self.set_host_ports(sandbox_id, Vec::new()).await.map_err(|e| error(commit(e)))?;
        let Some(address) = self.addresses().get(sandbox_id) else {
            return Ok(());
        };
        let link = pod_link_name(address);
        on_own_thread("rk-net-pod", move || pod::disconnect(&link)).await.map_err(error)?;
        // Last, so that the address is never given out while its link still exists.
        self.addresses().release(sandbox_id).map_err(|e| error(StepError::new(format!("free address {address}"))(e)))
    }

    /// Everything attached, including what an earlier run attached.
    pub fn attachments(&self) -> Vec<Attachment> {
        let addresses = self.addresses();
        let all = addresses.iter();
        all.map(|(address, sandbox)| self.attachment(sandbox, address)).collect()
    }

    /// Sets all host ports of one sandbox; an empty list removes them. Returns when the kernel uses them. After a restart
    /// the caller sets them again for the sandboxes that run on; until the first [`ServiceWriter::replace`] the rules of the
    /// earlier run stand, and this waits for it.
    pub async fn set_host_ports(&self, sandbox_id: &str, ports: Vec<HostPort>) -> Result<(), CommitError> {
        self.inner.services.apply(vec![Change::HostPorts(sandbox_id.to_owned(), ports)]).await
    }

    /// The way to write Services.
    pub fn services(&self) -> ServiceWriter {
        self.inner.services.clone()
    }

    /// The way to the pods of other nodes.
    pub fn mesh(&self) -> Mesh {
        self.inner.mesh.clone()
    }

    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// The MTU of the bridge and of every pod's link.
    pub fn mtu(&self) -> u32 {
        self.inner.mtu
    }

    fn attachment(&self, sandbox_id: &str, address: std::net::Ipv4Addr) -> Attachment {
        Attachment { sandbox_id: sandbox_id.to_owned(), address, gateway: self.inner.config.gateway(), link: pod_link_name(address) }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        let lock = self.inner.addresses.lock();
        lock.expect("no holder of the address table panics")
    }
}

/// Removes the bridge, the pods' links, links and routes to other nodes, the table `rk-proxy` and the records below `state_dir`, whoever made them. Tries every
/// step and reports all that failed. Not for a node whose [`Network`] is still used.
pub async fn teardown(bridge: &IfName, state_dir: &Path) -> Result<(), TeardownError> {
    let (bridge, state_dir) = (bridge.clone(), state_dir.to_owned());
    on_own_thread("rk-net-teardown", move || {
        let mut steps = Vec::new();
        let failed = |step: &str, e: netlink::Error| StepError::new(step)(e.into());
        if let Err(e) = services::remove_table() {
            steps.push(failed("remove the table rk-proxy", e));
        }
        mesh::remove(&state_dir, &mut steps);
        match Routes::open() {
            Ok(mut routes) => bridge::remove(&mut routes, &bridge, &state_dir, &mut steps),
            Err(e) => steps.push(failed("open a netlink socket", e)),
        }
        if let Err(e) = bridge::restore_forwarding(&state_dir) {
            steps.push(e);
        }
        if let Err(e) = Addresses::erase(&state_dir) {
            steps.push(StepError::new("remove the recorded addresses")(e));
        }
        match steps.is_empty() {
            true => Ok(()),
            false => Err(TeardownError { steps }),
        }
    })
    .await
}

/// Runs blocking work on a thread that lives only for it: it may enter another namespace without a way back.
pub(crate) async fn on_own_thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            // The caller may have gone away; the work is done all the same.
            let _ = done.send(work());
        })
        .expect("a thread can be started");
    answer.await.expect("the thread does not panic")
}

fn boot_id() -> Result<String, StepError> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .map_err(StepError::new("read the kernel's boot id"))
}
