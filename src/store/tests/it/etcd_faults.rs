//! What goes wrong around an etcd: it dies, its client dies, the line is cut, it is restored, its certificates are asked for.
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use store::etcd::{self, Options};
use store::{Durability, EventKind, Expect, Operation, Range, Revision, Store, StoreError, Write, WriteError};
use tokio::net::{TcpListener, TcpStream};

use crate::checker::Checker;
use crate::etcd::{Etcd, eventually};

const CHILD: &str = "RK_STORE_ETCD_CHILD";

fn write(key: &str, operation: Operation, expect: Expect) -> Write {
    Write { key: key.into(), operation, expect, durability: Durability::Synced }
}

fn put(key: &str, value: &str) -> Write {
    write(key, Operation::Put(value.to_owned().into()), Expect::Any)
}

/// One writer of a key that only it writes: creates, changes and deletes, and knows the key's revision even after a failure.
async fn work(store: Arc<dyn Store>, task: usize, checker: Checker, done: Arc<AtomicUsize>, target: usize) {
    let mut at: HashMap<String, Option<Revision>> = HashMap::new();
    for n in 0usize.. {
        if done.fetch_add(1, Ordering::Relaxed) >= target {
            return;
        }
        let key = format!("/{task}/{}", n % 7);
        let current = at.get(&key).copied().flatten();
        let is_delete = current.is_some() && n % 5 == 4;
        let value = format!("{task}-{n}-{}", "x".repeat((n * 37) % 500));
        let operation = if is_delete { Operation::Delete } else { Operation::Put(value.clone().into()) };
        let expect = current.map_or(Expect::Absent, Expect::Revision);
        match store.write(write(&key, operation, expect)).await {
            Ok(written) => {
                checker.acknowledged(&key, (!is_delete).then_some(value.as_str()), &written);
                at.insert(key, (!is_delete).then_some(written.revision));
            }
            Err(WriteError::Unavailable(_)) => {
                // It may have happened or not; only the store knows.
                let found = loop {
                    match store.get(&key).await {
                        Ok(found) => break found,
                        Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                        Err(error) => panic!("{error}"),
                    }
                };
                at.insert(key, found.map(|kv| kv.mod_revision));
            }
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_told_twice_while_etcd_is_killed() {
    let Some(mut etcd) = Etcd::started("etcd_faults::nothing_is_lost_or_told_twice_while_etcd_is_killed") else { return };
    let store: Arc<dyn Store> = Arc::new(etcd.open().await);
    let checker = Checker::follow(&*store);
    let (done, target, kills) = (Arc::new(AtomicUsize::new(0)), 6000, 6);
    let tasks: Vec<_> = (0..8).map(|task| tokio::spawn(work(store.clone(), task, checker.clone(), done.clone(), target))).collect();
    for kill in 1..=kills {
        eventually("writes go on", || done.load(Ordering::Relaxed) >= kill * target / (kills + 1)).await;
        etcd.kill();
        etcd.start();
    }
    for task in tasks {
        task.await.unwrap();
    }
    let acknowledged = checker.check(&*store).await;
    println!("{kills} kills of etcd, {acknowledged} acknowledged writes, {} events", checker.told());
    assert!(acknowledged > target / 2, "{acknowledged}");
}

/// The child's part; does nothing when run as a test.
#[test]
fn child() {
    let Some(endpoint) = std::env::var_os(CHILD) else { return };
    let endpoint = endpoint.into_string().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store =
            Arc::new(etcd::open(Options { endpoints: vec![endpoint], prefix: "/test".into(), ..Options::default() }).await.unwrap());
        let start = store.revision();
        let tasks = (0..8).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0u64.. {
                    let (key, value) = (format!("/{task}/{}", n % 10), format!("{start}-{task}-{n}"));
                    let written = store.write(put(&key, &value)).await.unwrap();
                    let line = format!("@{} {key} {value}\n", written.revision);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(tasks).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_client_was_told_is_there() {
    let Some(etcd) = Etcd::started("etcd_faults::what_a_killed_client_was_told_is_there") else { return };
    let store = etcd.open().await;
    let checker = Checker::follow(&store);
    let start = store.revision();
    let mut acknowledged = HashMap::new();
    for n in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "etcd_faults::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, etcd.endpoint())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let lines = std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>());
        let before = checker.told();
        eventually("the child writes", || checker.told() >= before + 200 + n * 83).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.join().unwrap() {
            let Some((_, line)) = line.split_once('@') else { continue };
            let [revision, key, value] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let twice = acknowledged.insert(Revision(revision.parse().unwrap()), (key.to_owned(), value.to_owned()));
            assert!(twice.is_none(), "{line} and {twice:?}");
        }
    }
    checker.check(&store).await;
    let mut watch = store.watch("/", start).await.unwrap();
    let mut told = HashMap::new();
    while told.len() < checker.told() {
        for event in watch.next().await.unwrap().unwrap().iter() {
            told.insert(event.revision, (event.key.to_string(), String::from_utf8(event.value.to_vec()).unwrap()));
        }
    }
    println!("4 kills of a client, {} acknowledged writes, {} events", acknowledged.len(), told.len());
    assert!(acknowledged.len() > 600);
    for (revision, what) in acknowledged {
        assert_eq!(told.get(&revision), Some(&what));
    }
}

/// A line to etcd that can be cut.
async fn line(to: u16) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let cut = Arc::clone(&cut);
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                let cut = async {
                    while !cut.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::select! {
                    () = cut => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    (endpoint, is_cut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_while_the_line_was_cut_is_told_as_a_difference() {
    let Some(etcd) = Etcd::started("etcd_faults::what_was_compacted_while_the_line_was_cut_is_told_as_a_difference") else { return };
    let other = etcd.open().await;
    let (endpoint, cut) = line(etcd.port()).await;
    let store = etcd::open(Options { endpoints: vec![endpoint], ..etcd.options() }).await.unwrap();
    for key in ["/same", "/changed", "/again", "/gone"] {
        store.write(put(key, "1")).await.unwrap();
    }
    let told: Arc<std::sync::Mutex<Vec<store::Event>>> = Arc::default();
    store.subscribe({
        let told = Arc::clone(&told);
        Box::new(move |events| told.lock().unwrap().extend(events.iter().cloned()))
    });
    cut.store(true, Ordering::Relaxed);
    // Cut first: nothing of what follows comes over the old connection.
    while tokio::time::timeout(Duration::from_millis(500), store.get("/same")).await.is_ok() {}
    let delete = |key: &str| write(key, Operation::Delete, Expect::Any);
    other.write(put("/new", "1")).await.unwrap();
    other.write(put("/changed", "2")).await.unwrap();
    other.write(delete("/again")).await.unwrap();
    other.write(put("/again", "2")).await.unwrap();
    let last = other.write(delete("/gone")).await.unwrap().revision;
    other.compact(last).await.unwrap();
    cut.store(false, Ordering::Relaxed);
    eventually("what was missed is told", || store.revision() >= last).await;
    let described: Vec<String> = told
        .lock()
        .unwrap()
        .iter()
        .map(|event| {
            let kind = match event.kind {
                EventKind::Put { created: true } => "+",
                EventKind::Put { .. } => "~",
                EventKind::Delete => "-",
            };
            format!("{kind}{}", event.key)
        })
        .collect();
    assert_eq!(described, ["+/new", "~/changed", "-/again", "+/again", "-/gone"]);
    // And it goes on as before.
    let written = store.write(put("/new", "2")).await.unwrap();
    assert_eq!(told.lock().unwrap().last().unwrap().revision, written.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_waits_for_etcd_and_reads_fail_while_it_is_away() {
    let Some(mut etcd) = Etcd::new("etcd_faults::opening_waits_for_etcd_and_reads_fail_while_it_is_away") else { return };
    let opening = tokio::spawn(etcd::open(etcd.options()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    etcd.start();
    let store = opening.await.unwrap().unwrap();
    store.write(put("/a", "1")).await.unwrap();
    etcd.kill();
    match store.get("/a").await {
        Err(StoreError::Unavailable(reason)) => assert!(reason.contains("refused"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // Surely not sent: tried again until etcd is there.
    let late = async { tokio::time::timeout(Duration::from_secs(30), store.write(put("/a", "2"))).await.unwrap() };
    let (written, ()) = futures::join!(late, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        etcd.start();
    });
    assert_eq!(written.unwrap().previous.unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_went_back_ends_the_store() {
    let Some(mut etcd) = Etcd::started("etcd_faults::an_etcd_that_went_back_ends_the_store") else { return };
    let store = etcd.open().await;
    for n in 0..20 {
        store.write(put("/a", &n.to_string())).await.unwrap();
    }
    etcd.forget_everything();
    let reason = tokio::time::timeout(Duration::from_secs(60), store.ended()).await.unwrap();
    assert!(reason.contains("must start anew"), "{reason}");
    assert!(matches!(store.write(put("/a", "x")).await, Err(WriteError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revisions_of_others_hold_nobody_up() {
    let Some(etcd) = Etcd::started("etcd_faults::the_revisions_of_others_hold_nobody_up") else { return };
    let store = etcd.open().await;
    let other = etcd::open(Options { prefix: "/test2".into(), ..etcd.options() }).await.unwrap();
    let checker = Checker::follow(&store);
    store.write(put("/a", "1")).await.unwrap();
    for n in 0..5 {
        let theirs = other.write(put("/a", &n.to_string())).await.unwrap();
        let found = tokio::time::timeout(Duration::from_secs(5), store.range(Range::prefix("/"))).await.unwrap().unwrap();
        assert!(found.items.len() == 1 && found.revision >= theirs.revision && store.revision() >= theirs.revision);
    }
    assert_eq!(checker.told(), 1);
    // Both would compact; one does, and both are content.
    let at = store.revision();
    store.compact(at).await.unwrap();
    other.compact(Revision(at.0 - 1)).await.unwrap();
    assert!(matches!(store.range(Range { at: Some(Revision(at.0 - 1)), ..Range::prefix("/") }).await, Err(StoreError::Compacted { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_finds_too_large_is_said_to_be() {
    let Some(etcd) = Etcd::started("etcd_faults::what_etcd_finds_too_large_is_said_to_be") else { return };
    let store = etcd.open().await;
    match store.write(put("/a", &"x".repeat(1_800_000))).await {
        Err(WriteError::TooLarge { size_bytes: 1_800_000, limit_bytes: 1_572_864 }) => {}
        other => panic!("{other:?}"),
    }
    store.write(put("/a", &"x".repeat(1_500_000))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_endpoints_one_that_answers_is_used() {
    let Some(etcd) = Etcd::started("etcd_faults::of_several_endpoints_one_that_answers_is_used") else { return };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options { endpoints: vec![format!("http://{nobody}"), etcd.endpoint()], ..etcd.options() };
    let store = tokio::time::timeout(Duration::from_secs(30), etcd::open(options)).await.unwrap().unwrap();
    store.write(put("/a", "1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_may_ask_for_a_certificate() {
    let Some(etcd) = Etcd::new("etcd_faults::etcd_may_ask_for_a_certificate") else { return };
    let path = |name: &str| etcd.folder.path().join(name);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(path("ca.crt"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    for name in ["server", "client"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        // etcd's gateway is a client of etcd, with the server's certificate.
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
        std::fs::write(path(&format!("{name}.crt")), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let shown = |name: &str| path(name).to_string_lossy().into_owned();
    let flags = [("--cert-file", "server.crt"), ("--key-file", "server.key"), ("--trusted-ca-file", "ca.crt")];
    let mut arguments: Vec<String> = flags.iter().flat_map(|(flag, file)| [(*flag).to_owned(), shown(file)]).collect();
    arguments.push("--client-cert-auth".into());
    let files = [path("ca.crt"), path("client.crt"), path("client.key")].map(Some);
    let mut etcd = etcd.with_arguments(arguments);
    etcd.start();
    let [ca, cert, key] = files;
    let options = Options { ca: ca.clone(), cert, key, ..etcd.options() };
    let store = tokio::time::timeout(Duration::from_secs(30), etcd::open(options)).await.unwrap().unwrap();
    store.write(put("/a", "1")).await.unwrap();
    for stranger in [Options { ca, ..etcd.options() }, etcd.options()] {
        assert!(tokio::time::timeout(Duration::from_secs(2), etcd::open(stranger)).await.is_err());
    }
    let missing = Options { ca: Some("/nowhere/ca.crt".into()), ..etcd.options() };
    assert!(matches!(etcd::open(missing).await, Err(etcd::OpenError::Read { .. })));
}
