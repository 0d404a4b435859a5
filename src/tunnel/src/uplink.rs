//! The agent's side: one tunnel to each known server, kept open.
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Backoff;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::dial::Dialer;
use crate::handshake::{self, OpenError};
use crate::protocol::{CONNECTION_WINDOW, PING_AFTER, PING_TIMEOUT, SEND_BUFFER_BYTES, STREAM_WINDOW, STREAMS_MAX};
use crate::servers::ServerAddress;

/// One stream of a tunnel.
pub type Pipe = TokioIo<Upgraded>;
/// Answers on a stream until it ends: the kubelet's HTTP server.
pub type Handler = Arc<dyn Fn(Pipe) -> BoxFuture<'static, ()> + Send + Sync>;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A tunnel that lived so long was no failure.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// Speaks HTTP/2 as a server on `stream` and hands each of its pipes to `handler`.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Handler) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            if request.method() != Method::CONNECT {
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                return Ok::<_, Infallible>(response);
            }
            tokio::spawn(async move {
                match hyper::upgrade::on(request).await {
                    Ok(pipe) => handler(TokioIo::new(pipe)).await,
                    Err(error) => debug!(%error, "a stream of the tunnel was not taken up"),
                }
            });
            Ok(response)
        }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// The agent's tunnels. [`Uplinks::run`] keeps them open.
#[derive(Clone)]
pub struct Uplinks {
    dialer: Dialer,
    handler: Handler,
    /// Identities of the servers that tunnels end at now.
    connected: Arc<watch::Sender<HashMap<ServerAddress, String>>>,
    opened: CancellationToken,
}

impl Uplinks {
    pub fn new(dialer: Dialer, handler: Handler) -> Self {
        Self { dialer, handler, connected: Arc::default(), opened: CancellationToken::new() }
    }

    /// Resolves when the first tunnel is open.
    pub fn opened(&self) -> impl Future<Output = ()> + Send + use<> {
        self.opened.clone().cancelled_owned()
    }

    /// Follows the list of servers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut list = self.dialer.servers().subscribe();
        let mut tasks = JoinSet::new();
        let mut stops: HashMap<ServerAddress, CancellationToken> = HashMap::new();
        loop {
            let wanted = list.borrow_and_update().clone();
            stops.retain(|server, stop| {
                let stays = wanted.contains(server);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            for server in wanted {
                stops.entry(server.clone()).or_insert_with(|| {
                    let stop = shutdown.child_token();
                    let (uplinks, stopped) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        stopped.run_until_cancelled(uplinks.keep_open(&server)).await;
                        uplinks.disconnected(&server);
                    });
                    stop
                });
            }
            tokio::select! {
                Ok(()) = list.changed() => {}
                () = shutdown.cancelled() => break,
            }
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn keep_open(&self, server: &ServerAddress) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut told = false;
        loop {
            let started = Instant::now();
            let mut others = self.connected.subscribe();
            match self.once(server).await {
                Ok(()) => {
                    info!(%server, "tunnel has ended");
                    told = false;
                }
                Err(OpenError::SameServer { .. }) => {
                    // The other address leads there; this one is needed when a tunnel has ended.
                    debug!(%server, "connected by another address");
                    let _ = others.changed().await; // the sender is `self`'s
                }
                // Once, not at each attempt: a server may be away for days.
                Err(error) if !told => {
                    warn!(%server, error = &error as &dyn std::error::Error, "no tunnel; trying on");
                    told = true;
                }
                Err(error) => debug!(%server, error = &error as &dyn std::error::Error, "no tunnel"),
            }
            if started.elapsed() > GOOD_LIFE {
                backoff.reset();
            }
            sleep(backoff.next_delay()).await;
        }
    }

    async fn once(&self, server: &ServerAddress) -> Result<(), OpenError> {
        let stream = self.dialer.dial(server, &[b"http/1.1"]).await?;
        let connected: Vec<String> = self.connected.borrow().values().cloned().collect();
        let opened = handshake::open(stream, server, &connected).await?;
        self.connected.send_modify(|connected| drop(connected.insert(server.clone(), opened.server_id)));
        self.opened.cancel();
        info!(%server, "tunnel is open");
        let ended = serve(opened.stream, self.handler.clone()).await;
        self.disconnected(server);
        ended.map_err(|source| OpenError::Http { server: server.clone(), source })
    }

    fn disconnected(&self, server: &ServerAddress) {
        self.connected.send_if_modified(|connected| connected.remove(server).is_some());
    }
}
