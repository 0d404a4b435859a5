//! Reads: which rows, from the index; their values, from the second connection.
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::database::{connect, fetch, revision, to_sqlite};
use super::index::{Record, Version};
use super::writer::Shared;
use crate::{Event, KeyValue, Range, RangeResult, Revision, StoreError, Watch, WatchError};

/// What a watch reads of the history at once.
const WATCH_ROWS: usize = 500;
const WATCH_BYTES: usize = 4 << 20;

/// How often a read of the present is tried again when a compaction overtakes it.
const RETRIES: usize = 8;

pub struct Reader {
    connection: Mutex<Connection>,
}

impl Reader {
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = connect(path)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -256;")?;
        // Closing last must not checkpoint either: only the writer does.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A panic in the middle of a read leaves a connection that reads on.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, shared: &Shared, key: &str) -> Result<Option<KeyValue>, StoreError> {
        for _ in 0..RETRIES {
            let (key, version) = {
                let index = shared.index();
                match index.newest(key) {
                    Some((_, version)) if version.deleted => return Ok(None),
                    Some((key, version)) => match index.pending.get(&version.revision) {
                        Some(record) => return Ok(record.key_value()),
                        None => (key, version),
                    },
                    None => return Ok(None),
                }
            };
            if let Some(record) = fetch(&self.connection(), version.revision, &key).map_err(unavailable)? {
                return Ok(record.key_value());
            }
        }
        Err(overtaken())
    }

    pub fn range(&self, shared: &Shared, range: &Range) -> Result<RangeResult, StoreError> {
        for _ in 0..RETRIES {
            let (revision, found, more, pending) = {
                let index = shared.index();
                let current = shared.revision();
                let revision = range.at.unwrap_or(current);
                if revision > current {
                    return Err(StoreError::Future { requested: revision, current });
                }
                if revision < index.compacted {
                    return Err(StoreError::Compacted { requested: revision, oldest: index.compacted });
                }
                let (found, more) = index.range(&range.prefix, range.start_after.as_deref(), range.limit, revision);
                let pending: Vec<Option<Bytes>> = found
                    .iter()
                    .map(|(_, version)| index.pending.get(&version.revision).and_then(|r| r.value.clone()))
                    .collect();
                (revision, found, more, pending)
            };
            if let Some(items) = self.values(found, pending)? {
                return Ok(RangeResult { items, more, revision });
            }
        }
        Err(overtaken())
    }

    /// The values of `found`; `None` when a compaction took one away.
    fn values(
        &self,
        found: Vec<(Arc<str>, Version)>,
        pending: Vec<Option<Bytes>>,
    ) -> Result<Option<Vec<KeyValue>>, StoreError> {
        let connection = self.connection();
        let mut items = Vec::with_capacity(found.len());
        for ((key, version), pending) in found.into_iter().zip(pending) {
            let value = match pending {
                Some(value) => value,
                None => match fetch(&connection, version.revision, &key).map_err(unavailable)?.and_then(|r| r.value) {
                    Some(value) => value,
                    None => return Ok(None),
                },
            };
            items.push(KeyValue {
                key,
                value,
                create_revision: version.create_revision,
                mod_revision: version.revision,
            });
        }
        Ok(Some(items))
    }

    /// Some events after `after`, and the revision up to which that is all of them.
    fn events(&self, shared: &Shared, prefix: &str, after: Revision) -> Result<(Vec<Event>, Revision), WatchError> {
        let failed = |error| WatchError::Unavailable(text(error));
        let (until, pending) = {
            let index = shared.index();
            let pending: VecDeque<Record> =
                index.pending.range(Revision(after.0 + 1)..).map(|(_, record)| record.clone()).collect();
            (shared.revision(), pending)
        };
        let connection = self.connection();
        let (mut records, reached) = rows(&connection, after, until).map_err(failed)?;
        // A pending one may have been committed meanwhile: then it is among the rows, too.
        records.extend(pending.into_iter().filter(|record| record.revision <= reached));
        records.sort_by_key(|record| record.revision);
        records.dedup_by_key(|record| record.revision);
        let mut events = Vec::new();
        for record in records.into_iter().filter(|record| record.key.starts_with(prefix)) {
            let previous = match record.previous {
                Revision(0) => None,
                revision => {
                    let pending = shared.index().pending.get(&revision).cloned();
                    let previous = match pending {
                        Some(record) => Some(record),
                        None => fetch(&connection, revision, &record.key).map_err(failed)?,
                    };
                    previous.and_then(|record| record.key_value())
                }
            };
            events.push(record.event(previous));
        }
        drop(connection);
        // Compaction first says so, then deletes: what was read above is whole if it is still allowed now.
        shared.check_watchable(after)?;
        Ok((events, reached))
    }
}

/// Committed rows in `(after, until]`, bounded, and the revision up to which that is all of them.
fn rows(connection: &Connection, after: Revision, until: Revision) -> rusqlite::Result<(Vec<Record>, Revision)> {
    let mut select = connection.prepare(
        "SELECT revision, key, created, previous, value FROM history WHERE revision > ? AND revision <= ? ORDER BY revision",
    )?;
    let mut rows = select.query([after.0 as i64, until.0 as i64])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let value = row.get_ref(4)?.as_blob_or_null().map_err(to_sqlite)?.map(Bytes::copy_from_slice);
        bytes += value.as_ref().map_or(0, Bytes::len);
        let record = Record {
            revision: revision(row, 0)?,
            key: row.get_ref(1)?.as_str().map_err(to_sqlite)?.into(),
            create_revision: revision(row, 2)?,
            previous: revision(row, 3)?,
            value,
        };
        let reached = record.revision;
        records.push(record);
        if records.len() >= WATCH_ROWS || bytes >= WATCH_BYTES {
            return Ok((records, reached));
        }
    }
    Ok((records, until))
}

/// A watch pulls: it reads the history up to the present, then waits for the writer's word that there is more.
pub fn watch(
    reader: Arc<Reader>,
    shared: Arc<Shared>,
    prefix: String,
    after: Revision,
) -> Result<Watch, WatchError> {
    shared.check_watchable(after)?;
    let changed = shared.changed();
    let state = Some((after, changed));
    Ok(Box::pin(stream::unfold(state, move |state| {
        let (reader, shared, prefix) = (Arc::clone(&reader), Arc::clone(&shared), prefix.clone());
        async move {
            let (mut cursor, mut changed) = state?;
            loop {
                changed.borrow_and_update();
                if cursor < shared.revision() {
                    let (reader, shared, prefix) = (Arc::clone(&reader), Arc::clone(&shared), prefix.clone());
                    let read = tokio::task::spawn_blocking(move || reader.events(&shared, &prefix, cursor));
                    let read = read.await.unwrap_or_else(|e| Err(WatchError::Unavailable(e.to_string().into())));
                    let (events, reached) = match read {
                        Ok(read) => read,
                        Err(error) => return Some((Err(error), None)),
                    };
                    cursor = reached;
                    if !events.is_empty() {
                        return Some((Ok(events.into()), Some((cursor, changed))));
                    }
                } else if changed.changed().await.is_err() {
                    return None;
                }
            }
        }
    })))
}

fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(text(error))
}

fn overtaken() -> StoreError {
    StoreError::Unavailable("a row of the index is not in the table".into())
}

fn text(error: rusqlite::Error) -> Arc<str> {
    error.to_string().into()
}
