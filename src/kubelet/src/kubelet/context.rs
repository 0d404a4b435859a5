//! What all pod workers share: the parts of the node, and the operations that need several of them.

use std::collections::HashSet;
use std::sync::Arc;

use client::{Client, Informer, ObjectKey};
use images::Images;
use k8s_openapi::api::core::v1::{Pod, Service};
use network::{HostPort, Network, Protocol};
use runtime::{Runtime, SandboxSpec};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::allocation::{Allocations, Capacity};
use crate::config::KubeletConfig;
use crate::csi::{self, Drivers};
use crate::fields::NodeFacts;
use crate::files;
use crate::images::chain;
use crate::logs::growth::Growth;
use crate::node::machine::Machine;
use crate::pod::event::SandboxMade;
use crate::pod::spec::{LABEL_NAMESPACE, LABEL_POD, LABEL_UID, PodPaths, runtime_resources};
use crate::recorder::Recorder;
use crate::resources;
use crate::volumes::claims;
use crate::volumes::credentials::Credentials;
use crate::volumes::sources::{Objects, PodSources};
use crate::volumes::token;
use crate::volumes::{self, Mounted, Roots};

pub struct Context {
    pub config: KubeletConfig,
    pub client: Client,
    pub runtime: Runtime,
    pub images: Images,
    pub network: watch::Sender<Option<Network>>,
    /// The addresses of this node's pods, once they are known.
    pub pod_cidr: std::sync::OnceLock<ipnet::Ipv4Net>,
    pub recorder: Recorder,
    pub objects: Objects,
    pub roots: Roots,
    pub machine: Machine,
    pub growth: Growth,
    pub allocations: Allocations,
    pub csi: Drivers,
    services: Informer<Service>,
    /// The pods of this node, once the kubelet runs.
    pub pods: std::sync::OnceLock<Informer<Pod>>,
}

/// The kernel's limit.
const HOSTNAME_MAX: usize = 64;

/// `<uid>_<attempt>`: the id of a pod's n-th sandbox.
fn sandbox_id(uid: &str, attempt: u32) -> String {
    format!("{uid}_{attempt}")
}

pub fn sandbox_uid(id: &str) -> &str {
    id.rsplit_once('_').map_or(id, |(uid, _)| uid)
}

pub fn sandbox_attempt(id: &str) -> u32 {
    id.rsplit_once('_').and_then(|(_, attempt)| attempt.parse().ok()).unwrap_or(0)
}

impl Context {
    pub fn new(config: KubeletConfig, client: Client, runtime: Runtime, images: Images) -> Self {
        let recorder = Recorder::new(&client, &config.node_name);
        let machine = Machine::read(&config.root_dir);
        let tell = recorder.clone();
        let capacity = Capacity {
            cpu_milli: machine.cpu_milli,
            memory_bytes: i64::try_from(machine.allocatable_memory_bytes()).unwrap_or(i64::MAX),
            storage_bytes: i64::try_from(machine.allocatable_storage_bytes()).unwrap_or(i64::MAX),
            pods: i64::from(config.max_pods),
        };
        Self {
            allocations: Allocations::new(config.root_dir.clone(), Box::new(move |pod, warning, reason, message| tell.pod(pod, warning, reason, message)), capacity),
            recorder,
            objects: Objects::new(&client, &config.node_name),
            roots: Roots { disk: config.root_dir.clone(), memory: config.run_dir.clone() },
            machine,
            // Of a Service only its address and ports become variables.
            services: Informer::<Service>::builder(&client)
                .project(|s| {
                    s.metadata.managed_fields = None;
                    s.metadata.annotations = None;
                    s.status = None;
                })
                .start(),
            network: watch::Sender::new(None),
            pod_cidr: std::sync::OnceLock::new(),
            growth: Growth::default(),
            csi: Drivers::new(&config.root_dir),
            pods: std::sync::OnceLock::new(),
            config,
            client,
            runtime,
            images,
        }
    }

    pub async fn services_for(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.services.synced().await;
        let mut out = self.services.list_namespace(namespace);
        if namespace != "default" {
            out.extend(self.services.get(&ObjectKey::new("default", "kubernetes")));
        }
        out
    }

    pub fn facts(&self, pod_ips: &[String]) -> NodeFacts {
        NodeFacts {
            pod_ips: pod_ips.to_vec(),
            host_ip: self.config.node_ip.to_string(),
            allocatable_cpu_milli: self.machine.cpu_milli,
            allocatable_memory_bytes: i64::try_from(self.machine.memory_bytes).unwrap_or(i64::MAX),
            allocatable_storage_bytes: i64::try_from(self.machine.storage_bytes).unwrap_or(i64::MAX),
        }
    }

    pub async fn make_volumes(
        self: Arc<Self>,
        pod: Arc<Pod>,
        sources: Arc<PodSources>,
        credentials: Arc<Mutex<Credentials>>,
        cancelled: &CancellationToken,
    ) -> Result<Mounted, String> {
        let mut held = credentials.lock().await;
        tokio::select! {
            renewed = self.renew(&pod, &sources, &mut held) => renewed?,
            () = cancelled.cancelled() => return Err("cancelled".into()),
        }
        let credentials = held.clone();
        drop(held);
        let claimed = tokio::select! {
            claimed = claims::find(&self.client, &pod) => claimed?,
            () = cancelled.cancelled() => return Err("cancelled".into()),
        };
        // Not cut short: what a driver has begun is known to be there.
        let driven = csi::mount::set_up_all(&self, &pod, &claimed).await?;
        let made = tokio::task::spawn_blocking(move || {
            let facts = self.facts(&[]);
            volumes::prepare(&volumes::Request {
                pod: &pod,
                roots: &self.roots,
                sources: &sources,
                credentials: &credentials,
                facts: &facts,
                claimed: &claimed,
                driven: &driven,
                storage: &self.config.local_storage_dir,
            })
        });
        made.await.map_err(|e| e.to_string())?.map_err(|e| chain(&e))
    }

    /// Waits for what the volumes are made of, and has tokens and certificates issued that are missing or due.
    async fn renew(&self, pod: &Pod, sources: &PodSources, credentials: &mut Credentials) -> Result<(), String> {
        sources.synced().await?;
        if let Err(error) = token::renew(&self.client, pod, &mut credentials.tokens).await {
            let name = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).find(|v| v.projected.is_some()).map(|v| v.name.clone());
            return Err(format!("MountVolume.SetUp failed for volume {:?} : failed to fetch token: {error}", name.unwrap_or_default()));
        }
        match &sources.requests {
            Some(requests) => requests.advance(pod, &mut credentials.certificates, &self.recorder).await.map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    /// Namespaces and cgroup, then the network; what was made is taken away again when a step fails.
    pub async fn make_sandbox(&self, pod: &Pod, attempt: u32, cancelled: &CancellationToken) -> Result<SandboxMade, String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let id = sandbox_id(uid, attempt);
        let spec = pod.spec.as_ref();
        let host_network = spec.and_then(|s| s.host_network) == Some(true);
        let hostname = if host_network { self.config.node_name.clone() } else { files::kernel_hostname(pod, &self.config.cluster_domain) };
        if hostname.len() > HOSTNAME_MAX {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {hostname} is too long ({HOSTNAME_MAX} characters is the max, {} characters requested)",
                hostname.len()
            ));
        }
        let network = if host_network {
            None
        } else {
            tokio::select! {
                network = self.wait_for_network() => Some(network?),
                () = cancelled.cancelled() => return Err("cancelled".into()),
            }
        };
        let sysctls = spec
            .and_then(|s| s.security_context.as_ref())
            .and_then(|c| c.sysctls.as_ref())
            .into_iter()
            .flatten()
            .map(|s| (s.name.clone(), s.value.clone()))
            .collect();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let limits = resources::pod_limits(pod);
        let sandbox = SandboxSpec {
            id: id.clone(),
            hostname,
            host_network,
            host_pid: spec.and_then(|s| s.host_pid) == Some(true),
            host_ipc: spec.and_then(|s| s.host_ipc) == Some(true),
            share_pid: spec.and_then(|s| s.share_process_namespace) == Some(true),
            sysctls,
            cgroup_parent: resources::qos(pod).cgroup_parent(uid),
            resources: runtime_resources(&limits),
            shm_size_bytes: None,
            log_dir: Some(PodPaths::new(&self.config, pod).logs),
            labels: [(LABEL_POD, text(&pod.metadata.name)), (LABEL_NAMESPACE, text(&pod.metadata.namespace)), (LABEL_UID, uid.to_owned())]
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect(),
        };
        let handle = self.runtime.create_sandbox(sandbox).await.map_err(|e| chain(&e))?;
        let (Some(network), Some(netns)) = (network, handle.netns_path) else {
            return Ok(SandboxMade { id, pod_ips: vec![self.config.node_ip.to_string()], limits });
        };
        let attached = match network.attach(&id, &netns).await {
            Ok(attachment) => attachment,
            Err(error) => {
                self.remove_sandbox(&id).await;
                return Err(format!("failed to setup network for sandbox {id:?}: {}", chain(&error)));
            }
        };
        let ports = host_ports(pod, attached.address);
        if !ports.is_empty()
            && let Err(error) = network.set_host_ports(&id, ports).await
        {
            self.remove_sandbox(&id).await;
            return Err(format!("failed to set host ports for sandbox {id:?}: {}", chain(&error)));
        }
        Ok(SandboxMade { id, pod_ips: vec![attached.address.to_string()], limits })
    }

    async fn wait_for_network(&self) -> Result<Network, String> {
        let mut network = self.network.subscribe();
        let found = network.wait_for(Option::is_some).await.map_err(|_| "the kubelet is shutting down".to_owned())?;
        found.clone().ok_or_else(|| "the network is not ready".to_owned())
    }

    fn network_now(&self) -> Option<Network> {
        self.network.borrow().clone()
    }

    /// The addresses of a pod whose sandbox an earlier run made.
    pub fn addresses_of(&self, pod: &Pod, sandbox: &str) -> Vec<String> {
        if pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
            return vec![self.config.node_ip.to_string()];
        }
        let recorded = self.network_now().and_then(|n| n.attachments().into_iter().find(|a| a.sandbox_id == sandbox)).map(|a| a.address.to_string());
        match recorded {
            Some(address) => vec![address],
            // The network is not up yet; the API was told the address when the sandbox was made.
            None => pod.status.as_ref().and_then(|s| s.pod_ip.clone()).into_iter().collect(),
        }
    }

    async fn detach(&self, id: &str) -> Result<(), String> {
        let Some(network) = self.network_now() else { return Ok(()) };
        network.set_host_ports(id, Vec::new()).await.map_err(|e| chain(&e))?;
        network.detach(id).await.map_err(|e| chain(&e))
    }

    /// Addresses that no sandbox holds any more.
    pub async fn detach_all_but(&self, live: &HashSet<String>) {
        let Ok(network) = self.wait_for_network().await else { return };
        let existing: HashSet<String> = self.runtime.list().await.into_iter().map(|s| s.id).collect();
        for attachment in network.attachments() {
            if !live.contains(&attachment.sandbox_id) && !existing.contains(&attachment.sandbox_id) {
                let _ = self.detach(&attachment.sandbox_id).await;
            }
        }
    }

    /// Kills everything in it and takes namespaces and network away; records stay.
    pub async fn stop_sandbox(&self, id: &str) {
        if let Err(error) = self.detach(id).await {
            warn!(sandbox = id, error, "detach");
        }
        if let Err(error) = self.runtime.stop_sandbox(id).await
            && !matches!(error, runtime::Error::NotFound { .. })
        {
            warn!(sandbox = id, %error, "stop the sandbox");
        }
    }

    pub async fn remove_sandbox(&self, id: &str) {
        if let Err(error) = self.detach(id).await {
            warn!(sandbox = id, error, "detach");
        }
        if let Err(error) = self.runtime.remove_sandbox(id).await {
            warn!(sandbox = id, %error, "remove the sandbox");
        }
    }

    pub async fn sandboxes_of(&self, uid: &str) -> Vec<String> {
        self.runtime.list().await.into_iter().map(|s| s.id).filter(|id| sandbox_uid(id) == uid).collect()
    }

    /// Sandbox, network and volumes of a pod whose containers have ended. Logs and records stay.
    pub async fn tear_down(self: Arc<Self>, uid: &str, sandbox: Option<&str>) -> Result<(), String> {
        if let Some(id) = sandbox {
            self.detach(id).await?;
            match self.runtime.stop_sandbox(id).await {
                Ok(()) | Err(runtime::Error::NotFound { .. }) => {}
                Err(error) => return Err(chain(&error)),
            }
        }
        self.csi.tear_down(uid).await?;
        let uid = uid.to_owned();
        let removed = tokio::task::spawn_blocking(move || self.roots.remove(&uid));
        removed.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

fn host_ports(pod: &Pod, pod_ip: std::net::Ipv4Addr) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                host_ip: port.host_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "0.0.0.0").and_then(|ip| ip.parse().ok()),
                host_port: u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?,
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                pod_ip,
                pod_port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}
