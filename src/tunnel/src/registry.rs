//! The server's side: which nodes are connected, and streams to them.
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info};

use crate::protocol::{
    CONNECTED, CONNECTION_WINDOW, KUBELET, PING_AFTER, PING_TIMEOUT, PROTOCOL, SEND_BUFFER_BYTES, SERVER, STREAM_WINDOW, STREAMS_MAX,
};

/// How long a call waits for a node that is just coming back, as all do after a restart of the server.
const ARRIVAL: Duration = Duration::from_secs(3);
/// How long an agent may take to accept a stream.
const ACCEPT: Duration = Duration::from_secs(10);

/// No stream to a node; worded to follow upstream's "error dialing backend: ".
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("node {node:?} is not connected to this server")]
    NotConnected { node: String },
    #[error("node {node:?} has {STREAMS_MAX} streams already")]
    Busy { node: String },
    #[error("node {node:?} did not answer within {} s", ACCEPT.as_secs())]
    TimedOut { node: String },
    #[error("node {node:?} answered {status}")]
    Refused { node: String, status: StatusCode },
    #[error("the tunnel of node {node:?} broke: {source}")]
    Broken { node: String, source: hyper::Error },
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::NotConnected { .. } => io::ErrorKind::NotConnected,
            StreamError::Busy { .. } => io::ErrorKind::QuotaExceeded,
            StreamError::TimedOut { .. } => io::ErrorKind::TimedOut,
            StreamError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            StreamError::Broken { .. } => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

/// One node's tunnel.
struct Link {
    number: u64,
    sender: SendRequest<Empty<Bytes>>,
    places: Arc<Semaphore>,
}

/// All tunnels that end at this server. Clones share them.
#[derive(Clone)]
pub struct Tunnels(Arc<Shared>);

struct Shared {
    /// Of this process: an agent must not take a restarted server for the one it is connected to.
    server_id: String,
    next: AtomicU64,
    links: Mutex<HashMap<String, Arc<Link>>>,
    arrived: Notify,
}

impl Default for Tunnels {
    fn default() -> Self {
        let server_id = uuid::Uuid::new_v4().simple().to_string();
        Self(Arc::new(Shared { server_id, next: AtomicU64::new(0), links: Mutex::default(), arrived: Notify::new() }))
    }
}

impl Tunnels {
    /// Answers the request for a tunnel of `node`, whose identity the caller has checked; the tunnel runs in the background.
    pub fn answer<B>(&self, node: &str, request: Request<B>) -> Response<Full<Bytes>> {
        let asked = request.headers().get(UPGRADE).and_then(|v| v.to_str().ok());
        if !asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL)) {
            return plain(StatusCode::UPGRADE_REQUIRED, format!("this path takes Upgrade: {PROTOCOL}\n"));
        }
        let connected = request.headers().get_all(CONNECTED);
        let mut connected = connected.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        if connected.any(|id| id.trim() == self.0.server_id) {
            return plain(StatusCode::CONFLICT, format!("node {node:?} is connected to this server already\n"));
        }
        let (tunnels, node) = (self.clone(), node.to_owned());
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(stream) => tunnels.run(&node, TokioIo::new(stream)).await,
                Err(error) => debug!(node, %error, "the tunnel was not taken up"),
            }
        });
        let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, String::new());
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        headers.insert(SERVER, HeaderValue::from_str(&self.0.server_id).expect("hexadecimal digits fit into a header"));
        response
    }

    /// Speaks HTTP/2 as a client on `stream`, as the tunnel of `node`, until it ends. An older tunnel of the node gets no new
    /// streams from now on; those it has may end in peace.
    pub async fn run(&self, node: &str, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = match handshake {
            Ok(both) => both,
            Err(error) => {
                debug!(node, %error, "the tunnel did not begin");
                return;
            }
        };
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let link = Link { number, sender, places: Arc::new(Semaphore::new(STREAMS_MAX)) };
        // With its last sender, an older connection ends after the streams that it has.
        self.links().insert(node.to_owned(), Arc::new(link));
        self.0.arrived.notify_waiters();
        info!(node, "tunnel is open");
        match connection.await {
            Ok(()) => info!(node, "tunnel has ended"),
            Err(error) => info!(node, %error, "tunnel broke"),
        }
        let mut links = self.links();
        if links.get(node).is_some_and(|current| current.number == number) {
            links.remove(node);
        }
    }

    /// A pipe of bytes to the node's kubelet.
    pub async fn dial(&self, node: &str) -> Result<Stream, StreamError> {
        let not_connected = || StreamError::NotConnected { node: node.to_owned() };
        let link = tokio::time::timeout(ARRIVAL, self.link(node)).await.map_err(|_| not_connected())?;
        let place = link.places.clone().try_acquire_owned().map_err(|_| StreamError::Busy { node: node.to_owned() })?;
        let opened = tokio::time::timeout(ACCEPT, open(link.sender.clone(), node)).await;
        let stream = opened.map_err(|_| StreamError::TimedOut { node: node.to_owned() })??;
        Ok(Stream { io: TokioIo::new(stream), _place: place })
    }

    /// Names of the nodes that are connected now.
    pub fn connected(&self) -> Vec<String> {
        self.links().keys().cloned().collect()
    }

    async fn link(&self, node: &str) -> Arc<Link> {
        loop {
            let arrived = self.0.arrived.notified();
            tokio::pin!(arrived);
            // Enrolled before the look, so that none who comes between is missed.
            arrived.as_mut().enable();
            let found = self.links().get(node).filter(|link| !link.sender.is_closed()).cloned();
            if let Some(link) = found {
                return link;
            }
            arrived.await;
        }
    }

    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Link>>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

async fn open(mut sender: SendRequest<Empty<Bytes>>, node: &str) -> Result<Upgraded, StreamError> {
    let broken = |source| StreamError::Broken { node: node.to_owned(), source };
    sender.ready().await.map_err(broken)?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_static(KUBELET);
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(StreamError::Refused { node: node.to_owned(), status: response.status() });
    }
    hyper::upgrade::on(response).await.map_err(broken)
}

/// Bytes to and from a kubelet. It holds one of its tunnel's places.
pub struct Stream {
    io: TokioIo<Upgraded>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
