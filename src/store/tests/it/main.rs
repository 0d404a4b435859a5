//! The stores from outside; here: what a `kill -9` leaves of SQLite: a child writes and prints what was acknowledged, and is killed at a random moment.
//!
//! `RK_STORE_KILLS` is the number of times (default 5); the store goes on with the same file each time.
mod checker;
mod contract;
mod etcd;
mod etcd_claim;
mod etcd_faults;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use store::sqlite::{self, Options};
use store::{Durability, Expect, Operation, Range, Revision, Store, Write};

const CHILD: &str = "RK_STORE_CHILD";

/// The child's part; does nothing when run as a test.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options { wal_pages: 50, history: Duration::from_millis(200), ..Options::default() };
        let store = Arc::new(sqlite::open(Path::new(&path), options).unwrap());
        let start = store.revision().0;
        let tasks = (0..8).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0u64.. {
                    let durability = if n % 4 == 3 { Durability::Relaxed } else { Durability::Synced };
                    let kind = if durability == Durability::Relaxed { "relaxed" } else { "synced" };
                    let key = format!("/{kind}/{task}/{}", n % 10);
                    let value = format!("{start}-{task}-{n}-{}", "x".repeat((n as usize * 37) % 2000));
                    let operation = Operation::Put(value.clone().into());
                    let write = Write { key: key.clone().into(), operation, expect: Expect::Any, durability };
                    let written = store.write(write).await.unwrap();
                    let tag = value.split('x').next().unwrap();
                    // One write call a line: a line is there whole or not at all.
                    std::io::stdout().lock().write_all(format!("@{} {key} {tag}\n", written.revision).as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(tasks).await;
    });
}

#[test]
fn nothing_acknowledged_is_lost_and_no_revision_is_given_twice() {
    let kills: u32 = std::env::var("RK_STORE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut acknowledged: HashMap<String, (Revision, String)> = HashMap::new();
    let mut given: HashMap<Revision, String> = HashMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    for _ in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>());
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(100_000 + (seed >> 33) % 700_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            // The test harness prints before the first line without a line break.
            let Some((_, line)) = line.split_once('@') else { continue };
            let [revision, key, tag] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let revision = Revision(revision.parse().unwrap());
            let twice = given.insert(revision, line.to_owned());
            assert!(twice.is_none(), "{revision} was given twice: {twice:?} and {line}");
            let newest = acknowledged.entry(key.to_owned()).or_default();
            if revision > newest.0 {
                *newest = (revision, tag.to_owned());
            }
        }
        runtime.block_on(check(&path, &acknowledged));
    }
    println!("{kills} kills, {} acknowledged writes", given.len());
    assert!(given.len() > 10 * kills as usize, "{}", given.len());
}

async fn check(path: &Path, acknowledged: &HashMap<String, (Revision, String)>) {
    let store = sqlite::open(path, Options::default()).unwrap();
    let found = store.range(Range::prefix("/")).await.unwrap().items;
    let found: HashMap<&str, _> = found.iter().map(|kv| (kv.key.as_ref(), kv)).collect();
    for (key, (revision, tag)) in acknowledged {
        assert!(store.revision() >= *revision, "the store is at {}, {revision} was given", store.revision());
        if key.starts_with("/relaxed/") {
            continue; // may lose its last seconds
        }
        let kv = found.get(key.as_str()).unwrap_or_else(|| panic!("{key} is lost"));
        // A later write may have been committed and not acknowledged.
        assert!(kv.mod_revision >= *revision, "{key} is at {}, {revision} was acknowledged", kv.mod_revision);
        if kv.mod_revision == *revision {
            assert!(kv.value.starts_with(tag.as_bytes()), "{key} at {revision} has another value");
        }
    }
}
