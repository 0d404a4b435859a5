//! Workload controllers that cannot have what they want, or whose clock is set: they say so as upstream does, try more and more rarely, do nothing
//! twice, and go on by themselves once they can.
//!
//! API server, admission and authorization are those of a cluster; a loop stands in for scheduler and kubelets. What controllers write is
//! counted, since a busy loop shows nowhere else.
mod clock;
mod lasting;
mod refused;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use apiserver::UserInfo;
use client::{Client, Clock, SharedInformers};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::tally::{Tallied, Tally};
use crate::world::World;

/// Longest time to get to a state.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of some controllers.
struct Cluster {
    world: Arc<World>,
    tally: Tally,
    _tasks: JoinSet<()>,
}

impl Cluster {
    async fn start(clock: Clock, controllers: &[&str]) -> Self {
        let world = Arc::new(World::strict(clock).await);
        world.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        let manager = crate::local::client(&world.server, UserInfo::new("manager", &["system:masters"]));
        let (informers, tally) = (SharedInformers::new(&manager), Tally::default());
        let mut tasks = JoinSet::new();
        for name in controllers {
            let tally = tally.clone();
            let client = move |_: &str, inner| Client::from_service(Tallied { inner, tally: tally.clone() });
            tasks.spawn(controllers::only(name, world.context(informers.clone(), client)).expect("a known controller"));
        }
        Self { world, tally, _tasks: tasks }
    }

    /// Lets pods run and end from now on.
    fn with_kubelets(mut self) -> Self {
        let world = self.world.clone();
        self._tasks.spawn(async move { world.run_pods().await });
        self
    }

    /// Waits until `done` gives something.
    async fn wait<T>(&self, what: &str, done: impl AsyncFn(&World) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = done(&self.world).await {
                return found;
            }
            assert!(tokio::time::Instant::now() < end, "not within {PATIENCE:?}: {what}; written were {}", self.tally.told());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for an event of this reason whose message holds `text`, and returns the message.
    async fn event(&self, reason: &str, text: &str) -> String {
        self.wait(&format!("event {reason} with {text:?}"), async |world: &World| {
            let events = world.list("/api/v1/namespaces/default/events").await;
            let of = |event: &Value| event["message"].as_str().filter(|m| event["reason"] == reason && m.contains(text)).map(str::to_owned);
            events.iter().find_map(of)
        })
        .await
    }

    /// Waits for a condition to be True, and returns its reason and message.
    async fn condition(&self, path: &str, name: &str, kind: &str) -> (String, String) {
        self.wait(&format!("{kind} of {name}"), async |world: &World| {
            let object = world.get(path, name).await;
            let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind && c["status"] == "True")?.clone();
            let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
            Some((text("reason"), text("message")))
        })
        .await
    }

    /// Wakes whoever watches an object, without a change that means anything.
    async fn poke(&self, path: &str, name: &str) {
        static POKES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = POKES.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        self.world.patch(path, name, json!({"metadata": {"annotations": {"poke": number}}})).await;
    }

    /// Calls that changed something, or tried to, in the coming time; events are not counted, which have limits of their own.
    async fn writes_within(&self, time: Duration) -> usize {
        let before = self.tally.writes();
        tokio::time::sleep(time).await;
        self.tally.writes() - before
    }
}

fn template(app: &str, more: Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"labels": {"app": app}}, "spec": spec})
}

fn replicas(count: usize, app: &str, more: Value) -> Value {
    json!({"replicas": count, "selector": {"matchLabels": {"app": app}}, "template": template(app, more)})
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(1));
}
