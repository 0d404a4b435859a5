//! The store in an etcd of its own, for state that outlives its server's disk.
//!
//! Models k8s.io/apiserver/pkg/storage/etcd3: a conditional write is one transaction on the key's mod_revision, and revisions are
//! etcd's. One watch over the whole prefix ([`feed`]) is what the hooks see; a write is acknowledged once that watch has brought it,
//! and a read of the present is answered once the hooks have seen all that it shows. So the watch cache above is never behind what
//! somebody was told.
//!
//! Every write is synced: [`crate::Durability::Relaxed`] only allows less. After a failure in the middle of a write (a timeout, a lost
//! connection) it is unknown whether it happened, as with every client of etcd.
mod clients;
mod compact;
mod convert;
mod feed;
mod generated;
mod known;
mod reads;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Hook, KeyValue, Operation, Range, RangeResult, Revision, Store, StoreError, Watch, WatchError, Write, WriteError, Written};

use clients::{Backoff, Clients, Failure};
use compact::Compactor;
use convert::Keys;
use feed::Feed;
use generated::etcdserverpb as pb;
use shared::Shared;

/// Largest request that etcd takes unless told otherwise (`--max-request-bytes`).
const REQUEST_BYTES_MAX: usize = 3 << 19;
/// Largest request that is sent at all, as of etcd's own client.
const SENT_BYTES_MAX: usize = 2 << 20;
/// For one call with its retries, and for the watch to bring what was written.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two lines about an etcd that cannot be reached.
const WAITING_SAID_EVERY: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `http(s)://HOST:PORT`, of one cluster.
    pub endpoints: Vec<String>,
    /// PEM file of the authorities that sign etcd's certificates; `None`: those of the machine.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate and key.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// What stands in front of all keys, without a slash at its end; keys begin with one.
    pub prefix: String,
}

/// Why no connection is even tried.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    #[error("endpoint {endpoint:?} of etcd: {reason}")]
    Endpoint { endpoint: String, reason: String },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Waits for etcd (it says so in the log), learns which keys there are, and begins to watch them.
pub async fn open(options: Options) -> Result<EtcdStore, OpenError> {
    let clients = Clients::new(&options)?;
    let keys = Keys::new(&options.prefix);
    let mut backoff = Backoff::default();
    let mut said: Option<Instant> = None;
    let (cluster, revision, known) = loop {
        match feed::load(&clients, &keys).await {
            Ok(loaded) => break loaded,
            Err(failure) => {
                if said.is_none_or(|at| at.elapsed() >= WAITING_SAID_EVERY) {
                    tracing::warn!(endpoints = %options.endpoints.join(","), reason = %failure, "waiting for etcd");
                    said = Some(Instant::now());
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    };
    tracing::info!(endpoints = %options.endpoints.join(","), %revision, keys = known.len(), "the state is in etcd");
    let shared = Arc::new(Shared::new(clients, keys, revision));
    let feed = tokio::spawn(Feed::new(Arc::clone(&shared), known, cluster).run());
    Ok(EtcdStore { shared, compactor: tokio::sync::Mutex::new(Compactor::default()), feed })
}

/// The handle. Dropping it ends the watch.
pub struct EtcdStore {
    shared: Arc<Shared>,
    compactor: tokio::sync::Mutex<Compactor>,
    feed: JoinHandle<()>,
}

impl EtcdStore {
    /// Returns the reason when the store cannot go on and must be opened anew (etcd was restored from a backup).
    pub fn ended(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.ended().await }
    }

    async fn apply(&self, write: &Write) -> Result<Written, WriteError> {
        let key = self.shared.keys.full(&write.key);
        let answer = self.shared.clients.transaction(convert::transaction(&key, write)).await.map_err(|failure| match failure {
            Failure::TooLarge => {
                let Operation::Put(value) = &write.operation else { return WriteError::Unavailable(failure.to_string().into()) };
                WriteError::TooLarge { size_bytes: value.len(), limit_bytes: REQUEST_BYTES_MAX }
            }
            failure => WriteError::Unavailable(failure.to_string().into()),
        })?;
        let seen = |revision| async move {
            self.shared.seen(revision).await.map_err(|failure| WriteError::Unavailable(failure.to_string().into()))
        };
        match convert::outcome(&self.shared.keys, &write.key, answer) {
            Ok(written) => {
                // Its own event is on the way: there is nothing to ask for.
                self.shared
                    .delivered(written.revision, CALL_TIME_MAX)
                    .await
                    .map_err(|failure| WriteError::Unavailable(failure.to_string().into()))?;
                Ok(written)
            }
            Err((current, revision)) => {
                // Whoever lost looks into the watch cache next.
                seen(revision).await?;
                Err(WriteError::Conflict { current })
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn write(&self, write: Write) -> Result<Written, WriteError> {
        self.shared.check_open().map_err(WriteError::Unavailable)?;
        if let Operation::Put(value) = &write.operation
            && value.len() > SENT_BYTES_MAX
        {
            return Err(WriteError::TooLarge { size_bytes: value.len(), limit_bytes: REQUEST_BYTES_MAX });
        }
        self.apply(&write).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.shared.check_open().map_err(StoreError::Unavailable)?;
        reads::get(&self.shared, key).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.shared.check_open().map_err(StoreError::Unavailable)?;
        reads::range(&self.shared, &range).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.shared.check_open().map_err(WatchError::Unavailable)?;
        reads::watch(Arc::clone(&self.shared), prefix, after).await
    }

    fn revision(&self) -> Revision {
        self.shared.revision()
    }

    /// One server of all that use this etcd compacts it; to the others that is success, too.
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.shared.check_open().map_err(StoreError::Unavailable)?;
        self.compactor.lock().await.compact(&self.shared, before).await
    }

    fn subscribe(&self, hook: Hook) -> Revision {
        self.shared.subscribe(hook)
    }

    async fn close(&self) {
        self.shared.end("it is closed");
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.shared.end("it is closed");
        self.feed.abort();
    }
}
