//! TLS connections to a live server, as a connector for HTTP clients and for the tunnel.
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::resolve::resolve;
use crate::servers::{ServerAddress, Servers};

/// For each address of a server: TCP and TLS together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server cannot be reached, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{server}: find the address of {:?}: {why}; check the name, or give an address", server.host)]
    Resolve { server: ServerAddress, why: String },
    #[error("{server} cannot be reached: {source}; check the address, that `rk server` runs there, and that no firewall holds its port")]
    Connect { server: ServerAddress, source: io::Error },
    #[error("{server} does not answer; check the address, that `rk server` runs there, and that no firewall holds its port")]
    TimedOut { server: ServerAddress },
    #[error(
        "the clocks of this machine and of {server} differ: its certificate is {state} here; set the clock (`timedatectl set-ntp true`)"
    )]
    Clock { server: ServerAddress, state: &'static str },
    #[error(
        "{server} belongs to another cluster than the one this machine joined; to change over, make a token there (`rk token create`) and run `rk agent join --server {server} --token TOKEN --leave-old-cluster`"
    )]
    OtherCluster { server: ServerAddress },
    #[error("the certificate of {server} is not for {:?}; start the server with --tls-san {}", server.host, server.host)]
    Name { server: ServerAddress },
    #[error("TLS with {server}: {source}; is that port the API's?")]
    Tls { server: ServerAddress, source: io::Error },
    #[error("no server is known; give one with --server https://HOST:6443")]
    NoServer,
}

impl DialError {
    fn tls(server: &ServerAddress, source: io::Error) -> Self {
        let server = server.clone();
        let fault = source.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match fault {
            Some(rustls::Error::InvalidCertificate(fault)) => match fault {
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::Clock { server, state: "not valid yet" }
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Clock { server, state: "valid no longer" },
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherCluster { server },
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name { server },
                _ => Self::Tls { server, source },
            },
            _ => Self::Tls { server, source },
        }
    }
}

/// Connects to servers. Clones share the list and what was learnt of it.
#[derive(Clone)]
pub struct Dialer {
    servers: Arc<Servers>,
    tls: Arc<ClientConfig>,
    /// Cancelled to end every connection made so far.
    epoch: Arc<Mutex<CancellationToken>>,
}

impl Dialer {
    /// `tls` trusts the cluster's authority and shows the node's certificate.
    pub fn new(servers: Arc<Servers>, tls: ClientConfig) -> Self {
        Self { servers, tls: Arc::new(tls), epoch: Arc::default() }
    }

    pub fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    /// Ends the API's connections, so that new ones show a renewed certificate. Clients make them as they need them.
    pub fn end_connections(&self) {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *epoch).cancel();
    }

    /// Connects to `server` and offers the protocols `alpn`.
    pub async fn dial(&self, server: &ServerAddress, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>, DialError> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(tls));
        let unresolved = |why| DialError::Resolve { server: server.clone(), why };
        let name = ServerName::try_from(server.host.clone()).map_err(|e| unresolved(e.to_string()))?;
        let mut last = unresolved("no such host".to_owned());
        for address in resolve(&server.host, server.port).await.map_err(unresolved)? {
            let attempt = async {
                let tcp = TcpStream::connect(address).await.map_err(|source| DialError::Connect { server: server.clone(), source })?;
                let _ = tcp.set_nodelay(true); // fails only on a dead socket, which the handshake notices
                connector.connect(name.clone(), tcp).await.map_err(|source| DialError::tls(server, source))
            };
            match tokio::time::timeout(TIMEOUT, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = DialError::TimedOut { server: server.clone() },
            }
        }
        Err(last)
    }

    /// Connects to the first server that answers, the last that worked before all others.
    pub async fn dial_any(&self, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>, DialError> {
        let mut first = None;
        for server in self.servers.order() {
            match self.dial(&server, alpn).await {
                Ok(stream) => {
                    self.servers.worked(&server);
                    return Ok(stream);
                }
                Err(error) => {
                    tracing::debug!(%server, error = &error as &dyn std::error::Error, "server does not answer");
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or(DialError::NoServer))
    }
}

/// A connector: whatever host a request names, the connection ends at a live server.
impl tower::Service<Uri> for Dialer {
    type Response = ApiStream;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<ApiStream, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let epoch = dialer.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let stream = dialer.dial_any(&[b"h2", b"http/1.1"]).await?;
            Ok(ApiStream { io: TokioIo::new(stream), ended: Box::pin(epoch.cancelled_owned()) })
        })
    }
}

/// A connection for an HTTP client.
pub struct ApiStream {
    io: TokioIo<TlsStream<TcpStream>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection for ApiStream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.io.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl hyper::rt::Read for ApiStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the certificate was renewed")));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for ApiStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }
}
