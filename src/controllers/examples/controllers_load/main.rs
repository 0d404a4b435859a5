//! Load for workload controllers, at upstream's sizes, on any cluster that a kubeconfig reaches. `tests/bench/controllers.py` starts it.
//!
//! usage: controllers_load KUBECONFIG [--quick] [--bind] [--rounds=10] [--pids=PID,...] [LOAD ...]
//!
//! Loads: rollout, quota (the same under a ResourceQuota), jobs, cronjobs, namespace, garbage, rounds; all of them unless some are named. Nodes are simulated (`kubelets.rs`). For each
//! load: its time, objects per second, and of the processes with the given ids (the control plane's) seconds on a core, memory at the
//! most, and both again when all is quiet. `--bind` gives pods their nodes from here, where the cluster has no scheduler.
mod count;
mod kubelets;
mod loads;
mod usage;

use std::time::{Duration, Instant};

use client::Client;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use self::usage::{Memory, Processes};

/// Calls under way at once.
pub const MAKERS: usize = 64;
/// Longest time for one step of a load.
pub const PATIENCE: Duration = Duration::from_secs(1200);
/// What a control plane at rest may use of a core, in per cent.
const REST_PERCENT: f64 = 3.0;

pub struct Bench {
    pub client: Client,
    pub is_quick: bool,
    pub binds: bool,
    /// Of the load of this name.
    pub rounds: usize,
    processes: Processes,
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
    let ids = flags.iter().find_map(|f| f.strip_prefix("--pids=")).unwrap_or_default();
    let ids = ids.split(',').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let rounds = flags.iter().find_map(|f| f.strip_prefix("--rounds=")).map_or(Ok(10), str::parse)?;
    let client = Client::from_kubeconfig(kubeconfig.as_ref()).await?;
    let bench = Bench { client, is_quick: has("--quick"), binds: has("--bind"), rounds, processes: Processes::new(ids) };
    bench.rest("before").await?;
    let _kubelets = kubelets::start(&bench.client, bench.size(100, 10)).await?;
    bench.rest("with nodes").await?;
    loads::run(&bench, names).await
}
