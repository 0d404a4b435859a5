//! Schedules onto simulated nodes, in the shapes and sizes of upstream's scheduler_perf: API server (SQLite, fsync, admission, RBAC) and
//! scheduler in this process, no kubelet.
//!
//! `cargo run --release -p rk --example scheduler [--quick] [SHAPE ...]`. For each shape, in a process of its own: pods/s created; pods/s
//! bound by a scheduler that has listed all (upstream's runs beside what makes the pods) from the moment that it is let go, with processor
//! time for each pod; pods/s decided where bindings are taken as written; memory (RSS), and the share of a core used once all is done.
//! Aims: 8,000 pods/s for Basic, five times upstream's CI threshold for the others (test/integration/scheduler_perf, v1.37). `Limits`
//! measures what bounds them: durable writes of the store alone, and bindings that nobody decides on.
mod limits;
#[path = "../../src/server/local.rs"]
mod local;
mod shapes;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use apiserver::auth::{Authentication, Authorization, Tokens};
use apiserver::{ApiServer, Cache, NodeDialer, NodeStream, Parts, UserInfo};
use client::{Client, Clock, ObjectKey};
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde_json::{Value, json};

use self::limits::Unwritten;
use self::shapes::{NAMESPACES, Shape, shapes};
use self::usage::{Usage, quiet};

/// Calls under way at once while objects are made.
const MAKERS: usize = 64;
/// Bindings under way at once, as the scheduler has them.
const BINDINGS: usize = 512;
const LIMITS: &str = "Limits";
/// Who gets nothing done for so long has come to a halt.
const HALT: Duration = Duration::from_secs(20);

struct NoKubelets;

impl NodeDialer for NoKubelets {
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn NodeStream>>> {
        Box::pin(async move { Err(std::io::Error::other(format!("{node} is not real"))) })
    }
}

async fn api_server(folder: &Path) -> anyhow::Result<(ApiServer, Cache)> {
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
        cache: cache.clone(),
    };
    let api = ApiServer::new(apiserver::Config::default(), parts);
    api.start().await?;
    Ok((api, cache))
}

/// Makes objects side by side; seconds that it took.
async fn make<K: client::Kind>(client: &Client, count: usize, object: impl Fn(usize) -> Value) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut made = futures::stream::iter((0..count).map(|i| {
        let (client, object) = (client.clone(), object(i));
        async move { client.create::<K>(&serde_json::from_value(object)?).await.map(drop).map_err(anyhow::Error::from) }
    }))
    .buffer_unordered(MAKERS);
    while let Some(result) = tokio::time::timeout(HALT, made.next()).await.map_err(|_| anyhow::anyhow!("no {} is made any more", K::KIND))? {
        result?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Counts the pods that get a node, of those whose names begin with `prefix`, as the API server's cache takes it in: before anybody is told.
/// Lasts for as long as the API server.
struct Bound {
    count: Arc<AtomicUsize>,
    changed: Arc<tokio::sync::Notify>,
}

impl Bound {
    fn new(cache: &Cache, prefix: &'static str) -> anyhow::Result<Self> {
        let (count, changed): (Arc<AtomicUsize>, Arc<tokio::sync::Notify>) = Default::default();
        let (seen, told) = (count.clone(), changed.clone());
        let pods = cache.resource("", "v1", "pods").and_then(|pods| cache.kind(&pods)).ok_or_else(|| anyhow::anyhow!("no pods"))?;
        cache.listen(
            pods,
            Box::new(move |change| {
                let has_node = !change.deleted && !change.object.field("spec.nodeName").is_empty();
                let is_new = change.previous.as_ref().is_some_and(|p| p.field("spec.nodeName").is_empty());
                if has_node && is_new && change.object.name().starts_with(prefix) {
                    seen.fetch_add(1, Ordering::Relaxed);
                    told.notify_one();
                }
            }),
        );
        Ok(Self { count, changed })
    }

    async fn reach(&self, wanted: usize, view: &View) -> anyhow::Result<()> {
        reach(&self.count, &self.changed, wanted, view).await
    }
}

/// What there is to see of a scheduler and the API server that comes to a halt.
struct View {
    admin: Client,
    pending: scheduler::Pending,
}

impl View {
    async fn told(&self) -> String {
        let page = self.admin.bytes(http::Method::GET, "/metrics", Vec::new(), "", "text/plain").await;
        let page = page.map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
        let of_interest = |line: &&str| ["inflight", "inqueue", "executing", "longrunning", "watch", "store"].iter().any(|word| line.contains(word));
        let lines = page.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).filter(of_interest);
        format!("{}{}", self.pending.page(), lines.collect::<Vec<_>>().join("\n"))
    }
}

fn scheduler(client: Client) -> anyhow::Result<scheduler::Scheduler> {
    Ok(scheduler::Scheduler::new(client, Clock::system(), &scheduler::SchedulerConfig::default())?)
}

fn user() -> UserInfo {
    UserInfo::new("system:kube-scheduler", &["system:authenticated"])
}

/// Pods decided per second where no binding is written.
async fn decisions(api: &ApiServer, pods: usize) -> anyhow::Result<f64> {
    let (bindings, told): (Arc<AtomicUsize>, Arc<tokio::sync::Notify>) = Default::default();
    let unwritten = Unwritten { api: api.local(user()), bindings: bindings.clone(), told: told.clone() };
    let scheduler = scheduler(Client::within(unwritten).sharing(local::held(api)))?;
    let view = View { admin: Client::within(api.local(UserInfo::new("system:admin", &["system:masters"]))), pending: scheduler.pending() };
    scheduler.synced().await;
    quiet().await?;
    let began = Instant::now();
    let running = tokio::spawn(scheduler.run());
    reach(&bindings, &told, pods, &view).await?;
    let rate = pods as f64 / began.elapsed().as_secs_f64();
    running.abort();
    Ok(rate)
}

async fn reach(count: &AtomicUsize, changed: &tokio::sync::Notify, wanted: usize, view: &View) -> anyhow::Result<()> {
    loop {
        let now = count.load(Ordering::Relaxed);
        if now >= wanted {
            return Ok(());
        }
        let woken = tokio::time::timeout(HALT, changed.notified()).await;
        if woken.is_err() && count.load(Ordering::Relaxed) == now {
            anyhow::bail!("none in {HALT:?}, and only {now} of {wanted} pods are bound:\n{}", view.told().await);
        }
    }
}

async fn in_folder<T>(name: &str, work: impl AsyncFnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let folder = std::path::PathBuf::from(format!("/var/tmp/rk-scheduler-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = work(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    result
}

struct Cluster {
    api: ApiServer,
    cache: Cache,
    admin: Client,
    /// Made per second.
    nodes_rate: f64,
}

/// An API server with what the shapes need.
async fn cluster(folder: &Path, nodes: usize) -> anyhow::Result<Cluster> {
    let (api, cache) = api_server(folder).await?;
    let admin = Client::within(api.local(UserInfo::new("system:admin", &["system:masters"])));
    make::<Namespace>(&admin, 2, |i| json!({"metadata": {"name": NAMESPACES[i]}})).await?;
    for name in NAMESPACES {
        let account = json!({"metadata": {"name": "default", "namespace": name}});
        admin.create(&serde_json::from_value::<k8s_openapi::api::core::v1::ServiceAccount>(account)?).await?;
    }
    let class = json!({"metadata": {"name": "high"}, "value": 10});
    admin.create(&serde_json::from_value::<k8s_openapi::api::scheduling::v1::PriorityClass>(class)?).await?;
    let took = make::<Node>(&admin, nodes, shapes::node).await?;
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
    Ok(Cluster { api, cache, admin, nodes_rate: nodes as f64 / took })
}

async fn measure(folder: &Path, shape: &Shape, divisor: usize) -> anyhow::Result<()> {
    let [nodes, before, measured] = shape.sizes.map(|n| n.div_ceil(divisor));
    let Cluster { api, cache, admin, nodes_rate } = cluster(folder, nodes).await?;
    let local = || local::client(&api, user());
    let first = scheduler(local())?;
    let view = View { admin: admin.clone(), pending: first.pending() };
    let first = tokio::spawn(first.run());
    let there = Bound::new(&cache, shapes::prefix(shape.before))?;
    make::<Pod>(&admin, before, |i| (shape.before)(i)).await?;
    if shape.stuck {
        quiet().await?;
    } else {
        there.reach(before, &view).await?;
    }
    first.abort();
    tracing::info!("{before} pods are there");
    let took = make::<Pod>(&admin, measured, |i| (shape.measured)(before + i)).await?;
    tracing::info!("{measured} pods are made");
    let decided = if shape.preempts { String::new() } else { format!("{:.0} decided, ", decisions(&api, measured).await?) };
    let second = scheduler(local())?;
    let view = View { admin: admin.clone(), pending: second.pending() };
    second.synced().await;
    quiet().await?;
    tracing::info!("{measured} pods wait, and are listed");
    let bound = Bound::new(&cache, shapes::prefix(shape.measured))?;
    let start = Usage::now()?;
    let began = Instant::now();
    let second = tokio::spawn(second.run());
    bound.reach(measured, &view).await?;
    let rate = measured as f64 / began.elapsed().as_secs_f64();
    let end = Usage::now()?;
    quiet().await?;
    let rest = Usage::now()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "{:<17} {nodes} nodes, {before} + {measured} pods: {rate:>6.0} pods/s bound (aim {:.0}: {}), {} us of CPU each; {decided}{:.0} pods/s \
         created, {nodes_rate:.0} nodes/s; {} MB, idle {:.1} % of a core",
        shape.name,
        shape.aim,
        if rate >= shape.aim { "met" } else { "MISSED" },
        end.cpu_since(&start).as_micros() / measured as u128,
        measured as f64 / took,
        end.resident_mb(),
        Usage::now()?.cores_since(&rest) * 100.0,
    );
    second.abort();
    api.shut_down().await;
    Ok(())
}

async fn limits(folder: &Path, divisor: usize) -> anyhow::Result<()> {
    let writes = limits::store_writes(folder, MAKERS).await?;
    let (nodes, pods) = (5000 / divisor, 10_000 / divisor);
    let Cluster { api, admin, .. } = cluster(folder, nodes).await?;
    make::<Pod>(&admin, pods, shapes::plain).await?;
    let (bindings, each) = limits::bindings(&admin, nodes, BINDINGS).await?;
    println!("{:<17} {writes:.0} durable writes/s with {MAKERS} writers; {bindings:.0} bindings/s alone, {} us of CPU each", LIMITS, each.as_micros());
    api.shut_down().await;
    Ok(())
}

async fn run(name: &str, divisor: usize) -> anyhow::Result<()> {
    if name == LIMITS {
        return in_folder(name, async |folder| limits(folder, divisor).await).await;
    }
    let all = shapes();
    let shape = all.iter().find(|s| s.name == name).ok_or_else(|| anyhow::anyhow!("no shape {name}"))?;
    in_folder(name, async |folder| measure(folder, shape, divisor).await).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    pki::install_ring();
    let (flags, mut names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    if let [one] = names.as_slice() {
        return run(one, if flags.iter().any(|f| f == "--quick") { 10 } else { 1 }).await;
    }
    if names.is_empty() {
        names.extend(shapes().iter().map(|s| s.name.to_owned()).chain([LIMITS.to_owned()]));
    }
    for name in names {
        let status = tokio::process::Command::new(std::env::current_exe()?).args(&flags).arg(name).status().await?;
        anyhow::ensure!(status.success(), "{status}");
    }
    Ok(())
}
