//! The roles that run in pods: cluster DNS and the ingress controller.
use anyhow::Context;
use client::{Client, ObjectKey};
use ingress::IngressConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::UsageError;
use crate::logging;
use crate::options::{DnsOptions, IngressOptions};

/// Pods have a core at the most and little memory: one thread does.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    logging::start(false);
    pki::install_ring();
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?.block_on(future)
}

pub async fn terminated() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else { return };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
}

pub fn dns(options: DnsOptions) -> anyhow::Result<()> {
    block_on(async {
        let client = Client::in_cluster().context("find the API server from this pod")?;
        let config = dns::DnsConfig { domain: options.domain, listen: options.listen, ..dns::DnsConfig::default() };
        tokio::select! {
            result = dns::run(config, client) => Ok(result?),
            () = terminated() => Ok(()),
        }
    })
}

pub fn ingress(options: IngressOptions) -> anyhow::Result<()> {
    block_on(async {
        let (namespace, name) = options.service.split_once('/').ok_or_else(|| UsageError("--service takes NAMESPACE/NAME".into()))?;
        let client = Client::in_cluster().context("find the API server from this pod")?;
        let config = IngressConfig {
            http: options.http,
            https: options.https,
            health: options.health,
            class: options.class,
            service: ObjectKey::new(namespace, name),
        };
        Ok(ingress::run(config, client, terminated()).await?)
    })
}
