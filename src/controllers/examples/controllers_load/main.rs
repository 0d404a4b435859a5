//! Load for workload controllers, at upstream's sizes, on any cluster that a kubeconfig reaches. `tests/bench/controllers.py` starts it.
//!
//! usage: controllers_load KUBECONFIG [--quick] [--bind] [--rounds=10] [--of=LOAD] [--rest=630] [--pids=PID,...] [LOAD ...]
//!
//! Loads: rollout, quota (the same under a ResourceQuota), jobs, cronjobs, namespace, garbage, rounds; all of them unless some are named. Nodes
//! are simulated (`kubelets.rs`). For each load: its time, objects per second, and of the processes with the given ids (the control plane's)
//! seconds on a core, memory at the most, and both again when all is quiet; for rounds also what is left of each. `--bind` gives pods their nodes
//! from here, where the cluster has no scheduler.
mod count;
mod kubelets;
mod loads;
mod usage;

use std::time::{Duration, Instant};

use client::{Client, DeleteOptions, ListOptions, Named};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Namespace};
use serde_json::{Value, json};

use self::usage::{Memory, Processes};

/// Calls under way at once.
pub const MAKERS: usize = 64;
/// Longest time for one step of a load.
pub const PATIENCE: Duration = Duration::from_secs(1200);
/// What a control plane at rest may use of a core, in per cent.
const REST_PERCENT: f64 = 3.0;
/// Seconds after which nothing is kept any more for watches, nor for lists of an older state: rk forgets what is five minutes old, and looks
/// every five minutes.
const REST_SECONDS: u64 = 630;

pub struct Bench {
    pub client: Client,
    pub is_quick: bool,
    pub binds: bool,
    /// Of the load of this name.
    pub rounds: usize,
    /// What each of them does, where it is not a little of everything.
    pub of: String,
    /// Before it is said what is left.
    rest: Duration,
    processes: Processes,
}

/// What there is when nothing is left to be done.
#[derive(Clone, Copy)]
pub struct Left {
    /// Bytes of the heap that are in use, as rk tells them; 0 of others.
    pub used: f64,
    /// Bytes that are resident and no file's.
    pub own: f64,
    pub objects: f64,
}

impl Bench {
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { full }
    }

    /// Does a piece of work on `count` objects and prints what it took.
    pub async fn measure<T>(&self, what: &str, count: usize, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let (cpu, peak, began) = (self.processes.cpu(), self.processes.peak(), Instant::now());
        let result = work.await?;
        let took = began.elapsed().as_secs_f64();
        let cpu = self.processes.cpu() - cpu;
        println!(
            "{what:<44} {took:8.2} s {:8.0} /s   cpu {cpu:7.2} s ({:6.3} ms each)   peak {}",
            count as f64 / took,
            cpu * 1000.0 / count as f64,
            peak.memory(),
        );
        Ok(result)
    }

    /// Waits until nothing is left to be done, then says what that costs; returns the memory.
    pub async fn rest(&self, what: &str) -> anyhow::Result<Memory> {
        let began = Instant::now();
        while self.percent(Duration::from_secs(1)).await > REST_PERCENT {
            if began.elapsed() > Duration::from_secs(180) {
                println!("{what:<44} NOT QUIET after 180 s");
                break;
            }
        }
        let quiet = began.elapsed().as_secs_f64();
        let percent = self.percent(Duration::from_secs(if self.is_quick { 5 } else { 15 })).await;
        let memory = self.processes.memory();
        println!("{what:<44} at rest after {quiet:.0} s: {percent:.2} % of a core, {memory}");
        Ok(memory)
    }

    /// Waits until all has been forgotten that is kept for a time only, then says what is left.
    pub async fn left(&self, what: &str) -> anyhow::Result<Left> {
        self.forget_events().await?;
        tokio::time::sleep(self.rest).await;
        let own = self.rest(what).await?.own as f64;
        let metrics = self.client.bytes(http::Method::GET, "/metrics", Vec::new(), "", "text/plain").await?;
        let metrics = String::from_utf8_lossy(&metrics);
        let sum = |name: &str| -> f64 { metrics.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum() };
        let left = Left { used: sum("rk_heap_bytes{state=\"used\"}"), own, objects: sum("apiserver_resource_objects{") };
        println!("{what:<44} {:.2} MB in use, {} objects", left.used / 1e6, left.objects);
        Ok(left)
    }

    pub async fn forget_events(&self) -> anyhow::Result<()> {
        for namespace in self.client.list::<Namespace>("", &ListOptions::default()).await?.items {
            self.client.delete_collection::<Event>(namespace.name(), &DeleteOptions::default(), &ListOptions::default()).await?;
        }
        Ok(())
    }

    async fn percent(&self, over: Duration) -> f64 {
        let before = self.processes.cpu();
        tokio::time::sleep(over).await;
        (self.processes.cpu() - before) / over.as_secs_f64() * 100.0
    }

    pub async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        self.client.create::<Namespace>(&serde_json::from_value(json!({"metadata": {"name": name}}))?).await?;
        Ok(())
    }

    /// Makes objects side by side.
    pub async fn make<K: client::Kind>(&self, count: usize, object: impl Fn(usize) -> Value) -> anyhow::Result<()> {
        let mut made = futures::stream::iter((0..count).map(|i| {
            let object = object(i);
            async move { self.client.create::<K>(&serde_json::from_value(object)?).await.map(drop).map_err(anyhow::Error::from) }
        }))
        .buffer_unordered(MAKERS);
        while let Some(result) = made.next().await {
            result?;
        }
        Ok(())
    }

    /// The spec of a pod for the simulated nodes.
    pub fn pod_spec(&self, image: &str, restart: &str) -> Value {
        let mut spec = json!({"nodeSelector": {kubelets::LABEL: "node"}, "restartPolicy": restart, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": image}]});
        if self.binds {
            spec["schedulerName"] = json!(kubelets::BINDER);
        }
        spec
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    pki::install_ring();
    let (flags, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let Some((kubeconfig, names)) = words.split_first() else { anyhow::bail!("usage: controllers_load KUBECONFIG [--quick] [--bind] [--pids=PID,...] [LOAD ...]") };
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    let value = |name: &str| flags.iter().find_map(|f| f.strip_prefix(name));
    let ids = value("--pids=").unwrap_or_default();
    let ids = ids.split(',').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let rounds = value("--rounds=").map_or(Ok(10), str::parse)?;
    let rest = Duration::from_secs(value("--rest=").map_or(Ok(REST_SECONDS), str::parse)?);
    let of = value("--of=").unwrap_or_default().to_owned();
    let client = Client::from_kubeconfig(kubeconfig.as_ref()).await?;
    let bench = Bench { client, is_quick: has("--quick"), binds: has("--bind"), rounds, of, rest, processes: Processes::new(ids) };
    bench.rest("before").await?;
    let _kubelets = kubelets::start(&bench.client, bench.size(100, 10)).await?;
    bench.rest("with nodes").await?;
    loads::run(&bench, names).await
}
