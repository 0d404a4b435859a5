//! `rk server`: puts the parts together, in the order in which they need each other.
//!
//! Store, watch cache, API; then whoever speaks to the API: controllers, scheduler, kubelet, proxy. All of them hold a
//! client and nothing else of each other. A part that dies takes the process down with its error: the next start is the
//! recovery, and containers do not notice.
mod access;
mod admission;
mod datastore;
mod local;
mod memory;
mod parts;
mod serving;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cli::UsageError;
use crate::node::{self, ClusterFacts, NodeSettings};
use crate::options::{REGISTRIES, RESOLV_CONF, RUN_DIR, ServerOptions};
use crate::{host, kubeconfig, lock, logging};

pub use datastore::endpoint as datastore_endpoint;

/// What requests under way get when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Options, checked and completed from the machine.
pub struct Settings {
    pub options: ServerOptions,
    pub node: NodeSettings,
    pub facts: ClusterFacts,
    pub advertise: std::net::Ipv4Addr,
    pub node_ports: std::ops::RangeInclusive<u16>,
    pub kubeconfig_mode: u32,
    pub scheduler: scheduler::SchedulerConfig,
    pub admission: Vec<apiserver::admission::OnRequest>,
    pub access: access::Access,
    /// Of ServiceAccount tokens.
    pub issuer: String,
    /// As they were given, or are by default.
    pub flags: Vec<(String, String)>,
}

pub fn main(options: ServerOptions, flags: Vec<(String, String)>) -> anyhow::Result<()> {
    let started = Instant::now();
    logging::start(options.debug);
    pki::install_ring();
    let settings = complete(options, flags)?;
    if !rustix::process::geteuid().is_root() {
        bail!("rk server must run as root: sudo rk server");
    }
    let _lock = lock::acquire(Path::new(RUN_DIR))?;
    host::raise_limits();
    // Bound before anything is made, so that a busy port leaves nothing half done.
    let address = SocketAddr::new(settings.options.bind_address, settings.options.https_listen_port);
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!("listen on {address} (if the port is taken, choose another with --https-listen-port; `ss -ltnp` shows by whom)")
    })?;
    listener.set_nonblocking(true).context("prepare the listener")?;
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    runtime::heap::set_up(workers);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_stack_size(2 << 20)
        .enable_all()
        .build()
        .context("start threads")?;
    let result = runtime.block_on(parts::run(settings, listener, started));
    runtime.shutdown_timeout(DRAIN);
    result
}

fn complete(options: ServerOptions, flags: Vec<(String, String)>) -> anyhow::Result<Settings> {
    let usage = |text: String| anyhow::Error::from(UsageError(text));
    datastore::check(&options.datastore)?;
    let node_name = host::node_name(options.node.node_name.as_deref())?;
    let node_ip = options.node.node_ip.map_or_else(host::node_address, Ok)?;
    let (from, to) = options
        .service_node_port_range
        .split_once('-')
        .and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?)))
        .filter(|(a, b)| 0 < *a && a <= b)
        .ok_or_else(|| usage(format!("--service-node-port-range {:?} is not FROM-TO", options.service_node_port_range)))?;
    let admission = admission::plugins(&options.enable_admission_plugins, options.admission_control_config_file.as_deref())?;
    let issuer = format!("https://kubernetes.default.svc.{}", options.cluster_domain);
    let access = access::load(&options.access, &issuer)?;
    let (pods, services) = (options.cluster_cidr, options.service_cidr);
    if pods.contains(&services) || services.contains(&pods) {
        return Err(usage(format!("--cluster-cidr {pods} and --service-cidr {services} overlap")));
    }
    if pods.prefix_len() > 24 || services.prefix_len() > 28 {
        return Err(usage("--cluster-cidr must hold at least a /24, --service-cidr at least a /28".into()));
    }
    if pods.contains(&node_ip) || services.contains(&node_ip) {
        return Err(usage(format!(
            "the node's own address {node_ip} lies in the cluster's networks; choose others with --cluster-cidr and --service-cidr"
        )));
    }
    let tenth = u32::from(services.network()) + 10;
    let cluster_dns = options.cluster_dns.unwrap_or_else(|| tenth.into());
    if !services.contains(&cluster_dns) {
        return Err(usage(format!("--cluster-dns {cluster_dns} is not in --service-cidr {services}")));
    }
    let advertise = match (options.advertise_address, options.bind_address) {
        (Some(address), _) => address,
        (None, IpAddr::V4(bound)) if !bound.is_unspecified() => bound,
        (None, _) => node_ip,
    };
    let kubeconfig_mode = kubeconfig::mode(&options.write_kubeconfig_mode)?;
    let scheduler = match &options.scheduler_config {
        None => scheduler::SchedulerConfig::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read --scheduler-config {}", path.display()))?;
            scheduler::SchedulerConfig::parse(&text).map_err(|e| usage(format!("--scheduler-config {}: {e}", path.display())))?
        }
    };
    let node = NodeSettings {
        name: node_name,
        ip: node_ip,
        labels: node::labels(&options.node.node_label)?,
        taints: options.node.node_taint.iter().map(|t| node::taint(t)).collect::<Result<_, _>>()?,
        data_dir: options.data_dir.clone(),
        resolv_conf: options.node.resolv_conf.clone().unwrap_or_else(|| RESOLV_CONF.into()),
        private_registry: options.node.private_registry.clone().unwrap_or_else(|| REGISTRIES.into()),
    };
    let facts = ClusterFacts {
        cluster_cidr: pods,
        service_cidr: services,
        cluster_dns,
        cluster_domain: options.cluster_domain.clone(),
        network_backend: options.network_backend,
    };
    Ok(Settings { node, facts, advertise, node_ports: from..=to, kubeconfig_mode, scheduler, admission, access, issuer, options, flags })
}
