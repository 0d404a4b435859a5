//! Objects as registers that are read and swapped by their version, and whether all that 64 clients were told can have happened one after the other.
//!
//! A version is the register's state, so this needs no search for an order: of the swaps of one register that were acknowledged, each is of the
//! version that another one made, no two of the same (a chain without forks); nobody is told of a version older than one that somebody was
//! told of before he asked; and each version has the one value that its writer gave it. Swaps that were refused were late.
//!
//! 2,000 swaps over each store; a million with RK_TEST_ALL=1; RK_SWAPS names another number.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use apiserver::{Local, UserInfo};
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::Store;
use tower::Service as _;

use crate::crash::{Chance, MAPS, number, version};
use crate::etcd::Etcd;
use crate::world::Served;

const CLIENTS: u64 = 64;
const REGISTERS: u64 = 48;

fn swaps() -> u64 {
    number("RK_SWAPS").unwrap_or(if std::env::var_os("RK_TEST_ALL").is_some() { 1_000_000 } else { 2_000 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_over_sqlite_can_have_happened_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap();
    swap("SQLite", folder.path(), Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_over_etcd_can_have_happened_one_after_the_other() {
    let Some(etcd) = Etcd::started("registers::swaps_over_etcd_can_have_happened_one_after_the_other") else { return };
    let folder = tempfile::tempdir().unwrap();
    swap("etcd", folder.path(), Arc::new(etcd.open().await)).await;
}

async fn ask(api: &mut Local, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response = api.call(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

/// What one client was told of one register.
enum Told {
    Read { version: u64, value: u64 },
    Swapped { from: u64, to: u64, value: u64 },
    /// Somebody else had swapped that version.
    Refused { from: u64 },
}

struct Client {
    api: Local,
    id: u64,
    /// The newest version of each register that anybody was told of.
    known: Arc<[AtomicU64]>,
    done: Arc<AtomicU64>,
    chance: Chance,
}

impl Client {
    async fn run(mut self, swaps: u64) -> Vec<(usize, Told)> {
        let mut told = Vec::new();
        for n in 0u64.. {
            if self.done.load(Ordering::Relaxed) >= swaps {
                break;
            }
            let register = self.chance.below(REGISTERS) as usize;
            let (from, value) = self.read(register).await;
            told.push((register, Told::Read { version: from, value }));
            // Never what is there: that would be no change.
            let value = n * CLIENTS + self.id + 1;
            told.push((register, self.swap(register, from, value).await));
        }
        told
    }

    async fn read(&mut self, register: usize) -> (u64, u64) {
        let floor = self.known[register].load(Ordering::SeqCst);
        let (code, object) = ask(&mut self.api, Method::GET, &format!("{MAPS}/r{register}"), &Value::Null).await;
        assert_eq!(code, 200, "{object}");
        let version = version(&object);
        assert!(version >= floor, "r{register} was read at {version}, {floor} was known before");
        self.known[register].fetch_max(version, Ordering::SeqCst);
        (version, object["data"]["v"].as_str().unwrap().parse().unwrap())
    }

    async fn swap(&mut self, register: usize, from: u64, value: u64) -> Told {
        let floor = self.known[register].load(Ordering::SeqCst);
        let body = json!({"metadata": {"name": format!("r{register}"), "resourceVersion": from.to_string()}, "data": {"v": value.to_string()}});
        match ask(&mut self.api, Method::PUT, &format!("{MAPS}/r{register}"), &body).await {
            (200, object) => {
                let to = version(&object);
                // Whoever knew of a newer version before this was sent has seen this one's successor.
                assert!(from >= floor && to > floor, "r{register} was swapped from {from} to {to}, {floor} was known before");
                self.known[register].fetch_max(to, Ordering::SeqCst);
                self.done.fetch_add(1, Ordering::Relaxed);
                Told::Swapped { from, to, value }
            }
            (409, _) => Told::Refused { from },
            (code, answer) => panic!("{code} {answer}"),
        }
    }
}

async fn swap(what: &str, folder: &Path, store: Arc<dyn Store>) {
    let server = Served::lenient(store, folder).await;
    let api = server.local(UserInfo::new("admin", &["system:masters"]));
    let mut first = Vec::new();
    for register in 0..REGISTERS {
        let body = json!({"metadata": {"name": format!("r{register}")}, "data": {"v": "0"}});
        let (code, object) = ask(&mut api.clone(), Method::POST, MAPS, &body).await;
        assert_eq!(code, 201, "{object}");
        first.push(version(&object));
    }
    let known: Arc<[AtomicU64]> = first.iter().map(|version| AtomicU64::new(*version)).collect();
    let (done, swaps, began) = (Arc::new(AtomicU64::new(0)), swaps(), Instant::now());
    let clients = (0..CLIENTS).map(|id| {
        let client = Client { api: api.clone(), id, known: known.clone(), done: done.clone(), chance: Chance::new(id + 1) };
        tokio::spawn(client.run(swaps))
    });
    let mut told: Vec<Vec<Told>> = (0..REGISTERS).map(|_| Vec::new()).collect();
    for client in futures::future::join_all(clients).await {
        client.unwrap().into_iter().for_each(|(register, one)| told[register].push(one));
    }
    let seconds = began.elapsed().as_secs_f64();
    let (mut swapped, mut read, mut refused) = (0, 0, 0);
    for (register, told) in told.iter().enumerate() {
        let (code, last) = ask(&mut api.clone(), Method::GET, &format!("{MAPS}/r{register}"), &Value::Null).await;
        assert_eq!(code, 200, "{last}");
        let counts = check(register, first[register], version(&last), told);
        (swapped, read, refused) = (swapped + counts.0, read + counts.1, refused + counts.2);
    }
    println!(
        "{swapped} swaps by {CLIENTS} clients of {REGISTERS} registers over {what} in {seconds:.0} s ({:.0}/s), {read} reads, {refused} refused: \
         one chain each",
        swapped as f64 / seconds
    );
    assert!(swapped as u64 >= swaps);
}

/// How many swaps, reads and refusals there were.
fn check(register: usize, first: u64, last: u64, told: &[Told]) -> (usize, usize, usize) {
    let mut swaps: HashMap<u64, u64> = HashMap::new();
    let mut values: HashMap<u64, u64> = HashMap::from([(first, 0)]);
    for one in told {
        if let Told::Swapped { from, to, value } = one {
            assert!(to > from, "r{register}: {to} was made of {from}");
            let fork = swaps.insert(*from, *to);
            assert!(fork.is_none(), "r{register}: {from} was swapped for {to} and for {fork:?}");
            let twice = values.insert(*to, *value);
            assert!(twice.is_none(), "r{register}: {to} was made twice, of {value} and {twice:?}");
        }
    }
    let (mut at, mut steps) = (first, 0);
    while let Some(next) = swaps.get(&at) {
        (at, steps) = (*next, steps + 1);
    }
    assert_eq!((at, steps), (last, swaps.len()), "r{register}: the chain ends elsewhere, or leaves swaps out");
    let (mut reads, mut refused) = (0, 0);
    for one in told {
        match one {
            Told::Read { version, value } => {
                reads += 1;
                assert_eq!(values.get(version), Some(value), "r{register}: read at {version}");
            }
            Told::Refused { from } => {
                refused += 1;
                assert!(swaps.contains_key(from), "r{register}: {from} was refused, and nobody had swapped it");
            }
            Told::Swapped { .. } => {}
        }
    }
    (swaps.len(), reads, refused)
}
