//! Puts the parts together.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use client::Client;
use hickory_proto::rr::Name;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::catalog::{Catalog, Mirrors};
use crate::config::{DnsConfig, RunError};
use crate::forward::Forwarder;
use crate::http::{self, Page};
use crate::metrics::Metrics;
use crate::reply::Responder;
use crate::zone::Zone;
use crate::{resolv, tcp, udp};

/// Serves until it is dropped; returns only what keeps it from starting.
pub async fn run(config: DnsConfig, client: Client) -> Result<(), RunError> {
    let domain = domain(&config.domain)?;
    let metrics = Arc::new(Metrics::default());
    let ready = Arc::new(AtomicBool::new(false));

    let listen = |address: SocketAddr, purpose: &'static str| async move {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|source| RunError::Listen { address, purpose, source })
    };
    let mut udp_sockets = Vec::new();
    for _ in 0..config.threads.max(1) {
        let socket =
            udp::bind(config.listen).map_err(|source| RunError::Listen { address: config.listen, purpose: "DNS over UDP", source })?;
        udp_sockets.push(socket);
    }
    let tcp_listener = listen(config.listen, "DNS over TCP").await?;
    let health_listener = listen(config.health, "health").await?;
    let ready_listener = listen(config.ready, "readiness").await?;
    let metrics_listener = listen(config.metrics, "metrics").await?;

    let mirrors = Mirrors::start(&client);
    let servers = upstreams(&config);
    tracing::info!(domain = %domain, listen = %config.listen, ?servers, "cluster DNS");
    let own = mirrors.clone();
    let forwarder = Forwarder::new(servers, move |ip| is_cluster_dns(&own, ip), metrics.clone());
    let responder = Arc::new(Responder {
        zone: Zone { domain, catalog: mirrors.clone() },
        forwarder: Arc::new(forwarder),
        metrics: metrics.clone(),
        turn: AtomicUsize::new(0),
    });

    let health: Page = Arc::new(|| (true, "OK".to_owned()));
    let is_ready = ready.clone();
    let readiness: Page = Arc::new(move || match is_ready.load(Ordering::Acquire) {
        true => (true, "OK".to_owned()),
        false => (false, "waiting for Services and EndpointSlices".to_owned()),
    });
    let page: Page = Arc::new(move || (true, metrics.text()));
    let mut tasks = JoinSet::new();
    tasks.spawn(http::serve(health_listener, "/health", health));
    tasks.spawn(http::serve(ready_listener, "/ready", readiness));
    tasks.spawn(http::serve(metrics_listener, "/metrics", page));
    tasks.spawn(tcp::serve(tcp_listener, responder.clone()));
    let _threads = udp::start(udp_sockets, &responder, &Handle::current()).map_err(RunError::Thread)?;

    mirrors.synced().await;
    ready.store(true, Ordering::Release);
    tracing::info!("Services and EndpointSlices are known");
    // None of them ends.
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no server task panics");
    }
    Ok(())
}

fn domain(text: &str) -> Result<Name, RunError> {
    let error = |reason: String| RunError::Domain { domain: text.to_owned(), reason };
    let mut name = Name::from_ascii(text).map_err(|e| error(e.to_string()))?;
    if name.is_root() {
        return Err(error("it is empty".to_owned()));
    }
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

fn upstreams(config: &DnsConfig) -> Vec<SocketAddr> {
    let path = &config.resolv_conf;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "only the cluster's own names are answered");
            return Vec::new();
        }
    };
    // Who can bind to an address has it.
    let own = |ip: IpAddr| match std::net::UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(e) => e.kind() != io::ErrorKind::AddrNotAvailable && ip.is_loopback(),
    };
    let servers = resolv::upstreams(&text, own);
    if servers.is_empty() {
        tracing::warn!(path = %path.display(), "no server to forward to: only the cluster's own names are answered");
    }
    servers
}

/// Whether the address is that of the Service in front of this server.
fn is_cluster_dns(catalog: &impl Catalog, ip: IpAddr) -> bool {
    let service = catalog.service("kube-system", "kube-dns");
    let spec = service.as_ref().and_then(|s| s.spec.as_ref());
    spec.is_some_and(|s| s.cluster_ip.as_deref() == Some(ip.to_string().as_str()))
}
