//! Asks other servers.
//!
//! Each question goes out from a socket of its own: a random port besides a random id is what keeps forged answers out (RFC 5452).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::cache::{Cache, Key};
use crate::metrics::Metrics;
use crate::reply::UDP_BYTES_MAX;

/// Questions on their way at a time; CoreDNS' configuration commonly has the same.
const ASKED_AT_ONCE: usize = 1_000;
/// Per server; a client tries again after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Forwarder {
    servers: Vec<SocketAddr>,
    /// Addresses that lead back here, known only once Services are.
    own: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    cache: Mutex<Cache>,
    permits: Arc<Semaphore>,
    next: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// What to pass on with a question.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub recursion_desired: bool,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

impl Forwarder {
    pub(crate) fn new(servers: Vec<SocketAddr>, own: impl Fn(IpAddr) -> bool + Send + Sync + 'static, metrics: Arc<Metrics>) -> Forwarder {
        Forwarder {
            servers,
            own: Box::new(own),
            cache: Mutex::default(),
            permits: Arc::new(Semaphore::new(ASKED_AT_ONCE)),
            next: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Room for one more question; `None` when too many are on their way.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.permits.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.metrics.overload.add();
        }
        permit
    }

    /// The answer from the cache.
    pub(crate) fn cached(&self, query: &Query, flags: Flags) -> Option<Message> {
        let found = self.cache().get(&key(query, flags), Instant::now());
        match found {
            Some(_) => self.metrics.cache_hits.add(),
            None => self.metrics.cache_misses.add(),
        }
        found
    }

    /// Asks one server after the other, each time beginning with another; "server failure" when none answers.
    pub(crate) async fn ask(&self, query: &Query, flags: Flags) -> Message {
        let count = self.servers.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for n in 0..count {
            let server = self.servers[(first + n) % count];
            if (self.own)(server.ip()) {
                continue;
            }
            match exchange(server, query, flags).await {
                Ok(answer) => {
                    self.cache().put(key(query, flags), &answer, Instant::now());
                    return answer;
                }
                Err(error) => {
                    self.metrics.upstream_failures.add();
                    tracing::debug!(%server, name = %query.name(), %error, "no answer");
                }
            }
        }
        let mut failed = Message::query();
        failed.metadata.response_code = ResponseCode::ServFail;
        failed
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        let lock = self.cache.lock();
        lock.expect("no holder of the cache panics")
    }
}

fn key(query: &Query, flags: Flags) -> Key {
    Key {
        name: query.name().to_lowercase().to_ascii(),
        kind: query.query_type().into(),
        dnssec_ok: flags.dnssec_ok,
        checking_disabled: flags.checking_disabled,
    }
}

#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("not in time")]
    TooLate,
    #[error("unreadable: {0}")]
    Unreadable(String),
    #[error("the server says {0}")]
    Refused(ResponseCode),
}

async fn exchange(server: SocketAddr, query: &Query, flags: Flags) -> Result<Message, ExchangeError> {
    let mut message = Message::query();
    message.metadata.recursion_desired = flags.recursion_desired;
    message.metadata.checking_disabled = flags.checking_disabled;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX).set_dnssec_ok(flags.dnssec_ok);
    message.set_edns(edns);
    let wire = message.to_vec().map_err(|e| ExchangeError::Unreadable(e.to_string()))?;
    let late = |_| ExchangeError::TooLate;
    let mut answer = timeout(PATIENCE, by_udp(server, &message, &wire)).await.map_err(late)??;
    if answer.metadata.truncation {
        answer = timeout(PATIENCE, by_tcp(server, &message, &wire)).await.map_err(late)??;
    }
    match answer.metadata.response_code {
        code @ (ResponseCode::ServFail | ResponseCode::Refused) => Err(ExchangeError::Refused(code)),
        _ => Ok(answer),
    }
}

async fn by_udp(server: SocketAddr, asked: &Message, wire: &[u8]) -> Result<Message, ExchangeError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(wire).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else is not from the server, or late; the right one may still come.
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answers(asked, &answer) => return Ok(answer),
            _ => {}
        }
    }
}

async fn by_tcp(server: SocketAddr, asked: &Message, wire: &[u8]) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let length = u16::try_from(wire.len()).expect("a question is short");
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(wire);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer) {
        Ok(answer) if answers(asked, &answer) => Ok(answer),
        Ok(_) => Err(ExchangeError::Unreadable("an answer to something else".to_owned())),
        Err(e) => Err(ExchangeError::Unreadable(e.to_string())),
    }
}

fn answers(asked: &Message, answer: &Message) -> bool {
    answer.metadata.id == asked.metadata.id && answer.metadata.message_type == MessageType::Response && answer.queries == asked.queries
}
