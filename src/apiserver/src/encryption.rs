//! Values encrypted in the store, by an `EncryptionConfiguration` as upstream reads it.
//!
//! The file is followed, and what is stored in another way than it says is then written anew: switching encryption on or
//! off and rotating a key is done with one edit for each step (add the new key behind the old one, put it first, take the old one away).
//! A file that cannot be read changes nothing. Without a file nothing is encrypted, but what is encrypted is not readable either.
mod cipher;
mod encrypted;
mod kms;
mod rules;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use store::{Durability, Expect, Operation, Range, Store, StoreError, Write, WriteError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use encrypted::EncryptedStore;
pub use rules::ConfigError;
use rules::Rules;

use crate::cache::{Cache, PREFIX};
use crate::follow::{Follow, Reload, ReloadCounts, Taker};

/// Until what could not be written anew is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How often a KMS plugin is asked how it is: while it is well, and while it is not.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
const PROBE_AGAIN: Duration = Duration::from_secs(3);
const PAGE: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("read the encryption configuration {path}")]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("encryption configuration {path}")]
    Config { path: PathBuf, #[source] source: ConfigError },
}

/// A store that encrypts, and the task that keeps it in step with its file.
pub struct Encryption {
    path: PathBuf,
    /// That the rules are made of.
    text: String,
    rules: Arc<ArcSwap<Rules>>,
    plain: Arc<dyn Store>,
    counts: Arc<ReloadCounts>,
    changed: Notify,
}

impl Encryption {
    /// Puts a store that encrypts in front of `plain`. KMS plugins are asked once; one that does not answer is asked again later.
    pub async fn load(path: &Path, plain: Arc<dyn Store>) -> Result<(Self, Arc<dyn Store>), LoadError> {
        let (text, rules) = read(path)?;
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        probe(&rules.load_full()).await;
        let encrypted = EncryptedStore::new(plain.clone(), rules.clone());
        let counts = Arc::new(ReloadCounts::new("encryption", &text));
        Ok((Self { path: path.to_owned(), text, rules, plain, counts, changed: Notify::new() }, Arc::new(encrypted)))
    }

    /// What `/metrics` says of the file.
    pub fn page(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let counts = self.counts.clone();
        move || counts.page()
    }

    /// What `/readyz` says of KMS providers; `None` where there are none, and there can be some once the file has changed.
    pub fn health(&self) -> impl Fn() -> Option<Result<(), String>> + Send + Sync + use<> {
        let rules = self.rules.clone();
        move || {
            let rules = rules.load();
            let mut all = rules.envelopes().map(|envelope| envelope.health()).peekable();
            all.peek()?;
            Some(all.collect())
        }
    }

    /// Follows the file and the KMS plugins until `shutdown`. `store` is the one that encrypts.
    pub async fn run(self, cache: Cache, store: Arc<dyn Store>, shutdown: CancellationToken) {
        let (file, updates) = (Follow::new(&self.path, self.text.clone()), Updates(&self));
        tokio::join!(file.run(&self.counts, shutdown.clone(), &updates), self.keep(cache, store, shutdown));
    }

    async fn keep(&self, cache: Cache, store: Arc<dyn Store>, shutdown: CancellationToken) {
        let mut is_behind = true;
        loop {
            if is_behind {
                is_behind = match self.rewrite().await {
                    Ok(0) => false,
                    Ok(count) => {
                        tracing::info!(count, "stored values were encrypted anew");
                        false
                    }
                    Err(error) => {
                        tracing::warn!(%error, "stored values could not all be encrypted anew, tried again later");
                        true
                    }
                };
            }
            tokio::select! {
                () = sleep(self.interval(is_behind)) => is_behind |= self.probe().await,
                () = self.changed.notified() => is_behind = true,
                () = shutdown.cancelled() => return,
            }
            // What could not be opened before may be now.
            if let Err(error) = cache.read_again(&store).await {
                tracing::warn!(%error, "what could not be decrypted is not read again yet");
            }
        }
    }

    /// Until there is something to do without being told; `None`: for ever.
    fn interval(&self, is_behind: bool) -> Option<Duration> {
        let rules = self.rules.load();
        let mut all = rules.envelopes().map(|envelope| envelope.health().is_ok()).peekable();
        match (all.peek().is_some(), all.all(|is_well| is_well)) {
            (false, _) => is_behind.then_some(RETRY),
            (true, true) => Some(PROBE_INTERVAL),
            (true, false) => Some(PROBE_AGAIN),
        }
    }

    async fn probe(&self) -> bool {
        probe(&self.rules.load_full()).await
    }

    /// Writes what is stored otherwise than the rules say; how many values that were.
    async fn rewrite(&self) -> Result<usize, StoreError> {
        let rules = self.rules.load_full();
        let (mut count, mut start_after) = (0, None);
        loop {
            let page = self.plain.range(Range { prefix: PREFIX.to_owned(), start_after, limit: Some(PAGE), at: None }).await?;
            // Together, so that they share commits.
            let stale = page.items.iter().filter(|item| rules.is_stale(&item.key, &item.value));
            let writes = stale.map(|item| async {
                let Ok(opened) = rules.open(&item.key, &item.value) else {
                    tracing::error!(key = %item.key, "a stored value cannot be decrypted and stays as it is");
                    return Ok(false);
                };
                let text = opened.unwrap_or_else(|| item.value.to_vec());
                let value = rules.seal(&item.key, &text).map_err(|error| StoreError::Unavailable(error.to_string().into()))?.unwrap_or(text);
                let operation = Operation::Put(value.into());
                let write = Write { key: item.key.clone(), operation, expect: Expect::Revision(item.mod_revision), durability: Durability::Synced };
                match self.plain.write(write).await {
                    Ok(_) => Ok(true),
                    // Written meanwhile, and so by the rules.
                    Err(WriteError::Conflict { .. }) => Ok(false),
                    Err(error) => Err(StoreError::Unavailable(error.to_string().into())),
                }
            });
            for written in futures::future::join_all(writes).await {
                count += usize::from(written?);
            }
            if !page.more {
                return Ok(count);
            }
            start_after = page.items.last().map(|item| item.key.to_string());
        }
    }
}

/// Asks all KMS plugins how they are; whether one of them writes with another key now.
async fn probe(rules: &Rules) -> bool {
    let probes = rules.envelopes().map(|envelope| envelope.probe());
    futures::future::join_all(probes).await.contains(&true)
}

fn read(path: &Path) -> Result<(String, Rules), LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let rules = Rules::parse(&text).map_err(|source| LoadError::Config { path: path.to_owned(), source })?;
    Ok((text, rules))
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Takes in a file that has changed.
struct Updates<'e>(&'e Encryption);

impl Taker for Updates<'_> {
    fn take<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Reload> {
        Box::pin(async move {
            let rules = match Rules::parse(text) {
                Ok(rules) => Arc::new(rules),
                Err(error) => return Reload::Refused(error.to_string()),
            };
            probe(&rules).await;
            self.0.rules.store(rules);
            self.0.changed.notify_one();
            Reload::Done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n";
    const ONE: &str = "  - secretbox: {keys: [{name: one, secret: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=}]}\n";
    const TWO: &str = "  - aescbc: {keys: [{name: two, secret: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=}]}\n";
    const PLAIN: &str = "  - identity: {}\n";

    fn put(key: &str, value: &str) -> Write {
        Write { key: key.into(), operation: Operation::Put(value.to_owned().into()), expect: Expect::Any, durability: Durability::Synced }
    }

    #[tokio::test]
    async fn encryption_is_switched_on_rotated_and_switched_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encryption.yaml");
        let plain: Arc<dyn Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
        let key = |i: usize| format!("/registry/core/secrets/default/s{i}");
        for i in 0..3 {
            plain.write(put(&key(i), "{\"old\":1}")).await.unwrap();
        }
        plain.write(put("/registry/core/pods/default/p", "{}")).await.unwrap();
        std::fs::write(&path, format!("{HEAD}{ONE}{PLAIN}")).unwrap();
        let (encryption, store) = Encryption::load(&path, plain.clone()).await.unwrap();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let hook = seen.clone();
        store.subscribe(Box::new(move |events| hook.lock().unwrap().extend(events.iter().map(|e| e.value.clone()))));
        assert_eq!(encryption.rewrite().await.unwrap(), 3);
        assert_eq!(encryption.rewrite().await.unwrap(), 0);
        store.write(put(&key(3), "{\"new\":1}")).await.unwrap();
        let all = || async { plain.range(Range::prefix("/registry/core/secrets/")).await.unwrap().items };
        assert!(all().await.iter().all(|item| item.value.starts_with(b"k8s:enc:secretbox:v1:one:")));
        assert_eq!(store.get(&key(0)).await.unwrap().unwrap().value, "{\"old\":1}");
        assert_eq!(seen.lock().unwrap().last().unwrap(), "{\"new\":1}");
        let absent = Write { expect: Expect::Absent, ..put(&key(3), "{}") };
        let Err(WriteError::Conflict { current: Some(current) }) = store.write(absent).await else { panic!("it is there") };
        assert_eq!(current.value, "{\"new\":1}");

        encryption.rules.store(Arc::new(Rules::parse(&format!("{HEAD}{TWO}{ONE}")).unwrap()));
        assert_eq!(encryption.rewrite().await.unwrap(), 4);
        assert!(all().await.iter().all(|item| item.value.starts_with(b"k8s:enc:aescbc:v1:two:")));
        encryption.rules.store(Arc::new(Rules::parse(&format!("{HEAD}{PLAIN}{TWO}")).unwrap()));
        assert_eq!(encryption.rewrite().await.unwrap(), 4);
        assert!(all().await.iter().all(|item| item.value.starts_with(b"{")));
    }

    #[test]
    fn a_file_that_says_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.yaml");
        assert!(matches!(read(&path), Err(LoadError::Read { .. })));
        std::fs::write(&path, "kind: Pod").unwrap();
        assert!(matches!(read(&path), Err(LoadError::Config { .. })));
    }
}
