//! The start of a node, the same on a server and on an agent: images, runtime, kubelet, Service proxy.
//!
//! What differs is given: how the API is reached, and where the facts about the cluster come from.
mod facts;
mod settings;

use std::path::Path;

use anyhow::Context;
use client::Client;
use kubelet::{Kubelet, KubeletConfig};
use runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

pub use self::facts::{CONFIG_MAP, ClusterFacts, NAMESPACE};
pub use self::settings::{NodeSettings, labels, taint};
use crate::options::RUN_DIR;
use crate::{image, local_storage, shim_image, system};

/// Under which identity each of the node's parts asks the API.
pub struct NodeClients {
    pub kubelet: Client,
    pub proxy: Client,
}

/// Starts the node's parts among `parts`; the kubelet answers on streams from now on.
pub async fn start(
    parts: &mut JoinSet<anyhow::Result<&'static str>>,
    settings: &NodeSettings,
    facts: &ClusterFacts,
    clients: NodeClients,
    shutdown: CancellationToken,
) -> anyhow::Result<Kubelet> {
    let data = &settings.data_dir;
    local_storage::make(data)?;
    kubelet::make_driver_folders(&data.join("kubelet")).context("make the folders of storage drivers")?;
    let images = image::open(data, &settings.private_registry)?;
    let name = system::image().parse().expect("a literal image name");
    let own = std::env::current_exe().context("find this program's file")?;
    images.import_builtin(&name, &own).context("make the system's image")?;
    let runtime = Runtime::open(runtime::Config {
        state_dir: data.join("runtime"),
        run_dir: Path::new(RUN_DIR).join("runtime"),
        shim: shim_image::program(),
        cgroup_root: "rk".to_owned(),
    })
    .await
    .context("open the container runtime")?;
    let kubelet = Kubelet::new(kubelet_config(settings, facts), clients.kubelet, runtime, images);
    let mut network = kubelet.network();
    let (running, stop) = (kubelet.clone(), shutdown.clone());
    parts.spawn(async move { running.run(stop).await.map(|()| "kubelet").context("the kubelet failed") }.instrument(info_span!("kubelet")));
    let node_name = settings.name.clone();
    parts.spawn(
        async move {
            let ready = network.wait_for(Option::is_some).await.context("the kubelet ended before its network was ready")?.clone();
            let network = ready.expect("waited for it");
            proxy::Proxy::new(clients.proxy, &network, node_name).run().await;
            Ok("service proxy")
        }
        .instrument(info_span!("proxy")),
    );
    Ok(kubelet)
}

fn kubelet_config(settings: &NodeSettings, facts: &ClusterFacts) -> KubeletConfig {
    let data = &settings.data_dir;
    KubeletConfig {
        root_dir: data.join("kubelet"),
        run_dir: Path::new(RUN_DIR).join("kubelet"),
        network_state_dir: data.join("network"),
        local_storage_dir: local_storage::folder(data),
        cluster_cidr: facts.cluster_cidr,
        service_cidr: facts.service_cidr,
        cluster_dns: vec![facts.cluster_dns.into()],
        cluster_domain: facts.cluster_domain.clone(),
        network_backend: facts.network_backend,
        host_resolv_conf: settings.resolv_conf.clone(),
        node_labels: settings.labels.clone(),
        node_taints: settings.taints.clone(),
        kubelet_version: crate::cli::KUBERNETES_VERSION.to_owned(),
        runtime_version: format!("rk://{}", crate::cli::VERSION.trim_start_matches('v')),
        ..KubeletConfig::new(settings.name.as_str(), settings.ip)
    }
}
