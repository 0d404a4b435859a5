//! The writer's connection: the table, its commits, its checkpoints.
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::index::{Index, Record, Version};
use super::{OpenError, Options};
use crate::Revision;

/// "rkst": says that the file is ours.
const APPLICATION_ID: i32 = 0x726b_7374;
const FORMAT: i32 = 1;

/// Revisions that are reserved on disk at once. A reservation costs one more dirty page in a commit.
const BLOCK: u64 = 1000;

/// When the log could not be emptied (a reader was in it) and has grown this many times its size, wait for the reader.
const WAL_OVERGROWN: u32 = 4;

const SCHEMA: &str = "
    CREATE TABLE history (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        created INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        value BLOB
    ) STRICT;
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 0),
        reserved INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    ) STRICT;
    INSERT INTO meta VALUES (0, 0, 0);
";

pub struct Database {
    connection: Connection,
    /// No revision above this is given to anybody: what may have been given before a crash is not given after it.
    reserved: Revision,
    wal_pages: u32,
    /// Held, so that no second process opens the database.
    _lock: File,
}

/// Where the revisions go on.
#[derive(Clone, Copy)]
pub struct Start {
    /// The last revision that may have been given to anybody.
    pub visible: Revision,
}

impl Database {
    pub fn open(path: &Path, options: &Options) -> Result<(Self, Index, Start), OpenError> {
        let io = |source| OpenError::Io { path: path.into(), source };
        let sqlite = |source| OpenError::Sqlite { path: path.into(), source };
        let lock = lock(path)?;
        // Secrets are in it. SQLite gives the log the same mode.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
        let connection = connect(path).map_err(sqlite)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;")
            .map_err(sqlite)?;
        prepare_schema(&connection, path)?;
        let (index, newest) = scan(&connection).map_err(sqlite)?;
        let reserved = connection
            .query_row("SELECT reserved FROM meta", [], |row| revision(row, 0))
            .map_err(sqlite)?;
        let mut database = Self { connection, reserved, wal_pages: options.wal_pages, _lock: lock };
        let visible = newest.max(reserved);
        database.commit(visible, &BTreeMap::new(), &[], None).map_err(sqlite)?;
        database.checkpoint().map_err(sqlite)?;
        Ok((database, index, Start { visible }))
    }

    /// Whether a relaxed write may be acknowledged with this revision before it is committed.
    pub fn is_reserved(&self, revision: Revision) -> bool {
        revision <= self.reserved
    }

    /// One transaction: `pending` and `records` in, the rows `superfluous` out, and a reservation ahead of `newest`.
    pub fn commit(
        &mut self,
        newest: Revision,
        pending: &BTreeMap<Revision, Record>,
        records: &[Record],
        superfluous: Option<(&[Revision], Revision)>,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare("INSERT INTO history VALUES (?, ?, ?, ?, ?)")?;
            // In order, so that the b-tree is only ever appended to. Both are sorted, and pending ones come first.
            for record in pending.values().chain(records) {
                insert.execute(params![
                    record.revision.0 as i64,
                    record.key.as_ref(),
                    record.create_revision.0 as i64,
                    record.previous.0 as i64,
                    record.value.as_deref(),
                ])?;
            }
        }
        if let Some((rows, compacted)) = superfluous {
            let mut delete = transaction.prepare("DELETE FROM history WHERE revision = ?")?;
            for row in rows {
                delete.execute([row.0 as i64])?;
            }
            transaction
                .prepare("UPDATE meta SET compacted = ?1 WHERE compacted < ?1")?
                .execute([compacted.0 as i64])?;
        }
        let mut reserved = self.reserved;
        if newest.0 + BLOCK / 2 > reserved.0 {
            reserved = Revision(newest.0 + BLOCK);
            transaction.prepare("UPDATE meta SET reserved = ?")?.execute([reserved.0 as i64])?;
        }
        transaction.commit()?;
        self.reserved = reserved;
        Ok(())
    }

    /// Gives back what was reserved and not used, and empties the log. The database is not written to afterwards.
    pub fn finish(&mut self, newest: Revision) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE meta SET reserved = ?", [newest.0 as i64])?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// The row of `revision`.
    pub fn fetch(&self, revision: Revision, key: &Arc<str>) -> rusqlite::Result<Option<Record>> {
        fetch(&self.connection, revision, key)
    }

    /// Copies the log back into the database if it is long enough; the next commit then starts it over in place.
    pub fn checkpoint(&mut self) -> rusqlite::Result<()> {
        let pages = self.wal_length()?;
        if pages < self.wal_pages {
            return Ok(());
        }
        let mode = if pages < self.wal_pages.saturating_mul(WAL_OVERGROWN) { "PASSIVE" } else { "RESTART" };
        self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
    }

    /// Pages in the log that are not yet in the database.
    fn wal_length(&self) -> rusqlite::Result<u32> {
        // NOOP (3.51) only reports.
        self.connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            let (length, done): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(u32::try_from(length.saturating_sub(done)).unwrap_or(0))
        })
    }

    #[cfg(test)]
    pub fn limit_pages(&self, pages: u32) -> rusqlite::Result<()> {
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }
}

/// Opens a connection as both sides need it.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // Rows are read once as a rule: the kernel's page cache is the cache.
    connection.execute_batch("PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

pub fn fetch(connection: &Connection, revision: Revision, key: &Arc<str>) -> rusqlite::Result<Option<Record>> {
    let mut select = connection.prepare("SELECT created, previous, value FROM history WHERE revision = ?")?;
    select
        .query_row([revision.0 as i64], |row| {
            Ok(Record {
                revision,
                key: Arc::clone(key),
                create_revision: self::revision(row, 0)?,
                previous: self::revision(row, 1)?,
                value: row.get_ref(2)?.as_blob_or_null().map_err(to_sqlite)?.map(Bytes::copy_from_slice),
            })
        })
        .optional()
}

pub fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    row.get::<_, i64>(column).map(|n| Revision(n.unsigned_abs()))
}

pub fn to_sqlite(error: rusqlite::types::FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let io = |source| OpenError::Io { path: path.into(), source };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn prepare_schema(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.into(), source };
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    let (id, format) = (pragma("application_id").map_err(sqlite)?, pragma("user_version").map_err(sqlite)?);
    match (tables, id, format) {
        (0, 0, 0) => connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
            ))
            .map_err(sqlite),
        (_, APPLICATION_ID, FORMAT) => Ok(()),
        (_, id, format) => {
            Err(OpenError::Foreign { path: path.into(), found: format!("application {id:#x}, format {format}") })
        }
    }
}

/// Builds the index by one sequential pass. Returns the newest revision, too.
fn scan(connection: &Connection) -> rusqlite::Result<(Index, Revision)> {
    let mut index = Index::default();
    index.compacted = connection.query_row("SELECT compacted FROM meta", [], |row| revision(row, 0))?;
    let mut newest = Revision::default();
    let mut rows = connection.prepare("SELECT revision, key, created, value IS NULL FROM history ORDER BY revision")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let key: Arc<str> = row.get_ref(1)?.as_str().map_err(to_sqlite)?.into();
        newest = revision(row, 0)?;
        let version = Version { revision: newest, create_revision: revision(row, 2)?, deleted: row.get(3)? };
        index.apply(&key, version);
    }
    Ok((index, newest))
}
