//! The store in an etcd of its own, for state that outlives its server's disk.
//!
//! Models k8s.io/apiserver/pkg/storage/etcd3: a conditional write is one transaction on the key's mod_revision, and revisions are
//! etcd's. One watch over the whole prefix ([`feed`]) is what the hooks see; a write is acknowledged once that watch has brought it,
//! and a read of the present is answered once the hooks have seen all that it shows. So the watch cache above is never behind what
//! somebody was told.
//!
//! Every write is synced: [`crate::Durability::Relaxed`] only allows less. After a failure in the middle of a write (a timeout, a lost
//! connection) it is unknown whether it happened, as with every client of etcd.
mod claim;
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

pub use claim::{Holder, OUTLIVES as CLAIM_OUTLIVES};

use crate::{Hook, KeyValue, Operation, Range, RangeResult, Revision, Store, StoreError, Watch, WatchError, Write, WriteError, Written};

use claim::Claim;
use clients::{Backoff, Clients, Failure};
use compact::Compactor;
use convert::{Keys, Refusal};
use feed::Feed;
use generated::etcdserverpb as pb;
use known::Known;
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
    /// Who claims all that is below the prefix for itself; `None`: nobody does, and others may write, too.
    pub holder: Option<Holder>,
}

/// Why the store is not opened.
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
    /// Another server holds it, or did until a moment ago: without its keep-alives the claim ends after [`CLAIM_OUTLIVES`].
    #[error("the keys under {prefix} are held by {holder}")]
    Held { prefix: String, holder: String },
}

/// Waits for etcd (it says so in the log), claims the keys, learns which there are, and begins to watch them.
pub async fn open(options: Options) -> Result<EtcdStore, OpenError> {
    let clients = Clients::new(&options)?;
    let keys = Keys::new(&options.prefix);
    let mut backoff = Backoff::default();
    let mut said: Option<Instant> = None;
    let (claim, (cluster, revision, known)) = loop {
        match claim_and_load(&clients, &keys, options.holder.as_ref()).await {
            Ok(Ok(loaded)) => break loaded,
            Ok(Err(holder)) => return Err(OpenError::Held { prefix: options.prefix, holder }),
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
    let shared = Arc::new(Shared::new(clients, keys, claim, revision));
    let feed = tokio::spawn(Feed::new(Arc::clone(&shared), known, cluster).run());
    let keeper = tokio::spawn(claim::keep(Arc::clone(&shared)));
    Ok(EtcdStore { shared, compactor: tokio::sync::Mutex::new(Compactor::default()), tasks: [feed, keeper] })
}

type Loaded = (Option<Claim>, (u64, Revision, Known));

/// `Err` inside names who else holds the keys. A claim that was taken before in vain is this server's, and so no hindrance.
async fn claim_and_load(clients: &Clients, keys: &Keys, holder: Option<&Holder>) -> Result<Result<Loaded, String>, Failure> {
    let claim = match holder {
        None => None,
        Some(holder) => match Claim::take(clients, keys, holder).await? {
            Ok(taken) => Some(taken),
            Err(other) => return Ok(Err(other)),
        },
    };
    Ok(Ok((claim, feed::load(clients, keys).await?)))
}

/// The handle. Dropping it ends the watch.
pub struct EtcdStore {
    shared: Arc<Shared>,
    compactor: tokio::sync::Mutex<Compactor>,
    /// The feed, and who keeps the claim.
    tasks: [JoinHandle<()>; 2],
}

impl EtcdStore {
    /// Returns the reason when the store cannot go on and must be opened anew (etcd was restored from a backup, or the claim is lost).
    pub fn ended(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.ended().await }
    }

    async fn apply(&self, write: &Write) -> Result<Written, WriteError> {
        let key = self.shared.keys.full(&write.key);
        let answer = self.shared.clients.transaction(convert::transaction(&key, write, self.shared.claim.as_ref()));
        let answer = answer.await.map_err(|failure| match failure {
            Failure::TooLarge => {
                let Operation::Put(value) = &write.operation else { return WriteError::Unavailable(failure.to_string().into()) };
                WriteError::TooLarge { size_bytes: value.len(), limit_bytes: REQUEST_BYTES_MAX }
            }
            failure => WriteError::Unavailable(failure.to_string().into()),
        })?;
        let seen = |revision| async move {
            self.shared.seen(revision).await.map_err(|failure| WriteError::Unavailable(failure.to_string().into()))
        };
        match convert::outcome(&self.shared.keys, &write.key, answer, self.shared.claim.as_ref()) {
            Ok(written) => {
                // Its own event is on the way: there is nothing to ask for.
                self.shared
                    .delivered(written.revision, CALL_TIME_MAX)
                    .await
                    .map_err(|failure| WriteError::Unavailable(failure.to_string().into()))?;
                Ok(written)
            }
            Err(Refusal::Lost(reason)) => {
                self.shared.end(&reason);
                Err(WriteError::Unavailable(reason))
            }
            Err(Refusal::Conflict(current, revision)) => {
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

    /// A claim keeps other servers out, and nobody else.
    fn is_shared(&self) -> bool {
        true
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
        if let Some(claim) = self.shared.claim.as_ref().filter(|_| self.shared.check_open().is_ok()) {
            self.shared.end("it is closed");
            claim.give_up(&self.shared.clients).await;
        }
        self.shared.end("it is closed");
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.shared.end("it is closed");
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
