//! What both stores promise, asked of both.
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use store::{Durability, Event, EventKind, Expect, Operation, Range, Revision, Store, StoreError, WatchError, Write, WriteError};

use crate::etcd::Etcd;

/// One store, and what it lives in.
enum World {
    Sqlite { folder: tempfile::TempDir, store: Option<Arc<dyn Store>> },
    Etcd { etcd: Etcd, store: Option<Arc<dyn Store>> },
}

impl World {
    async fn sqlite(_: &str) -> Option<Self> {
        let mut world = Self::Sqlite { folder: tempfile::tempdir().unwrap(), store: None };
        world.reopen().await;
        Some(world)
    }

    async fn etcd(test: &str) -> Option<Self> {
        let mut world = Self::Etcd { etcd: Etcd::started(test)?, store: None };
        world.reopen().await;
        Some(world)
    }

    async fn reopen(&mut self) {
        match self {
            Self::Sqlite { folder, store } => {
                *store = None;
                let opened = store::sqlite::open(&folder.path().join("state.db"), store::sqlite::Options::default()).unwrap();
                *store = Some(Arc::new(opened));
            }
            Self::Etcd { etcd, store } => {
                *store = None;
                *store = Some(Arc::new(etcd.open().await));
            }
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        let (Self::Sqlite { store, .. } | Self::Etcd { store, .. }) = self;
        store.clone().unwrap()
    }
}

/// The same tests for each store.
macro_rules! contract {
    ($($name:ident)*) => {
        mod sqlite_store { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::World::sqlite(stringify!($name)).await.unwrap()).await;
            }
        )* }
        mod etcd_store { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(world) = super::World::etcd(concat!("contract::etcd_store::", stringify!($name))).await {
                    super::$name(world).await;
                }
            }
        )* }
    };
}

contract! {
    writes_only_what_the_condition_allows
    of_many_writers_on_one_revision_exactly_one_wins
    pages_are_of_one_revision
    ranges_of_many_and_large_objects_are_whole
    a_watch_delivers_history_and_present_in_order
    a_hook_has_seen_a_write_before_it_is_acknowledged
    a_conflict_is_told_only_after_the_hook_has_seen_its_cause
    compaction_keeps_the_present_and_refuses_the_past
    a_huge_value_is_refused
}

fn put(key: &str, value: &str, expect: Expect) -> Write {
    let operation = Operation::Put(Bytes::copy_from_slice(value.as_bytes()));
    Write { key: key.into(), operation, expect, durability: Durability::Synced }
}

fn relaxed(key: &str, value: &str) -> Write {
    Write { durability: Durability::Relaxed, ..put(key, value, Expect::Any) }
}

fn delete(key: &str, expect: Expect) -> Write {
    Write { operation: Operation::Delete, ..put(key, "", expect) }
}

async fn names(store: &dyn Store, range: Range) -> (Vec<String>, bool) {
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

async fn writes_only_what_the_condition_allows(world: World) {
    let store = world.store();
    let first = store.write(put("/a", "1", Expect::Absent)).await.unwrap();
    assert!(first.previous.is_none());
    match store.write(put("/a", "2", Expect::Absent)).await {
        Err(WriteError::Conflict { current: Some(current) }) => assert_eq!(current.mod_revision, first.revision),
        other => panic!("{other:?}"),
    }
    let second = store.write(put("/a", "2", Expect::Revision(first.revision))).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.create_revision, first.revision);
    assert_eq!(second.previous.unwrap().value, "1");
    assert!(matches!(store.write(put("/a", "3", Expect::Revision(first.revision))).await, Err(WriteError::Conflict { current: Some(_) })));
    let deleted = store.write(delete("/a", Expect::Revision(second.revision))).await.unwrap();
    assert_eq!((deleted.create_revision, deleted.previous.unwrap().value), (first.revision, "2".into()));
    assert!(matches!(store.write(delete("/a", Expect::Any)).await, Err(WriteError::Conflict { current: None })));
    assert!(matches!(store.write(delete("/a", Expect::Revision(second.revision))).await, Err(WriteError::Conflict { current: None })));
    assert!(store.get("/a").await.unwrap().is_none());
    let unchanged = |revision, value: &str| Expect::Unchanged { revision, value: value.to_owned().into() };
    assert!(matches!(store.write(put("/a", "3", unchanged(second.revision, "2"))).await, Err(WriteError::Conflict { current: None })));
    let third = store.write(put("/a", "3", Expect::Absent)).await.unwrap();
    let fourth = store.write(put("/a", "4", unchanged(third.revision, "3"))).await.unwrap();
    let previous = fourth.previous.unwrap();
    assert_eq!((previous.key.as_ref(), &*previous.value, previous.create_revision), ("/a", &b"3"[..], third.revision));
    match store.write(put("/a", "5", unchanged(third.revision, "3"))).await {
        Err(WriteError::Conflict { current: Some(current) }) => assert_eq!((current.mod_revision, &*current.value), (fourth.revision, &b"4"[..])),
        other => panic!("{other:?}"),
    }
    let deleted = store.write(delete("/a", unchanged(fourth.revision, "4"))).await.unwrap();
    assert_eq!((deleted.create_revision, deleted.previous.unwrap().value), (third.revision, "4".into()));
    let again = store.write(put("/a", "4", Expect::Absent)).await.unwrap();
    assert_eq!(again.create_revision, again.revision);
    let found = store.get("/a").await.unwrap().unwrap();
    assert_eq!((found.key.as_ref(), found.create_revision, found.mod_revision), ("/a", again.revision, again.revision));
    assert!(store.revision() >= again.revision);
}

async fn of_many_writers_on_one_revision_exactly_one_wins(world: World) {
    let store = world.store();
    let mut revision = store.write(put("/a", "", Expect::Absent)).await.unwrap().revision;
    for _ in 0..20 {
        let attempts = (0..16).map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.write(put("/a", &n.to_string(), Expect::Revision(revision))).await })
        });
        let results = futures::future::join_all(attempts).await;
        let won: Vec<_> = results.into_iter().filter_map(|r| r.unwrap().ok()).collect();
        assert_eq!(won.len(), 1);
        revision = won[0].revision;
    }
}

async fn pages_are_of_one_revision(world: World) {
    let store = world.store();
    for key in ["/p/a", "/p/b", "/p/c", "/q/a"] {
        store.write(put(key, "1", Expect::Absent)).await.unwrap();
    }
    let at = store.range(Range::prefix("/p/")).await.unwrap().revision;
    let page = |start_after: Option<&str>, at| Range {
        prefix: "/p/".into(),
        start_after: start_after.map(Into::into),
        limit: Some(2),
        at: Some(at),
    };
    assert_eq!(names(&*store, page(None, at)).await, (vec!["/p/a=1".into(), "/p/b=1".into()], true));
    store.write(put("/p/c", "2", Expect::Any)).await.unwrap();
    store.write(delete("/p/a", Expect::Any)).await.unwrap();
    store.write(put("/p/d", "1", Expect::Absent)).await.unwrap();
    assert_eq!(names(&*store, page(Some("/p/b"), at)).await, (vec!["/p/c=1".into()], false));
    assert_eq!(names(&*store, Range::prefix("/p/")).await.0, ["/p/b=1", "/p/c=2", "/p/d=1"]);
    assert_eq!(names(&*store, Range::prefix("")).await.0.len(), 4);
    let future = Range { at: Some(Revision(1 << 40)), ..Range::prefix("/") };
    assert!(matches!(store.range(future).await, Err(StoreError::Future { .. })));
}

async fn ranges_of_many_and_large_objects_are_whole(world: World) {
    let store = world.store();
    let large = "x".repeat(1 << 20);
    let writes = (0..1200).map(|n| {
        let (store, large) = (Arc::clone(&store), large.clone());
        let value = if n % 15 == 0 { large } else { n.to_string() };
        tokio::spawn(async move { store.write(put(&format!("/many/{n:04}"), &value, Expect::Absent)).await })
    });
    for write in futures::future::join_all(writes).await {
        write.unwrap().unwrap();
    }
    let found = store.range(Range::prefix("/many/")).await.unwrap();
    assert!(!found.more);
    let keys: Vec<String> = found.items.iter().map(|item| item.key.to_string()).collect();
    assert_eq!(keys, (0..1200).map(|n| format!("/many/{n:04}")).collect::<Vec<_>>());
    assert_eq!(found.items.iter().filter(|item| item.value.len() == large.len()).count(), 80);
    let page = store.range(Range { limit: Some(700), ..Range::prefix("/many/") }).await.unwrap();
    assert_eq!((page.items.len(), page.more), (700, true));
}

async fn a_watch_delivers_history_and_present_in_order(mut world: World) {
    let store = world.store();
    let start = store.range(Range::prefix("/")).await.unwrap().revision;
    store.write(put("/p/a", "1", Expect::Absent)).await.unwrap();
    store.write(relaxed("/p/l", "1")).await.unwrap();
    store.write(put("/q/a", "1", Expect::Absent)).await.unwrap();
    drop(store);
    world.reopen().await;
    let store = world.store();
    let mut watch = store.watch("/p/", start).await.unwrap();
    store.write(relaxed("/p/l", "2")).await.unwrap();
    store.write(put("/p/a", "2", Expect::Any)).await.unwrap();
    store.write(delete("/p/a", Expect::Any)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let batch = watch.next().await.unwrap().unwrap();
        seen.extend(batch.iter().map(describe));
    }
    assert_eq!(
        seen,
        ["+/p/a=1 was None", "+/p/l=1 was None", "~/p/l=2 was Some(\"1\")", "~/p/a=2 was Some(\"1\")", "-/p/a=2 was Some(\"2\")"]
    );
    store.close().await;
    assert!(watch.next().await.is_none());
    assert!(matches!(store.write(put("/x", "", Expect::Any)).await, Err(WriteError::Unavailable(_))));
}

async fn a_hook_has_seen_a_write_before_it_is_acknowledged(world: World) {
    let store = world.store();
    let seen: Arc<Mutex<Vec<Revision>>> = Arc::default();
    let after = store.subscribe({
        let seen = Arc::clone(&seen);
        Box::new(move |events| seen.lock().unwrap().extend(events.iter().map(|e| e.revision)))
    });
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        let write = if n % 2 == 0 { relaxed("/a", "x") } else { put("/a", "x", Expect::Any) };
        acknowledged.push(store.write(write).await.unwrap().revision);
        assert_eq!(*seen.lock().unwrap(), acknowledged);
    }
    assert!(acknowledged[0] > after);
}

async fn a_conflict_is_told_only_after_the_hook_has_seen_its_cause(world: World) {
    let store = world.store();
    let seen: Arc<Mutex<Revision>> = Arc::default();
    store.subscribe({
        let seen = Arc::clone(&seen);
        Box::new(move |events| *seen.lock().unwrap() = events.last().unwrap().revision)
    });
    let tasks = (0..8).map(|_| {
        let (store, seen) = (Arc::clone(&store), Arc::clone(&seen));
        tokio::spawn(async move {
            for _ in 0..20 {
                match store.write(put("/a", "x", Expect::Absent)).await {
                    Ok(written) => drop(store.write(delete("/a", Expect::Revision(written.revision))).await.unwrap()),
                    Err(WriteError::Conflict { current }) => {
                        let cause = current.expect("only the key's presence is in the way").mod_revision;
                        assert!(*seen.lock().unwrap() >= cause);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    futures::future::join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
}

async fn compaction_keeps_the_present_and_refuses_the_past(mut world: World) {
    let store = world.store();
    let start = store.range(Range::prefix("/")).await.unwrap().revision;
    for n in 0..300 {
        store.write(put("/a", &n.to_string(), Expect::Any)).await.unwrap();
    }
    store.write(put("/gone", "1", Expect::Any)).await.unwrap();
    let before = store.write(delete("/gone", Expect::Any)).await.unwrap().revision;
    store.write(put("/a", "kept", Expect::Any)).await.unwrap();
    let mut old = store.watch("/", Revision(start.0 + 1)).await.unwrap();
    assert!(matches!(store.compact(Revision(1 << 40)).await, Err(StoreError::Future { .. })));
    store.compact(before).await.unwrap();
    assert!(matches!(old.next().await, Some(Err(WatchError::Compacted { .. }))));
    assert!(matches!(store.watch("/", start).await, Err(WatchError::Compacted { .. })));
    // The deletion itself may be forgotten: to go on from just before it is too old.
    assert!(matches!(store.watch("/", Revision(before.0 - 1)).await, Err(WatchError::Compacted { .. })));
    let past = Range { at: Some(Revision(before.0 - 1)), ..Range::prefix("/") };
    assert!(matches!(store.range(past).await, Err(StoreError::Compacted { .. })));
    drop((store, old));
    for _ in 0..2 {
        let store = world.store();
        let at = Range { at: Some(before), ..Range::prefix("/") };
        assert_eq!(names(&*store, at).await.0, ["/a=299"]);
        assert_eq!(names(&*store, Range::prefix("/")).await.0, ["/a=kept"]);
        let event = store.watch("/", before).await.unwrap().next().await.unwrap().unwrap();
        assert_eq!(describe(&event[0]), "~/a=kept was Some(\"299\")");
        drop(store);
        world.reopen().await;
    }
}

async fn a_huge_value_is_refused(world: World) {
    let store = world.store();
    for size in [(3 << 20) + 1, 8 << 20] {
        match store.write(put("/a", &"x".repeat(size), Expect::Any)).await {
            Err(WriteError::TooLarge { size_bytes, limit_bytes }) => assert!(size_bytes == size && limit_bytes < size),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.get("/a").await.unwrap().is_none());
}
