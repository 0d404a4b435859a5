//! TLS connections to backends, as hyper's pooling client wants them.
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::outbound::go_text;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait for the next request.
const IDLE_MAX: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub type BackendClient = Client<Connector, Body>;

/// Connects to the address that a URI names and expects the Service's name on its certificate.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// HTTP/1.1 only: an upgrade needs a connection of its own, and a dead pod takes no other's requests with it.
pub fn client(tls: Arc<ClientConfig>, name: ServerName<'static>) -> BackendClient {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(Connector { tls, name })
}

async fn connect(connector: Connector, address: SocketAddr) -> io::Result<BackendStream> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("dial tcp {address}: connect: {}", go_text(&error)));
    let attempt = async {
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        let _ = tcp.set_nodelay(true); // fails only on a dead socket, which the handshake notices
        let tls = TlsConnector::from(connector.tls).connect(connector.name, tcp).await;
        tls.map_err(|error| io::Error::new(error.kind(), format!("tls: {error}")))
    };
    match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(stream) => Ok(BackendStream(TokioIo::new(stream?))),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {address}: i/o timeout"))),
    }
}

impl tower::Service<Uri> for Connector {
    type Response = BackendStream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<BackendStream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let address = authority.parse().map_err(|_| io::Error::other(format!("{authority:?} is no address")))?;
            connect(connector, address).await
        })
    }
}

pub struct BackendStream(TokioIo<TlsStream<TcpStream>>);

impl Connection for BackendStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for BackendStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for BackendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
