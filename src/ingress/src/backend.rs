//! The pods behind one Service port, and idle connections to them.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Kept for a following request; servers commonly close after 60 s or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_PER_ADDRESS_MAX: usize = 64;
/// A response head larger than this is refused.
const HEAD_SIZE_MAX: usize = 64 << 10;

struct Idle {
    sender: SendRequest<Incoming>,
    since: Instant,
}

pub struct Backend {
    pub addresses: Vec<SocketAddr>,
    turn: AtomicUsize,
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Backend").field(&self.addresses).finish()
    }
}

const POISON: &str = "nothing panics while it holds the idle connections";

impl Backend {
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, turn: AtomicUsize::new(0), idle: Mutex::default() }
    }

    /// Every address once, starting with the one whose turn it is.
    pub fn in_turn(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.addresses.len()).map(move |i| self.addresses[start.wrapping_add(i) % self.addresses.len()])
    }

    /// A kept connection; `None` where there is none that still lives.
    pub fn take_idle(&self, address: SocketAddr) -> Option<SendRequest<Incoming>> {
        let mut idle = self.idle.lock().expect(POISON);
        let kept = idle.get_mut(&address)?;
        while let Some(Idle { sender, since }) = kept.pop() {
            if since.elapsed() > IDLE_TIMEOUT {
                kept.clear(); // the ones below are older
            } else if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    pub fn put_idle(&self, address: SocketAddr, sender: SendRequest<Incoming>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().expect(POISON);
        let kept = idle.entry(address).or_default();
        if kept.len() < IDLE_PER_ADDRESS_MAX {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }

    pub async fn connect(address: SocketAddr) -> Result<SendRequest<Incoming>, String> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| "connection timed out".to_owned())?.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) =
            http1::Builder::new().max_buf_size(HEAD_SIZE_MAX).handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%address, %error, "connection to a backend");
            }
        });
        Ok(sender)
    }
}
