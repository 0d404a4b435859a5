//! What group commit makes of the disk: writes per second for 1 to 128 writers, beside bare `fdatasync` on the same disk.
//!
//! `cargo run -p store --example commit_bench -- [folder] [seconds] [endpoint of etcd]`; with the last, etcd's figures stand beside.
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::sqlite::{self, Options};
use store::{Durability, Expect, Operation, Store, Write};

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().unwrap_or_else(|| "/var/tmp".into()));
    let seconds = args.next().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let length = Duration::from_secs_f64(seconds);
    let folder = tempfile::tempdir_in(folder).expect("a folder on the disk to measure");
    raw(&folder.path().join("raw"), length);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let endpoint = args.next();
    for writers in [1, 4, 16, 32, 128] {
        let sqlite = sqlite::open(&folder.path().join(format!("{writers}.db")), Options::default()).expect("a store");
        runtime.block_on(writers_at_once("SQLite", Arc::new(sqlite), writers, length));
        let Some(endpoint) = endpoint.clone() else { continue };
        let prefix = format!("/bench-{}-{writers}", std::process::id());
        let options = store::etcd::Options { endpoints: vec![endpoint], prefix, ..store::etcd::Options::default() };
        runtime.block_on(async {
            let etcd = store::etcd::open(options).await.expect("an etcd");
            writers_at_once("etcd", Arc::new(etcd), writers, length).await;
        });
    }
}

fn raw(path: &std::path::Path, length: Duration) {
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(path).expect("a file");
    let page = [7u8; 4096];
    for n in 0..1000 {
        file.write_all_at(&page, n * 4096).expect("a write");
    }
    file.sync_all().expect("a sync");
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < length {
        let before = Instant::now();
        file.write_all_at(&page, (took.len() as u64 % 1000) * 4096).expect("a write");
        file.sync_data().expect("a sync");
        took.push(before.elapsed());
    }
    report("4 KiB overwrite + fdatasync", took, start.elapsed());
}

async fn writers_at_once(name: &str, store: Arc<dyn Store>, writers: usize, length: Duration) {
    let value = bytes::Bytes::from(vec![b'x'; 1024]);
    let start = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let (store, value) = (Arc::clone(&store), value.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while start.elapsed() < length {
                let write = Write {
                    key: format!("/{writer}/{}", took.len()).into(),
                    operation: Operation::Put(value.clone()),
                    expect: Expect::Absent,
                    durability: Durability::Synced,
                };
                let before = Instant::now();
                store.write(write).await.expect("a write");
                took.push(before.elapsed());
            }
            took
        })
    });
    let took = futures::future::join_all(tasks).await.into_iter().flat_map(|t| t.expect("no panic")).collect();
    report(&format!("{name}, {writers} writers, 1 KiB"), took, start.elapsed());
}

fn report(what: &str, mut took: Vec<Duration>, length: Duration) {
    took.sort();
    let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize];
    let rate = took.len() as f64 / length.as_secs_f64();
    println!("{what:30} {rate:8.0}/s  p50 {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}", at(0.5), at(0.99), at(1.0));
}
