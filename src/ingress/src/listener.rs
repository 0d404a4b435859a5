//! Sockets, connections and their limits.
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use client::Client;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::config::{IngressConfig, RunError};
use crate::proxy::{Peer, handle};
use crate::routes::Routes;
use crate::sources::Sources;
use crate::tls::{Resolver, server_config};

/// Connections of clients at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_SIZE_MAX: usize = 64 << 10;
/// What a stop leaves to requests under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves until `stop`, then lets the requests under way finish.
pub async fn run(config: IngressConfig, client: Client, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let routes: Arc<ArcSwap<Routes>> = Arc::default();
    let resolver = Arc::new(Resolver::new()?);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(resolver.clone())?));
    let http = bind(config.http).await?;
    let https = bind(config.https).await?;
    let health = bind(config.health).await?;
    tracing::info!(http = %config.http, https = %config.https, health = %config.health, class = config.class, "ingress serves");

    let ready = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    let flag = ready.clone();
    tasks.spawn(Sources::new(&client).follow(config, routes.clone(), resolver, move || flag.store(true, Ordering::Relaxed)));
    tasks.spawn(serve_health(health, ready.clone()));

    let graceful = GracefulShutdown::new();
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(stop);
    loop {
        let permit = limit.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (accepted, tls) = tokio::select! {
            accepted = http.accept() => (accepted, None),
            accepted = https.accept() => (accepted, Some(acceptor.clone())),
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept");
                continue;
            }
        };
        let watcher = graceful.watcher();
        let routes = routes.clone();
        tokio::spawn(async move {
            serve(stream, address, tls, routes, watcher).await;
            drop(permit);
        });
    }
    // Readiness goes first, so that nobody new is sent here.
    ready.store(false, Ordering::Relaxed);
    drop((http, https));
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way at the deadline");
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

async fn serve(stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>, routes: Arc<ArcSwap<Routes>>, watcher: hyper_util::server::graceful::Watcher) {
    if stream.set_nodelay(true).is_err() {
        return; // gone already
    }
    let peer = Peer { ip: address.ip(), tls: tls.is_some() };
    let service = service_fn(move |request| {
        let routes = routes.load_full();
        async move { Ok::<_, Infallible>(handle(routes, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_SIZE_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(128).max_header_list_size(HEAD_SIZE_MAX as u32);
    let result = match tls {
        None => watcher.watch(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => watcher.watch(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()).await,
            _ => return, // scanners and browsers that distrust us
        },
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "connection of a client");
    }
}

async fn serve_health(listener: TcpListener, ready: Arc<AtomicBool>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let ready = ready.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let fine = match request.uri().path() {
                "/healthz" => true,
                "/readyz" => ready.load(Ordering::Relaxed),
                _ => false,
            };
            let status = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let mut response = Response::new(Full::<Bytes>::from(if fine { "ok" } else { "not ready" }));
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).serve_connection(TokioIo::new(stream), service));
    }
}
