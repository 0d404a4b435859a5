//! The store on one machine: SQLite in WAL mode.
//!
//! Layout, as etcd's: one table keyed by revision on disk, one index from key to revisions in memory. Every write
//! appends at the right edge of one b-tree, so a commit dirties the fewest pages that hold its rows and no secondary
//! index is written. The price is one sequential scan at start, which the watch cache above makes anyway.
//!
//! One thread writes ([`writer`]): it takes all waiting writes, commits them in one transaction, shows them, calls the
//! hooks, then answers. It alone checkpoints, because SQLite's WAL-reset bug (2010 to 2026) needed two connections at it.
//! Reads use a second connection: rows never change once written, so a read is a look into the index and a fetch of rows.
mod database;
mod index;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    Hook, KeyValue, Range, RangeResult, Revision, Store, StoreError, Watch, WatchError, Write, WriteError, Written,
};

use database::Database;
use reader::Reader;
use writer::{Message, Shared, Writer};

/// Writes that may wait for the writer at once; more wait for a place.
const WAITING_WRITES_MAX: usize = 4096;

/// Fixed WAL-reset bug of SQLite 3.7 to 3.52.
const SQLITE_FLOOR: i32 = 3_053_000;

#[derive(Clone, Debug)]
pub struct Options {
    /// How long superseded versions are kept for watches and paged lists. The API server has its own history of late and asks for none of this
    /// once it has started, so it is as short as upstream's watch cache keeps events fresh: each version has its place in the index in memory.
    pub history: Duration,
    /// Superseded versions kept at most, however young.
    pub history_rows_max: usize,
    /// How long a relaxed write may stay in memory only. Longer than the ten seconds between two renewals of a lease, so that an idle
    /// cluster writes two of them with one commit.
    pub relaxed_delay: Duration,
    /// The write-ahead log is copied back when it has this many pages of 4 KiB.
    pub wal_pages: u32,
    /// One value's size limit.
    pub value_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: Duration::from_secs(75),
            history_rows_max: 200_000,
            relaxed_delay: Duration::from_secs(12),
            wal_pages: 2000,
            value_bytes_max: 3 << 20,
        }
    }
}

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("SQLite {found} is older than 3.53.0, which corrupts write-ahead logs")]
    OldSqlite { found: &'static str },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("{} is not a database of rk, or of a newer version ({found})", path.display())]
    Foreign { path: PathBuf, found: String },
    #[error("open {}", path.display())]
    Io { path: PathBuf, #[source] source: std::io::Error },
    #[error("open database {}", path.display())]
    Sqlite { path: PathBuf, #[source] source: rusqlite::Error },
}

/// Opens the database file at `path`, made if absent, and recovers what a crash left.
pub fn open(path: &Path, options: Options) -> Result<SqliteStore, OpenError> {
    check_version(rusqlite::version_number(), rusqlite::version())?;
    let (database, index, next) = Database::open(path, &options)?;
    let reader = Reader::open(path).map_err(|source| OpenError::Sqlite { path: path.into(), source })?;
    let (shared, changed) = Shared::new(index, next.visible);
    let (sender, inbox) = mpsc::channel();
    let writer = Writer::new(database, Arc::clone(&shared), changed, inbox, options.clone(), next);
    let thread = std::thread::Builder::new()
        .name("store-writer".into())
        .stack_size(512 << 10)
        .spawn(move || writer.run())
        .map_err(|source| OpenError::Io { path: path.into(), source })?;
    Ok(SqliteStore {
        shared,
        reader: Arc::new(reader),
        sender: Some(sender),
        permits: Arc::new(Semaphore::new(WAITING_WRITES_MAX)),
        value_bytes_max: options.value_bytes_max,
        thread: Some(thread),
    })
}

fn check_version(number: i32, found: &'static str) -> Result<(), OpenError> {
    if number < SQLITE_FLOOR { Err(OpenError::OldSqlite { found }) } else { Ok(()) }
}

/// The handle. Dropping it commits what is pending and ends the writer.
pub struct SqliteStore {
    shared: Arc<Shared>,
    reader: Arc<Reader>,
    /// `None` only while dropping.
    sender: Option<mpsc::Sender<Message>>,
    permits: Arc<Semaphore>,
    value_bytes_max: usize,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SqliteStore {
    fn send(&self, message: Message) -> Result<(), Arc<str>> {
        self.sender.as_ref().expect("only drop takes it").send(message).map_err(|_| closed())
    }

    /// Runs a read where it may block. Rows come from the page cache as a rule, but not always.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader, &Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reader, shared) = (Arc::clone(&self.reader), Arc::clone(&self.shared));
        tokio::task::spawn_blocking(move || read(&reader, &shared))
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string().into())))
    }
}

fn closed() -> Arc<str> {
    "it is closed".into()
}

#[async_trait]
impl Store for SqliteStore {
    async fn write(&self, write: Write) -> Result<Written, WriteError> {
        if let crate::Operation::Put(value) = &write.operation
            && value.len() > self.value_bytes_max
        {
            return Err(WriteError::TooLarge { size_bytes: value.len(), limit_bytes: self.value_bytes_max });
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        self.send(Message::Write { write, answer, permit }).map_err(WriteError::Unavailable)?;
        answered.await.unwrap_or_else(|_| Err(WriteError::Unavailable(closed())))
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let key = key.to_owned();
        self.read(move |reader, shared| reader.get(shared, &key)).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.read(move |reader, shared| reader.range(shared, &range)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        reader::watch(Arc::clone(&self.reader), Arc::clone(&self.shared), prefix.to_owned(), after)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn revision(&self) -> Revision {
        self.shared.revision()
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Compact { before, answer }).map_err(StoreError::Unavailable)?;
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable(closed())))
    }

    fn subscribe(&self, hook: Hook) -> Revision {
        self.shared.subscribe(hook)
    }

    async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.send(Message::Close { answer }).is_ok() {
            // An error means that the writer has ended already.
            let _ = answered.await;
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}
