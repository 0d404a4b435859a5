//! Calls to etcd: at one endpoint, and at the next when that one does not answer; with deadlines, limits and pauses.
//!
//! Models k8s.io/apiserver/pkg/storage/storagebackend/factory/etcd3.go (keep-alives) and go.etcd.io/etcd/client/v3/retry.go: reads are
//! tried again, a write only where it surely did not leave this machine.
use std::error::Error as _;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Response, Status, Streaming};

use super::generated::etcdserverpb as pb;
use super::{CALL_TIME_MAX, OpenError, Options, SENT_BYTES_MAX};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(10);
/// One answer; whoever asks for pages asks for smaller ones then.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A call that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Compacted,
    Future,
    /// The request is.
    TooLarge,
    AnswerTooLarge,
    /// In etcd's words where it said any.
    Unavailable(Arc<str>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::Future => "etcdserver: mvcc: required revision is a future revision",
            Self::TooLarge => "etcdserver: request is too large",
            Self::AnswerTooLarge => "the answer of etcd is too large",
            Self::Unavailable(reason) => reason,
        })
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let message = status.message();
        let known = [
            ("required revision has been compacted", Self::Compacted),
            ("required revision is a future revision", Self::Future),
            ("request is too large", Self::TooLarge),
            ("message length too large", Self::AnswerTooLarge),
        ];
        let found = known.into_iter().find(|(words, _)| message.contains(words)).map(|(_, failure)| failure);
        found.unwrap_or_else(|| Self::Unavailable(reason(status).into()))
    }
}

/// etcd's words; of the transport's errors the innermost, which says what is the matter.
fn reason(status: &Status) -> String {
    let mut innermost = None;
    let mut next = status.source();
    while let Some(error) = next {
        innermost = Some(error.to_string());
        next = error.source();
    }
    match (innermost, status.message()) {
        (Some(inner), outer) if inner != outer => format!("{outer}: {inner}"),
        (_, "") => status.code().description().to_owned(),
        (_, outer) => outer.to_owned(),
    }
}

/// Whether the request did not leave: there was no connection.
fn is_unsent(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Pauses that grow to two seconds, each different from those of others.
pub struct Backoff {
    pause: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: Duration::from_millis(50), max: Duration::from_secs(2) }
    }
}

impl Backoff {
    pub fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.max);
        // A new state hashes the same to something else.
        let share = (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64;
        pause.mul_f64(0.5 + share)
    }
}

pub struct Clients {
    channels: Vec<(String, Channel)>,
    /// The one in use, modulo their number.
    current: AtomicUsize,
}

impl Clients {
    pub fn new(options: &Options) -> Result<Self, OpenError> {
        if options.endpoints.is_empty() {
            return Err(OpenError::NoEndpoint);
        }
        let tls = tls(options)?;
        let channels = options.endpoints.iter().map(|endpoint| {
            let wrong = |error: tonic::transport::Error| {
                let inner = error.source().map_or_else(String::new, |source| format!(": {source}"));
                OpenError::Endpoint { endpoint: endpoint.clone(), reason: format!("{error}{inner}") }
            };
            let mut built = Endpoint::from_shared(endpoint.clone())
                .map_err(wrong)?
                .connect_timeout(CONNECT_TIME_MAX)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
                .keep_alive_timeout(KEEP_ALIVE_TIME_MAX)
                .keep_alive_while_idle(true);
            if built.uri().scheme_str() == Some("https") {
                built = built.tls_config(tls.clone()).map_err(wrong)?;
            }
            Ok((endpoint.clone(), built.connect_lazy()))
        });
        Ok(Self { channels: channels.collect::<Result<_, OpenError>>()?, current: AtomicUsize::new(0) })
    }

    fn current(&self) -> (usize, &(String, Channel)) {
        let at = self.current.load(Ordering::Relaxed);
        (at, &self.channels[at % self.channels.len()])
    }

    /// Goes on with the next endpoint, unless another call has done so already.
    fn leave(&self, at: usize) {
        let _ = self.current.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn call<T, F>(&self, is_read: bool, call: impl Fn(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + CALL_TIME_MAX;
        let mut backoff = Backoff::default();
        loop {
            let (at, (endpoint, channel)) = self.current();
            let status = match timeout_at(deadline, call(channel.clone())).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    self.leave(at);
                    let reason = format!("etcd at {endpoint} did not answer within {} s", CALL_TIME_MAX.as_secs());
                    return Err(Failure::Unavailable(reason.into()));
                }
            };
            // What has a source was said here, of the connection; the rest by etcd.
            let is_unreachable = status.code() == Code::Unavailable || status.source().is_some();
            if is_unreachable {
                self.leave(at);
            }
            let pause = backoff.next();
            if !is_unreachable || !(is_read || is_unsent(&status)) || Instant::now() + pause >= deadline {
                return Err(Failure::from(&status));
            }
            sleep(pause).await;
        }
    }

    pub async fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
        self.call(true, |channel| {
            let request = request.clone();
            async move { kv(channel).range(request).await }
        })
        .await
    }

    pub async fn transaction(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
        self.call(false, |channel| {
            let request = request.clone();
            async move { kv(channel).txn(request).await }
        })
        .await
    }

    pub async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let request = pb::CompactionRequest { revision, physical: false };
        self.call(true, |channel| async move { kv(channel).compact(request).await }).await.map(|_| ())
    }

    /// A lease that runs out after that time unless it is kept alive.
    pub async fn grant(&self, time: Duration) -> Result<i64, Failure> {
        let request = pb::LeaseGrantRequest { ttl: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), id: 0 };
        // One that was granted and not heard of runs out by itself.
        self.call(true, |channel| async move { pb::lease_client::LeaseClient::new(channel).lease_grant(request).await })
            .await
            .map(|granted| granted.id)
    }

    /// How many seconds it has from now; none when it has run out.
    pub async fn keep_alive(&self, lease: i64) -> Result<i64, Failure> {
        self.call(true, |channel| async move {
            let requests = futures::stream::iter([pb::LeaseKeepAliveRequest { id: lease }]);
            let mut answers = pb::lease_client::LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
            let answer = answers.message().await?.ok_or_else(|| Status::unavailable("etcd did not answer a keep-alive"))?;
            Ok(Response::new(answer.ttl))
        })
        .await
    }

    pub async fn revoke(&self, lease: i64) -> Result<(), Failure> {
        let request = pb::LeaseRevokeRequest { id: lease };
        self.call(true, |channel| async move { pb::lease_client::LeaseClient::new(channel).lease_revoke(request).await }).await.map(|_| ())
    }

    pub async fn status(&self) -> Result<pb::StatusResponse, Failure> {
        self.call(true, |channel| async move { pb::maintenance_client::MaintenanceClient::new(channel).status(pb::StatusRequest {}).await })
            .await
    }

    /// Begins a watch: `request` is all that is ever asked on it. One that its member cannot vouch for (no leader) is ended by etcd.
    pub async fn watch(&self, request: pb::WatchCreateRequest) -> Result<Streaming<pb::WatchResponse>, Failure> {
        self.call(true, |channel| {
            let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(request.clone())) };
            // A stream of requests that ends would end the watch.
            let requests = futures::StreamExt::chain(futures::stream::iter([create]), futures::stream::pending());
            let mut requests = tonic::Request::new(requests);
            requests.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
            async move {
                let mut client = pb::watch_client::WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                client.watch(requests).await
            }
        })
        .await
    }
}

fn kv(channel: Channel) -> pb::kv_client::KvClient<Channel> {
    // The second with some room for the key and what is around the value.
    pb::kv_client::KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).max_encoding_message_size(SENT_BYTES_MAX + (64 << 10))
}

fn tls(options: &Options) -> Result<ClientTlsConfig, OpenError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|source| OpenError::Read { path: path.clone(), source });
    let mut tls = ClientTlsConfig::new();
    tls = match &options.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&options.cert, &options.key) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] < Duration::from_millis(75) && pauses.iter().all(|p| *p < Duration::from_secs(3)));
        assert!(pauses[19] >= Duration::from_secs(1) && pauses[18] != pauses[19]);
    }

    #[test]
    fn what_etcd_says_is_understood() {
        let said = |code, text: &str| Failure::from(&Status::new(code, text));
        assert_eq!(said(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"), Failure::Compacted);
        assert_eq!(said(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"), Failure::Future);
        assert_eq!(said(Code::InvalidArgument, "etcdserver: request is too large"), Failure::TooLarge);
        let full = said(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert_eq!(full.to_string(), "etcdserver: mvcc: database space exceeded");
    }
}
