//! Connections to one server, kept from one call to the next.
//!
//! Models the idle connections of Go's http.Transport as client-go sets it up: a call takes one that is free, or makes one; what nobody has used for a
//! while is closed. HTTP/1.1, so each serves one call at a time. They belong to whom they were made for: with a configuration its connections go,
//! and so no call meets a server, an authority or an identity that it no longer names.
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{AbortOnDrop, connect, resolve};

/// As client-go's transports.
const IDLE_MAX: usize = 25;
const IDLE_TIME: Duration = Duration::from_secs(90);

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub enum To<'t> {
    Address(SocketAddr),
    /// Looked up where a connection must be made.
    Host(&'t str, u16),
}

/// The name that the server's certificate must have, and how it is checked.
pub struct Trust<'t> {
    pub name: &'t str,
    pub tls: &'t Arc<ClientConfig>,
}

struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    _task: AbortOnDrop,
}

#[derive(Default)]
struct Idle {
    /// The one used last stands last.
    connections: Vec<(Connection, Instant)>,
    /// Whether somebody waits to close them.
    is_watched: bool,
}

/// The free connections to one server.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Idle>>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

impl Connections {
    /// Sends the request and reads the whole answer, of so many bytes at most.
    pub async fn call(&self, to: To<'_>, trust: Trust<'_>, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<(response::Parts, Bytes), String> {
        while let Some(mut kept) = self.take(to) {
            // The server may close it at any moment, also while the request is on its way. What was not answered is asked again, as webhooks must bear
            // anyway; there is an end to it, as each attempt takes a connection away.
            if kept.sender.ready().await.is_err() {
                continue;
            }
            match kept.sender.send_request(request.clone()).await {
                Ok(answer) => return self.read(kept, answer, bytes_max).await,
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_cut(&error) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let address = match to {
            To::Address(address) => address,
            To::Host(host, port) => SocketAddr::new(resolve(host).await?, port),
        };
        let (sender, task) = connect(address, trust.name.to_owned(), trust.tls.clone()).await?;
        let mut made = Connection { address, sender, _task: task };
        let answer = made.sender.send_request(request).await.map_err(|error| error.to_string())?;
        self.read(made, answer, bytes_max).await
    }

    async fn read(&self, connection: Connection, answer: http::Response<hyper::body::Incoming>, bytes_max: usize) -> Result<(response::Parts, Bytes), String> {
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, bytes_max).collect().await;
        let bytes = body.map_err(|error| format!("unexpected error when reading response body: {error}"))?.to_bytes();
        self.put(connection);
        Ok((parts, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, to: To<'_>) -> Option<Connection> {
        let mut idle = self.lock();
        idle.connections.retain(|(connection, since)| since.elapsed() < IDLE_TIME && !connection.sender.is_closed());
        let fits = |(connection, _): &(Connection, Instant)| match to {
            To::Address(address) => connection.address == address,
            To::Host(..) => true,
        };
        let at = idle.connections.iter().rposition(fits)?;
        Some(idle.connections.remove(at).0)
    }

    fn put(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        if idle.connections.len() >= IDLE_MAX {
            idle.connections.remove(0);
        }
        idle.connections.push((connection, Instant::now()));
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(close_old(Arc::downgrade(&self.0)));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().connections.len()
    }
}

/// Whether the peer has closed it the hard way.
fn is_cut(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// Closes what nobody has used for long, until nothing is left.
async fn close_old(idle: Weak<Mutex<Idle>>) {
    let mut at = Instant::now() + IDLE_TIME;
    loop {
        tokio::time::sleep_until(at).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.retain(|(connection, since)| since.elapsed() < IDLE_TIME && !connection.sender.is_closed());
        match idle.connections.iter().map(|(_, since)| *since).min() {
            Some(oldest) => at = oldest + IDLE_TIME,
            None => {
                idle.is_watched = false;
                return;
            }
        }
    }
}

#[cfg(test)]
pub mod tests;
