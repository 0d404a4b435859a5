//! `kill -9` of an API server at any moment, over both stores, while about 500 writes a second go on: what was acknowledged is there, no version
//! is given twice, and who watches is told each change once and in order, or 410.
//!
//! Six kills of each; 1,000 with RK_TEST_ALL=1; RK_CRASHES names another number, RK_CRASH_SEED repeats a run's choices. The server is a process
//! of its own with store, watch cache and all of the API; writers and watchers have nothing of it but a socket. The whole program is killed in
//! tests/system/test_60_crash.py.
mod ledger;
mod line;
mod server;
mod watcher;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use self::ledger::Chance;
use self::ledger::Ledger;
pub use self::line::{MAPS, version};
use self::server::Server;
use self::watcher::Watcher;
use self::writer::Writer;
use crate::etcd::Etcd;

const WRITERS: u64 = 8;
const WATCHERS: usize = 4;
/// Of each writer: 500 a second in all.
const WRITES_EVERY: Duration = Duration::from_millis(16);

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn kills() -> u64 {
    number("RK_CRASHES").unwrap_or(if std::env::var_os("RK_TEST_ALL").is_some() { 1000 } else { 6 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_skipped_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    crash("SQLite", folder.path(), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_skipped_over_etcd() {
    let Some(etcd) = Etcd::started("crash::nothing_is_lost_repeated_or_skipped_over_etcd") else { return };
    let folder = tempfile::tempdir().unwrap();
    crash("etcd", folder.path(), Some(etcd.endpoint())).await;
}

async fn crash(what: &str, folder: &Path, etcd: Option<String>) {
    let seed = number("RK_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let (kills, mut chance, began) = (kills(), Chance::new(seed), Instant::now());
    let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
    let socket = folder.join("socket");
    let start = || Server::start(folder, etcd.as_deref());
    let mut server = start();
    server.ready().await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        let watcher = Watcher::begin(&socket, ledger.clone()).await;
        watching.push(tokio::spawn(watcher.run(stop.clone())));
    }
    let writing: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(Writer::new(n, seed, &socket, ledger.clone()).run(WRITES_EVERY, stop.clone())))
        .collect();
    let mut recoveries = Vec::new();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(chance.below(400))).await;
        server.kill();
        server = start();
        // And again before it is ready.
        if chance.below(4) == 0 {
            tokio::time::sleep(Duration::from_millis(chance.below(300))).await;
            server.kill();
            server = start();
        }
        recoveries.push(server.ready().await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut interrupted = 0;
    for writer in writing {
        interrupted += writer.await.unwrap().check().await;
    }
    let highest = ledger.highest();
    let (mut told, mut resumed, mut gaps) = (0, 0, 0);
    for watcher in watching {
        let watcher = watcher.await.unwrap();
        watcher.check(highest);
        told += watcher.seen.len();
        resumed += watcher.resumed;
        gaps += watcher.gaps.len();
    }
    server.kill();
    recoveries.sort();
    let acknowledged = ledger.check();
    println!(
        "{kills} kills over {what} (seed {seed}) in {:.0} s: {acknowledged} acknowledged writes, {interrupted} without an answer, \
         {told} events told to {WATCHERS} watchers in {resumed} watches, {gaps} answered 410; ready again after p50 {:?}, max {:?}",
        began.elapsed().as_secs_f64(),
        recoveries[recoveries.len() / 2],
        recoveries[recoveries.len() - 1],
    );
    assert!(acknowledged as u64 > 20 * kills, "too few writes for a verdict: {acknowledged}");
}
