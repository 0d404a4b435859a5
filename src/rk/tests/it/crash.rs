//! `kill -9` of an API server at any moment, over both stores, while about 500 writes a second go on: what was acknowledged is there, no version
//! is given twice, and who watches is told each change once and in order, or 410.
//!
//! Six kills of each; 1,000 with RK_TEST_ALL=1; RK_CRASHES names another number, RK_CRASH_SEED repeats a run's choices. With RK_TEST_ALL=1 the
//! power of a machine is cut 50 times, too (RK_POWER_CUTS names another number). The server is a process
//! of its own with store, watch cache and all of the API; writers and watchers have nothing of it but a socket. The whole program is killed in
//! tests/system/test_60_crash.py.
mod guest;
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
use self::guest::Guest;
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

/// How long a server lives, and how long one that is killed again before it is ready.
struct Pace {
    ready_ms: u64,
    again_ms: u64,
}

const PROCESS: Pace = Pace { ready_ms: 400, again_ms: 300 };
/// Emulated, it takes half a minute to boot.
const MACHINE: Pace = Pace { ready_ms: 8000, again_ms: 40_000 };

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
    let start = || Server::start(folder.path(), None);
    crash("SQLite", folder.path(), start, kills(), &PROCESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_skipped_over_etcd() {
    let Some(etcd) = Etcd::started("crash::nothing_is_lost_repeated_or_skipped_over_etcd") else { return };
    let folder = tempfile::tempdir().unwrap();
    let endpoint = etcd.endpoint();
    let start = || Server::start(folder.path(), Some(&endpoint));
    crash("etcd", folder.path(), start, kills(), &PROCESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_skipped_where_power_is_cut() {
    let cuts = number("RK_POWER_CUTS").unwrap_or(if std::env::var_os("RK_TEST_ALL").is_some() { 50 } else { 0 });
    if cuts == 0 {
        eprintln!("skipped: each cut boots an emulated machine; RK_TEST_ALL=1 makes 50, RK_POWER_CUTS=N makes N");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let guest = Guest::prepare(folder.path());
    crash("a guest's disk", folder.path(), || Server::boot(&guest, folder.path()), cuts, &MACHINE).await;
}

async fn crash(what: &str, folder: &Path, start: impl Fn() -> Server, kills: u64, pace: &Pace) {
    let seed = number("RK_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let (mut chance, began) = (Chance::new(seed), Instant::now());
    let ledger = Arc::new(Ledger::default());
    let [stop, over] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
    let socket = folder.join("socket");
    let mut server = start();
    server.ready().await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        let watcher = Watcher::begin(&socket, ledger.clone()).await;
        watching.push(tokio::spawn(watcher.run(over.clone())));
    }
    let writing: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(Writer::new(n, seed, &socket, ledger.clone()).run(WRITES_EVERY, stop.clone())))
        .collect();
    let mut recoveries = Vec::new();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(chance.below(pace.ready_ms))).await;
        server.kill();
        server = start();
        // And again before it is ready.
        if chance.below(4) == 0 {
            tokio::time::sleep(Duration::from_millis(chance.below(pace.again_ms))).await;
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
    // What is on its way when the writers are told to stop is acknowledged after that.
    over.store(true, Ordering::Relaxed);
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
