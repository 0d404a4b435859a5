//! Of several servers on one etcd, one is let in; and one that has lost its right writes nothing more.
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use store::etcd::{self, EtcdStore, Holder, OpenError, Options};
use store::{Durability, Expect, Operation, Range, Store, Write, WriteError};

use crate::etcd::{Etcd, eventually};

fn put(key: &str, value: &str) -> Write {
    Write { key: key.into(), operation: Operation::Put(value.to_owned().into()), expect: Expect::Any, durability: Durability::Synced }
}

fn options(etcd: &Etcd, id: &str) -> Options {
    Options { holder: Some(Holder { id: id.into(), name: format!("{id} at 10.0.0.1:6443") }), ..etcd.options() }
}

async fn ended(store: &EtcdStore) -> Arc<str> {
    tokio::time::timeout(Duration::from_secs(60), store.ended()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_refused_until_the_first_has_stopped() {
    let Some(etcd) = Etcd::started("etcd_claim::a_second_server_is_refused_until_the_first_has_stopped") else { return };
    let first = etcd::open(options(&etcd, "first")).await.unwrap();
    first.write(put("/a", "1")).await.unwrap();
    match etcd::open(options(&etcd, "second")).await {
        Err(OpenError::Held { prefix, holder }) => assert_eq!((&*prefix, &*holder), ("/test", "first at 10.0.0.1:6443")),
        other => panic!("{:?}", other.err()),
    }
    // Other keys are another's business.
    etcd::open(Options { prefix: "/test2".into(), ..options(&etcd, "second") }).await.unwrap();
    first.write(put("/a", "2")).await.unwrap();
    first.close().await;
    let second = etcd::open(options(&etcd, "second")).await.unwrap();
    // What the store keeps for itself, nobody sees.
    let keys: Vec<_> = second.range(Range::prefix("")).await.unwrap().items.iter().map(|item| item.key.to_string()).collect();
    assert_eq!(keys, ["/a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_over_from_itself_and_the_earlier_one_writes_nothing_more() {
    let Some(etcd) = Etcd::started("etcd_claim::a_server_takes_over_from_itself_and_the_earlier_one_writes_nothing_more") else { return };
    let earlier = etcd::open(options(&etcd, "one")).await.unwrap();
    let at = earlier.write(put("/a", "1")).await.unwrap().revision;
    let later = etcd::open(options(&etcd, "one")).await.unwrap();
    // The watch may not have told it yet.
    for expect in [Expect::Any, Expect::Revision(at)] {
        match earlier.write(Write { expect, ..put("/a", "2") }).await {
            Err(WriteError::Unavailable(reason)) => assert!(reason.contains("one at 10.0.0.1:6443 has taken over"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(ended(&earlier).await.contains("has taken over"));
    assert_eq!(later.get("/a").await.unwrap().unwrap().value, "1");
    assert!(matches!(later.write(Write { expect: Expect::Absent, ..put("/a", "3") }).await, Err(WriteError::Conflict { .. })));
    later.write(put("/a", "3")).await.unwrap();
    // An earlier one that goes takes nothing away from the later.
    earlier.close().await;
    drop(earlier);
    later.write(put("/a", "4")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_claim_is_gone_steps_down_and_survives_a_restart_of_etcd() {
    let Some(mut etcd) = Etcd::started("etcd_claim::a_server_whose_claim_is_gone_steps_down_and_survives_a_restart_of_etcd") else { return };
    let store = etcd::open(options(&etcd, "one")).await.unwrap();
    etcd.kill();
    etcd.start();
    store.write(put("/a", "1")).await.unwrap();
    let other = etcd.open().await;
    // As if nobody was heard of for so long that the lease ran out. What is the store's own is nobody's to know: the answer says nothing.
    let taken = other.write(Write { operation: Operation::Delete, ..put("/~server", "") }).await;
    assert!(matches!(taken, Err(WriteError::Conflict { current: None })));
    let reason = ended(&store).await;
    assert!(reason.contains("has run out"), "{reason}");
    assert!(matches!(store.write(put("/a", "2")).await, Err(WriteError::Unavailable(_))));
    let again = etcd::open(options(&etcd, "two")).await.unwrap();
    again.write(put("/a", "2")).await.unwrap();
}

const CHILD: &str = "RK_STORE_CLAIM_CHILD";

/// The child's part; does nothing when run as a test.
#[test]
fn child() {
    let Some(endpoint) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let holder = Some(Holder { id: "child".into(), name: "the child".into() });
        let endpoints = vec![endpoint.into_string().unwrap()];
        let store = etcd::open(Options { endpoints, prefix: "/test".into(), holder, ..Options::default() }).await.unwrap();
        store.write(put("/child", "1")).await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_of_a_dead_server_runs_out() {
    if std::env::var_os("RK_TEST_ALL").is_none() {
        return; // it takes as long as a claim outlives its server
    }
    let Some(etcd) = Etcd::started("etcd_claim::the_claim_of_a_dead_server_runs_out") else { return };
    let watching = etcd.open().await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "etcd_claim::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, etcd.endpoint())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let before = watching.revision();
    eventually("the child writes", || watching.revision() > before).await;
    // Longer than a lease that nobody keeps.
    let alive = std::time::Instant::now();
    while alive.elapsed() < etcd::CLAIM_OUTLIVES + Duration::from_secs(5) {
        assert!(matches!(etcd::open(options(&etcd, "next")).await, Err(OpenError::Held { .. })));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = std::time::Instant::now();
    while etcd::open(options(&etcd, "next")).await.is_err() {
        assert!(killed.elapsed() < etcd::CLAIM_OUTLIVES * 2, "the claim outlives its server by too much");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
