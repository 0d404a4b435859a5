//! What is SQLite's own; what it has in common with etcd is asked in `tests/it/contract.rs`.
use std::sync::Mutex;

use bytes::Bytes;
use futures::StreamExt;

use super::*;
use crate::{Durability, Event, EventKind, Expect, Operation};

fn put(key: &str, value: &str, expect: Expect) -> Write {
    Write {
        key: key.into(),
        operation: Operation::Put(Bytes::copy_from_slice(value.as_bytes())),
        expect,
        durability: Durability::Synced,
    }
}

fn relaxed(key: &str, value: &str) -> Write {
    Write { durability: Durability::Relaxed, ..put(key, value, Expect::Any) }
}

fn delete(key: &str, expect: Expect) -> Write {
    Write { operation: Operation::Delete, ..put(key, "", expect) }
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Option<SqliteStore>,
    options: Options,
}

impl Fixture {
    fn new(options: Options) -> Self {
        let mut fixture = Self { folder: tempfile::tempdir().unwrap(), store: None, options };
        fixture.reopen();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state.db")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(&self.path(), self.options.clone()).unwrap());
    }

    /// What a crash leaves: the files as they are while the store runs, opened elsewhere.
    fn crash(&mut self) -> SqliteStore {
        let copy = self.folder.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for name in ["state.db", "state.db-wal"] {
            std::fs::copy(self.folder.path().join(name), copy.join(name)).unwrap();
        }
        open(&copy.join("state.db"), self.options.clone()).unwrap()
    }
}

impl std::ops::Deref for Fixture {
    type Target = SqliteStore;
    fn deref(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }
}

async fn names(store: &SqliteStore, range: Range) -> (Vec<String>, bool) {
    let result = store.range(range).await.unwrap();
    (result.items.iter().map(|kv| format!("{}={}", kv.key, String::from_utf8_lossy(&kv.value))).collect(), result.more)
}

fn describe(event: &Event) -> String {
    let kind = match event.kind {
        EventKind::Put { created: true } => "+",
        EventKind::Put { created: false } => "~",
        EventKind::Delete => "-",
    };
    let previous = event.previous.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    format!("{kind}{}={} was {previous:?}", event.key, String::from_utf8_lossy(&event.value))
}

#[test]
fn refuses_a_sqlite_with_the_wal_reset_bug() {
    assert!(check_version(rusqlite::version_number(), rusqlite::version()).is_ok());
    assert!(matches!(check_version(3_052_000, "3.52.0"), Err(OpenError::OldSqlite { .. })));
}

#[tokio::test]
async fn relaxed_writes_are_visible_at_once_and_durable_with_the_next_commit() {
    let mut store = Fixture::new(Options::default());
    let lease = store.write(relaxed("/lease", "1")).await.unwrap();
    assert_eq!(store.get("/lease").await.unwrap().unwrap().mod_revision, lease.revision);
    let crashed = store.crash();
    assert!(crashed.get("/lease").await.unwrap().is_none());
    let other = crashed.write(put("/a", "1", Expect::Absent)).await.unwrap();
    assert!(other.revision > lease.revision, "{} was given before the crash", other.revision);
    drop(crashed);
    store.write(put("/a", "1", Expect::Absent)).await.unwrap();
    std::fs::remove_dir_all(store.folder.path().join("copy")).unwrap();
    assert!(store.crash().get("/lease").await.unwrap().is_some());
    // A clean end loses nothing and gives back what was reserved.
    store.write(relaxed("/lease", "2")).await.unwrap();
    let last = store.revision();
    store.reopen();
    assert_eq!(store.revision(), last);
    assert_eq!(store.get("/lease").await.unwrap().unwrap().value, "2");
}

#[tokio::test]
async fn relaxed_writes_reach_the_disk_after_the_delay_without_another_write() {
    let mut store = Fixture::new(Options { relaxed_delay: Duration::from_millis(20), ..Options::default() });
    store.write(relaxed("/lease", "1")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(store.shared.index().pending.is_empty());
    assert!(store.crash().get("/lease").await.unwrap().is_some());
}

#[tokio::test]
async fn no_revision_is_given_out_beyond_the_reserved_block() {
    let mut store = Fixture::new(Options { relaxed_delay: Duration::from_secs(3600), ..Options::default() });
    let mut last = Revision::default();
    for _ in 0..2500 {
        last = store.write(relaxed("/lease", "x")).await.unwrap().revision;
    }
    assert!(store.crash().revision() >= last);
}

#[tokio::test]
async fn compaction_keeps_the_present_and_refuses_the_past() {
    let mut store = Fixture::new(Options::default());
    let start = store.revision();
    for n in 0..700 {
        store.write(put("/a", &n.to_string(), Expect::Any)).await.unwrap();
    }
    store.write(put("/gone", "1", Expect::Any)).await.unwrap();
    store.write(delete("/gone", Expect::Any)).await.unwrap();
    let before = store.revision();
    store.write(put("/a", "kept", Expect::Any)).await.unwrap();
    let mut old = store.watch("/", Revision(start.0 + 1)).await.unwrap();
    store.compact(before).await.unwrap();
    assert!(matches!(old.next().await, Some(Err(WatchError::Compacted { .. }))));
    assert!(matches!(store.watch("/", start).await, Err(WatchError::Compacted { .. })));
    let past = Range { at: Some(Revision(before.0 - 1)), ..Range::prefix("/") };
    assert!(matches!(store.range(past).await, Err(StoreError::Compacted { .. })));
    for _ in 0..2 {
        let at = Range { at: Some(before), ..Range::prefix("/") };
        assert_eq!(names(&store, at).await.0, ["/a=699"]);
        assert_eq!(names(&store, Range::prefix("/")).await.0, ["/a=kept"]);
        let event = store.watch("/", before).await.unwrap().next().await.unwrap().unwrap();
        assert_eq!(describe(&event[0]), "~/a=kept was Some(\"699\")");
        assert_eq!(store.shared.index().garbage_len(), 1);
        store.reopen();
    }
}

#[tokio::test]
async fn history_goes_by_age_and_by_number() {
    let by_age = Fixture::new(Options { history: Duration::from_millis(50), ..Options::default() });
    let by_number =
        Fixture::new(Options { history_rows_max: 100, history: Duration::from_secs(3600), ..Options::default() });
    for n in 0..300 {
        by_age.write(put("/a", &n.to_string(), Expect::Any)).await.unwrap();
        by_number.write(put("/a", &n.to_string(), Expect::Any)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(by_age.shared.index().garbage_len(), 0);
    let left = by_number.shared.index().garbage_len();
    assert!((50..=100).contains(&left), "{left}");
    assert_eq!(by_number.get("/a").await.unwrap().unwrap().value, "299");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let store = Fixture::new(Options::default());
    store.write(put("/a", "1", Expect::Absent)).await.unwrap();
    let seen: Arc<Mutex<usize>> = Arc::default();
    store.subscribe({
        let seen = Arc::clone(&seen);
        Box::new(move |events| *seen.lock().unwrap() += events.len())
    });
    store.send(Message::LimitPages(1)).unwrap();
    let big = "x".repeat(100_000);
    let before = store.revision();
    match store.write(put("/b", &big, Expect::Absent)).await {
        Err(WriteError::Unavailable(reason)) => assert!(reason.contains("full"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((store.revision(), *seen.lock().unwrap()), (before, 0));
    assert!(store.get("/b").await.unwrap().is_none());
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, "1");
    store.send(Message::LimitPages(100_000)).unwrap();
    let written = store.write(put("/b", &big, Expect::Absent)).await.unwrap();
    assert!(written.revision > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_bounded() {
    let store = Arc::new(Fixture::new(Options { wal_pages: 100, ..Options::default() }));
    let value = "x".repeat(3000);
    for _ in 0..20 {
        let writes = (0..100).map(|n| {
            let (store, value) = (Arc::clone(&store), value.clone());
            tokio::spawn(async move { store.write(put(&format!("/{n}"), &value, Expect::Any)).await })
        });
        for write in futures::future::join_all(writes).await {
            write.unwrap().unwrap();
        }
    }
    let length = std::fs::metadata(store.folder.path().join("state.db-wal")).unwrap().len();
    assert!(length < 3 << 20, "{length}");
}

#[tokio::test]
async fn a_second_process_a_foreign_file_and_a_huge_value_are_refused() {
    let store = Fixture::new(Options { value_bytes_max: 10, ..Options::default() });
    assert!(matches!(open(&store.path(), Options::default()), Err(OpenError::Locked { .. })));
    assert!(matches!(
        store.write(put("/a", "more than ten bytes", Expect::Any)).await,
        Err(WriteError::TooLarge { size_bytes: 19, limit_bytes: 10 })
    ));
    let foreign = store.folder.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE kine (id INTEGER)").unwrap();
    assert!(matches!(open(&foreign, Options::default()), Err(OpenError::Foreign { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_objects_open_quickly() {
    let mut store = Fixture::new(Options::default());
    let value = Bytes::from(vec![b'x'; 1500]);
    {
        let store = store.store.take().unwrap();
        let store = Arc::new(store);
        let writes = (0..10_000).map(|n| {
            let (store, value) = (Arc::clone(&store), value.clone());
            tokio::spawn(async move {
                let write = put(&format!("/registry/core/pods/default/pod-{n:05}"), "", Expect::Absent);
                store.write(Write { operation: Operation::Put(value), ..write }).await
            })
        });
        for write in futures::future::join_all(writes).await {
            write.unwrap().unwrap();
        }
    }
    let start = std::time::Instant::now();
    store.reopen();
    let opened = start.elapsed();
    let items = store.range(Range::prefix("/registry/")).await.unwrap().items;
    println!("10,000 objects of 1.5 kB: open {opened:?}, open and read {:?}", start.elapsed());
    assert_eq!(items.len(), 10_000);
    assert!(opened < Duration::from_secs(2), "{opened:?}");
}
