//! Schedules onto simulated nodes, in the shapes and sizes of upstream's scheduler_perf: API server (SQLite, fsync, admission, RBAC) and
//! scheduler in this process, no kubelet.
//!
//! `cargo run --release -p rk --example scheduler [--quick] [SHAPE ...]`. For each shape: the rate of creating pods alone, and the rate of
//! pods bound from the moment that the scheduler is started on them. Aims: 8,000 pods/s for Basic, five times upstream's CI threshold for
//! the others (test/integration/scheduler_perf, v1.37).
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use apiserver::auth::{Authentication, Authorization, Tokens};
use apiserver::{ApiServer, Cache, NodeDialer, NodeStream, Parts, UserInfo};
use client::{Client, Clock, Informer, ObjectKey};
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde_json::{Value, json};

const NAMESPACES: [&str; 2] = ["sched-0", "sched-1"];
/// Calls under way at once while objects are made.
const MAKERS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(600);

struct Shape {
    name: &'static str,
    /// Nodes, pods that are there before, pods that are measured.
    sizes: [usize; 3],
    aim: f64,
    before: fn(usize) -> Value,
    measured: fn(usize) -> Value,
    /// How many of the pods that were there before stay unbound.
    stuck: bool,
}

fn shapes() -> Vec<Shape> {
    let shape = |name, sizes, aim, before, measured| Shape { name, sizes, aim, before, measured, stuck: false };
    vec![
        shape("SchedulingBasic", [5000, 1000, 10_000], 8000.0, plain, plain),
        shape("PodAntiAffinity", [5000, 1000, 2000], 900.0, apart, apart),
        shape("TopologySpreading", [5000, 5000, 5000], 2300.0, plain, spread),
        shape("PreferredAffinity", [5000, 5000, 5000], 800.0, near, near),
        shape("Preemption", [5000, 20_000, 5000], 2850.0, low, high),
        Shape { stuck: true, ..shape("Unschedulable", [5000, 100, 10_000], 2950.0, huge, plain) },
    ]
}

fn pod(name: String, namespace: &str, mut spec: Value, cpu: &str, memory: &str) -> Value {
    let requests = json!({"cpu": cpu, "memory": memory});
    spec["containers"] = json!([{"name": "pause", "image": "registry.k8s.io/pause:3.10.2", "ports": [{"containerPort": 80}],
        "resources": {"requests": requests, "limits": requests}}]);
    let labels = json!({"color": "green"});
    json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec})
}

fn plain(i: usize) -> Value {
    pod(format!("pod-{i}"), NAMESPACES[1], json!({}), "100m", "500Mi")
}

fn term() -> Value {
    json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"color": "green"}}, "namespaces": NAMESPACES})
}

fn apart(i: usize) -> Value {
    let spec = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term()]}}});
    pod(format!("apart-{i}"), NAMESPACES[i % 2], spec, "100m", "500Mi")
}

fn near(i: usize) -> Value {
    let preferred = json!([{"weight": 1, "podAffinityTerm": term()}]);
    let spec = json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}});
    pod(format!("near-{i}"), NAMESPACES[i % 2], spec, "100m", "500Mi")
}

fn spread(i: usize) -> Value {
    let constraint = json!({"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "green"}}});
    pod(format!("spread-{i}"), NAMESPACES[1], json!({"topologySpreadConstraints": [constraint]}), "100m", "500Mi")
}

fn low(i: usize) -> Value {
    pod(format!("low-{i}"), NAMESPACES[1], json!({"terminationGracePeriodSeconds": 0}), "900m", "500Mi")
}

fn high(i: usize) -> Value {
    pod(format!("high-{i}"), NAMESPACES[1], json!({"priority": 10, "priorityClassName": "high"}), "3000m", "500Mi")
}

fn huge(i: usize) -> Value {
    pod(format!("huge-{i}"), NAMESPACES[0], json!({}), "9", "500Mi")
}

fn node(i: usize) -> Value {
    let labels = json!({"kubernetes.io/hostname": format!("node-{i}"), "topology.kubernetes.io/zone": format!("moon-{}", i % 3)});
    let capacity = json!({"pods": "110", "cpu": "4", "memory": "32Gi"});
    let status = json!({"capacity": capacity, "allocatable": capacity, "conditions": [{"type": "Ready", "status": "True"}]});
    json!({"metadata": {"name": format!("node-{i}"), "labels": labels}, "status": status})
}

struct NoKubelets;

impl NodeDialer for NoKubelets {
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn NodeStream>>> {
        Box::pin(async move { Err(std::io::Error::other(format!("{node} is not real"))) })
    }
}

async fn api_server(folder: &std::path::Path) -> anyhow::Result<ApiServer> {
    let store: Arc<dyn store::Store> = Arc::new(store::sqlite::open(&folder.join("state.db"), store::sqlite::Options::default())?);
    let cache = Cache::start(&store).await?;
    let issuer = "https://kubernetes.default.svc";
    pki::Cluster::load_or_create(&folder.join("tls"), issuer, SystemTime::now())?;
    let signer = Arc::new(pki::ServiceAccountSigner::load_or_create(&folder.join("tls/service.key"), issuer)?);
    let authorization = Arc::new(Authorization::new(&cache));
    let parts = Parts {
        store,
        authenticator: Arc::new(Authentication::new(cache.clone(), signer.verifier())),
        admission: Arc::new(apiserver::admission::Plugins::new(&cache, authorization.clone())),
        authorizer: authorization,
        tokens: Arc::new(Tokens::new(signer, String::new())),
        nodes: Arc::new(NoKubelets),
        extensions: Vec::new(),
        audit: None,
        cache,
    };
    let api = ApiServer::new(apiserver::Config::default(), parts);
    api.start().await?;
    Ok(api)
}

/// Makes objects side by side; seconds that it took.
async fn make<K: client::Kind>(client: &Client, count: usize, object: impl Fn(usize) -> Value) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut made = futures::stream::iter((0..count).map(|i| {
        let (client, object) = (client.clone(), object(i));
        async move { client.create::<K>(&serde_json::from_value(object)?).await.map(drop).map_err(anyhow::Error::from) }
    }))
    .buffer_unordered(MAKERS);
    while let Some(result) = made.next().await {
        result?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Counts the pods that have a node, of those whose names begin with `prefix`.
struct Bound {
    count: Arc<AtomicUsize>,
    changed: Arc<tokio::sync::Notify>,
    _informer: Informer<Pod>,
}

impl Bound {
    fn new(client: &Client, prefix: &'static str) -> Self {
        let slim = |pod: &mut Pod| {
            pod.spec = None;
            pod.status = None;
            pod.metadata.managed_fields = None;
        };
        let informer = Informer::<Pod>::builder(client).fields("spec.nodeName!=").project(slim).start();
        let (count, changed): (Arc<AtomicUsize>, Arc<tokio::sync::Notify>) = Default::default();
        let (seen, told) = (count.clone(), changed.clone());
        let guard = informer.on_event(move |event| {
            let is_ours = event.object().metadata.name.as_ref().is_some_and(|n| n.starts_with(prefix));
            if is_ours && matches!(event, client::Event::Added(_)) {
                seen.fetch_add(1, Ordering::Relaxed);
                told.notify_one();
            }
        });
        guard.forever();
        Self { count, changed, _informer: informer }
    }

    async fn reach(&self, wanted: usize) -> anyhow::Result<()> {
        let all = async {
            while self.count.load(Ordering::Relaxed) < wanted {
                self.changed.notified().await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, all).await;
        done.map_err(|_| anyhow::anyhow!("only {} of {wanted} pods were bound", self.count.load(Ordering::Relaxed)))
    }
}

fn scheduler(api: &ApiServer) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let client = Client::from_service(api.local(UserInfo::new("system:kube-scheduler", &["system:authenticated"])));
    let scheduler = scheduler::Scheduler::new(client, Clock::system(), &scheduler::SchedulerConfig::default())?;
    Ok(tokio::spawn(scheduler.run()))
}

async fn measure(shape: &Shape, divisor: usize) -> anyhow::Result<()> {
    let folder = std::path::PathBuf::from(format!("/var/tmp/rk-scheduler-{}-{}", std::process::id(), shape.name));
    std::fs::create_dir_all(&folder)?;
    let result = measure_in(&folder, shape, divisor).await;
    std::fs::remove_dir_all(&folder)?;
    result
}

fn prefix(make: fn(usize) -> Value) -> &'static str {
    let name = make(0)["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let end = name.rfind('-').map_or(name.len(), |i| i + 1);
    ["pod-", "apart-", "near-", "spread-", "low-", "high-", "huge-"].into_iter().find(|p| *p == &name[..end]).unwrap_or("")
}

async fn measure_in(folder: &std::path::Path, shape: &Shape, divisor: usize) -> anyhow::Result<()> {
    let [nodes, before, measured] = shape.sizes.map(|n| n.div_ceil(divisor));
    let api = api_server(folder).await?;
    let admin = Client::from_service(api.local(UserInfo::new("system:admin", &["system:masters"])));
    make::<Namespace>(&admin, 2, |i| json!({"metadata": {"name": NAMESPACES[i]}})).await?;
    for name in NAMESPACES {
        let account = json!({"metadata": {"name": "default", "namespace": name}});
        admin.create(&serde_json::from_value::<k8s_openapi::api::core::v1::ServiceAccount>(account)?).await?;
    }
    let class = json!({"metadata": {"name": "high"}, "value": 10});
    admin.create(&serde_json::from_value::<k8s_openapi::api::scheduling::v1::PriorityClass>(class)?).await?;
    let nodes_took = make::<Node>(&admin, nodes, node).await?;
    // The API server gives new nodes a taint until somebody says that they are ready.
    futures::stream::iter(0..nodes)
        .for_each_concurrent(MAKERS, |i| {
            let admin = admin.clone();
            async move {
                let patch = client::Patch::Merge(json!({"spec": {"taints": null}}));
                let _ = admin.patch::<Node>(&ObjectKey::cluster(format!("node-{i}")), &patch).await;
            }
        })
        .await;
    let first = scheduler(&api)?;
    let there = Bound::new(&admin, prefix(shape.before));
    make::<Pod>(&admin, before, |i| (shape.before)(i)).await?;
    if shape.stuck {
        tokio::time::sleep(Duration::from_secs(3)).await;
    } else {
        there.reach(before).await?;
    }
    first.abort();
    drop(there);
    let offset = before;
    let took = make::<Pod>(&admin, measured, |i| (shape.measured)(offset + i)).await?;
    let bound = Bound::new(&admin, prefix(shape.measured));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let already = bound.count.load(Ordering::Relaxed);
    let began = Instant::now();
    let second = scheduler(&api)?;
    bound.reach(already + measured).await?;
    let rate = measured as f64 / began.elapsed().as_secs_f64();
    let met = if rate >= shape.aim { "met" } else { "MISSED" };
    println!(
        "{:<18} {nodes} nodes, {before} + {measured} pods: {rate:>6.0} pods/s bound (aim {:.0}: {met}); created {:.0} pods/s, {:.0} nodes/s",
        shape.name,
        shape.aim,
        measured as f64 / took,
        nodes as f64 / nodes_took,
    );
    second.abort();
    api.shut_down().await;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    pki::install_ring();
    let (flags, names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let divisor = if flags.iter().any(|f| f == "--quick") { 10 } else { 1 };
    for shape in shapes().iter().filter(|s| names.is_empty() || names.iter().any(|n| n == s.name)) {
        measure(shape, divisor).await?;
    }
    Ok(())
}
