//! The API server as a value, and its HTTPS listener.
//!
//! hyper does not set TCP_NODELAY and has no bounds of its own: both are set here.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::resource_quota::Charges;
use crate::aggregation::{self, Aggregation};
use crate::alloc::{self, Services};
use crate::auth::{Chain, UserInfo};
use crate::bootstrap::{self, BootstrapError};
use crate::bursts::Bursts;
use crate::cache::Cache;
use crate::config::{Config, Parts};
use crate::custom;
use crate::documents;
use crate::health::Health;
use crate::flow::{self, FlowControl};
use crate::housekeeping;
use crate::local::Local;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::resource_metrics::Collector;

/// Over HTTP/1 also how long a connection may be idle, so it is upstream's `IdleTimeout` and not its shorter `ReadHeaderTimeout`: clients keep
/// connections for later requests, and one that closes as the next is sent is an error to them.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(90);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 100;
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// More than upstream's 100: a node watches each ConfigMap and Secret of its pods over the one connection that it has, where client-go opens a
/// second one. What runs at once is bounded by [`crate::flow`].
const STREAMS_MAX: u32 = 1000;
/// Of all clients together, so one who opens ten thousand and says nothing leaves room for the others: an idle one takes 13 kB
/// (`tests/bench/crowd.py`).
const CONNECTIONS_MAX: usize = 32_768;

/// Certificates of the listener. Swap the resolver's certificate to renew in place.
#[derive(Clone)]
pub struct Tls(Arc<rustls::ServerConfig>);

#[derive(Debug, thiserror::Error)]
#[error("set up TLS")]
pub struct TlsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Tls {
    /// A fixed certificate; clients may show one that `client_cas` signed.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        client_cas: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = provider.key_provider.load_private_key(key).map_err(|e| TlsError(e.into()))?;
        let certified = rustls::sign::CertifiedKey::new(chain, key);
        let resolver = rustls::sign::SingleCertAndKey::from(certified);
        Self::with_resolver(Arc::new(resolver), client_cas)
    }

    /// Certificates chosen at each handshake.
    pub fn with_resolver(resolver: Arc<dyn rustls::server::ResolvesServerCert>, client_cas: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for ca in client_cas {
            roots.add(ca).map_err(|e| TlsError(e.into()))?;
        }
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError(e.into()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError(e.into()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// How long a client's certificate is good for.
fn certificate_end(leaf: &CertificateDer) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// One API server; clones share it.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub config: Config,
    pub parts: Parts,
    pub services: Services,
    pub aggregation: Aggregation,
    pub resource_metrics: Collector,
    pub metrics: Arc<Metrics>,
    pub bursts: Bursts,
    pub flow: FlowControl,
    pub charges: Charges,
    pub documents: documents::Recent,
    pub health: Health,
    pub started: jiff::Timestamp,
    /// Ends watches and listeners.
    pub shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl ApiServer {
    pub fn new(config: Config, parts: Parts) -> Self {
        let services = Services::new(&config, &parts.cache);
        let flow = FlowControl::new(&config, &parts.cache);
        let aggregation = Aggregation::new(&parts.cache, config.front_proxy.clone());
        Self(Arc::new(Shared {
            config,
            parts,
            services,
            aggregation,
            resource_metrics: Collector::default(),
            metrics: Arc::default(),
            bursts: Bursts::default(),
            charges: Charges::default(),
            documents: documents::Recent::default(),
            flow,
            health: Health::default(),
            started: jiff::Timestamp::now(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Creates what every cluster has (namespaces, the Service `kubernetes`) and starts compaction and expiry. Call once.
    pub async fn start(&self) -> Result<(), BootstrapError> {
        bootstrap::run(self).await?;
        self.0.health.has_started();
        self.0.tasks.spawn(housekeeping::run(self.clone()));
        self.0.tasks.spawn(custom::run(self.clone()));
        self.0.tasks.spawn(aggregation::registration::run(self.clone()));
        self.0.tasks.spawn(aggregation::availability::run(self.clone()));
        self.0.tasks.spawn(alloc::repair::run(self.clone()));
        self.0.tasks.spawn(flow::run(self.clone()));
        let (shutdown, parts) = (self.0.shutdown.clone(), self.0.parts.clone());
        self.0.tasks.spawn(async move {
            shutdown.run_until_cancelled(crate::auth::bootstrap::aggregate_forever(parts.store, parts.cache)).await
        });
        Ok(())
    }

    /// The API in process, as `user`: no socket, no authentication; authorization and all else as for everybody.
    pub fn local(&self, user: UserInfo) -> Local {
        Local::new(self.clone(), user)
    }

    /// What this server holds.
    pub fn cache(&self) -> &Cache {
        &self.0.parts.cache
    }

    /// Adds what `page` says (Prometheus' text format) to `/metrics`.
    pub fn also_measure(&self, page: impl Fn() -> String + Send + Sync + 'static) {
        self.0.metrics.also(Arc::new(page));
    }

    /// Returns when so much has passed through the server since this was asked last that free memory is worth a look. For one who asks.
    pub async fn burst(&self) {
        self.0.bursts.burst().await;
    }

    /// Adds a check to `/readyz` and `/livez`; `readyz` until it first succeeds is what a rollout waits for.
    pub fn add_health_check(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.health.add(name, Box::new(check));
    }

    /// Serves HTTPS until [`ApiServer::shut_down`].
    pub async fn serve(&self, listener: TcpListener, tls: Tls) {
        let acceptor = TlsAcceptor::from(tls.0);
        let connections = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.0.shutdown.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: wait for some to be closed rather than spin.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = connections.clone().try_acquire_owned() else {
                tracing::warn!(%peer, limit = CONNECTIONS_MAX, "too many connections, refused");
                continue;
            };
            let (server, acceptor) = (self.clone(), acceptor.clone());
            self.0.tasks.spawn(async move {
                let _permit = permit;
                server.connection(stream, peer, acceptor).await;
            });
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor) {
        let _ = stream.set_nodelay(true); // fails only on a dead socket, which the handshake notices
        let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                self.0.metrics.handshake_failed();
                tracing::debug!(%peer, %error, "TLS handshake failed");
                return;
            }
            Err(_) => return self.0.metrics.handshake_failed(),
        };
        let chain = tls.get_ref().1.peer_certificates().unwrap_or(&[]).iter().map(|c| c.clone().into_owned()).collect();
        let chain = Arc::new(Chain::new(chain));
        let end = self.0.parts.authenticator.end_of(&chain).unwrap_or_default();
        let good_until = chain.leaf().and_then(certificate_end);
        let server = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            if let Some(end) = good_until {
                server.0.metrics.access.certificate(end);
            }
            let (server, chain) = (server.clone(), chain.clone());
            async move { Ok::<_, std::convert::Infallible>(pipeline::from_socket(server, chain, peer, request.map(Body::new)).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_headers(HEADERS_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = end.cancelled() => return, // closes it
            () = self.0.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    /// Stops accepting, ends watches and streams, and returns when the requests in flight are done. The caller sets the deadline.
    pub async fn shut_down(&self) {
        self.0.health.begin_shutdown();
        self.0.shutdown.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}
