//! Workload controllers under the three perturbations of Sieve (Sun et al., OSDI 2022), at every API call that each makes.
//!
//! *Crash in the middle*: the controller is dropped before, or right after, its n-th call, and started anew. *Stale view*: from its n-th
//! call on it does not see what becomes of its children, for a while. *Missed event*: a child is deleted while nobody watches, and the
//! watch comes back by a new list. Each time the final state is the same, nothing is created twice, and nothing is left over. Each run has an
//! API server of its own, on a store in memory-backed files; a loop stands in for scheduler and kubelets. `RK_TEST_ALL=1` takes every
//! call, else every third is taken.
mod perturb;
mod world;

use std::time::Duration;

use serde_json::{Value, json};

use self::perturb::How;
use self::world::Scenario;
use crate::world::World;

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn selector(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

/// Pods that are there, by name; those on their way out are waited for.
async fn pods(world: &World) -> Option<Vec<Value>> {
    let pods = world.list("/api/v1/namespaces/default/pods").await;
    let all_stay = pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    all_stay.then_some(pods)
}

fn images(pods: &[Value]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod["spec"]["containers"][0]["image"].as_str()).collect()
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

struct ReplicaSet;

impl Scenario for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    const CHILD: &'static str = "pods";
    const CREATES: usize = 3;

    async fn act(world: &World, step: usize) -> bool {
        match step {
            0 => world.create(REPLICA_SETS, "x", json!({"replicas": 3, "selector": selector("x"), "template": template("x", "a")})).await,
            1 => world.patch(REPLICA_SETS, "x", json!({"spec": {"replicas": 1}})).await,
            _ => return false,
        }
        true
    }

    async fn is_done(world: &World, step: usize) -> bool {
        let wanted = [3, 1][step];
        let status = world.get(REPLICA_SETS, "x").await["status"].clone();
        pods(world).await.is_some_and(|p| p.len() == wanted) && status["replicas"] == wanted && status["readyReplicas"] == wanted
    }
}

struct Deployment;

impl Scenario for Deployment {
    const CONTROLLER: &'static str = "deployment-controller";
    const OTHERS: &'static [&'static str] = &["replicaset-controller"];
    const CHILD: &'static str = "replicasets";
    const CREATES: usize = 2;

    async fn act(world: &World, step: usize) -> bool {
        match step {
            0 => world.create(DEPLOYMENTS, "x", json!({"replicas": 2, "selector": selector("x"), "template": template("x", "a")})).await,
            1 => world.patch(DEPLOYMENTS, "x", json!({"spec": {"template": template("x", "b")}})).await,
            _ => return false,
        }
        true
    }

    async fn is_done(world: &World, step: usize) -> bool {
        let deployment = world.get(DEPLOYMENTS, "x").await;
        let status = &deployment["status"];
        let is_current = status["observedGeneration"] == deployment["metadata"]["generation"];
        let sets = world.list(REPLICA_SETS).await;
        let mut sizes: Vec<_> = sets.iter().filter_map(|set| set["status"]["replicas"].as_u64()).collect();
        sizes.sort_unstable();
        let image = ["a", "b"][step];
        let pods_fit = pods(world).await.is_some_and(|p| images(&p) == [image, image]);
        is_current && status["updatedReplicas"] == 2 && status["availableReplicas"] == 2 && sizes == [&[2][..], &[0, 2]][step] && pods_fit
    }
}

struct StatefulSet;

impl Scenario for StatefulSet {
    const CONTROLLER: &'static str = "statefulset-controller";
    const CHILD: &'static str = "pods";
    // Two pods and their revision; two pods of the second revision, and it.
    const CREATES: usize = 6;

    async fn act(world: &World, step: usize) -> bool {
        let spec = json!({"replicas": 2, "serviceName": "x", "selector": selector("x"), "template": template("x", "a")});
        match step {
            0 => world.create(STATEFUL_SETS, "x", spec).await,
            1 => world.patch(STATEFUL_SETS, "x", json!({"spec": {"template": template("x", "b")}})).await,
            2 => world.patch(STATEFUL_SETS, "x", json!({"spec": {"replicas": 1}})).await,
            _ => return false,
        }
        true
    }

    async fn is_done(world: &World, step: usize) -> bool {
        let set = world.get(STATEFUL_SETS, "x").await;
        let (wanted, image) = [(2, "a"), (2, "b"), (1, "b")][step];
        let is_current = set["status"]["observedGeneration"] == set["metadata"]["generation"];
        let Some(pods) = pods(world).await else { return false };
        let names: Vec<_> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        let settled = set["status"]["currentRevision"] == set["status"]["updateRevision"];
        is_current
            && settled
            && set["status"]["readyReplicas"] == wanted
            && names == ["x-0", "x-1"][..wanted]
            && images(&pods).iter().all(|i| *i == image)
    }
}

struct DaemonSet;

impl Scenario for DaemonSet {
    const CONTROLLER: &'static str = "daemonset-controller";
    const CHILD: &'static str = "pods";
    // A pod for each of three nodes and their revision, twice.
    const CREATES: usize = 8;

    async fn act(world: &World, step: usize) -> bool {
        match step {
            0 => world.create(DAEMON_SETS, "x", json!({"selector": selector("x"), "template": template("x", "a")})).await,
            1 => world.patch(DAEMON_SETS, "x", json!({"spec": {"template": template("x", "b")}})).await,
            _ => return false,
        }
        true
    }

    async fn is_done(world: &World, step: usize) -> bool {
        let set = world.get(DAEMON_SETS, "x").await;
        let is_current = set["status"]["observedGeneration"] == set["metadata"]["generation"];
        let Some(pods) = pods(world).await else { return false };
        let mut nodes: Vec<_> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        nodes.sort_unstable();
        let image = ["a", "b"][step];
        is_current
            && set["status"]["numberReady"] == 3
            && set["status"]["updatedNumberScheduled"] == 3
            && nodes == ["n1", "n2", "n3"]
            && images(&pods) == [image; 3]
    }
}

struct Job;

impl Scenario for Job {
    const CONTROLLER: &'static str = "job-controller";
    const CHILD: &'static str = "pods";
    const CREATES: usize = 3;

    async fn act(world: &World, step: usize) -> bool {
        let mut template = template("x", "a");
        template["spec"]["restartPolicy"] = json!("Never");
        match step {
            0 => world.create(JOBS, "x", json!({"completions": 3, "parallelism": 2, "template": template})).await,
            _ => return false,
        }
        true
    }

    async fn is_done(world: &World, _: usize) -> bool {
        let status = world.get(JOBS, "x").await["status"].clone();
        let is_complete = status["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Complete" && c["status"] == "True");
        let pods = world.list("/api/v1/namespaces/default/pods").await;
        let is_free = pods.iter().all(|pod| pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty));
        let counted = status["uncountedTerminatedPods"].as_object().is_none_or(serde_json::Map::is_empty);
        is_complete && is_free && counted && status["succeeded"] == 3 && status["active"].as_u64().unwrap_or(0) == 0
    }
}

/// Runs undisturbed to count the calls, then once for each of them and each perturbation.
async fn check<S: Scenario>() {
    let calls = world::run::<S>(How::Nothing, 0).await.unwrap_or_else(|why| panic!("{} undisturbed: {why}", S::CONTROLLER));
    assert!(calls > 3, "{calls}");
    let step = if std::env::var_os("RK_TEST_ALL").is_some() { 1 } else { 3 };
    let all = [How::CrashBefore, How::CrashAfter, How::Stale, How::Missed];
    let runs = (1..=calls).step_by(step).flat_map(|at| all.map(|how| (how, at)));
    // Some at a time: each has a server of its own.
    let mut failures = Vec::new();
    let mut queue = futures::stream::StreamExt::buffer_unordered(
        futures::stream::iter(runs.map(|(how, at)| async move { (how, at, tokio::spawn(world::run::<S>(how, at)).await) })),
        6,
    );
    let mut count = 0;
    while let Some((how, at, result)) = futures::stream::StreamExt::next(&mut queue).await {
        count += 1;
        match result {
            Ok(Ok(_)) => {}
            Ok(Err(why)) => failures.push(format!("{how:?} at call {at} of {calls}: {why}")),
            Err(died) => failures.push(format!("{how:?} at call {at} of {calls}: {died}")),
        }
    }
    println!("{}: {calls} calls, {count} runs", S::CONTROLLER);
    assert!(failures.is_empty(), "{}:\n{}", S::CONTROLLER, failures.join("\n"));
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

#[test]
fn a_replicaset_stands_crashes_stale_views_and_missed_events() {
    block_on(check::<ReplicaSet>());
}

#[test]
fn a_deployment_stands_crashes_stale_views_and_missed_events() {
    block_on(check::<Deployment>());
}

#[test]
fn a_statefulset_stands_crashes_stale_views_and_missed_events() {
    block_on(check::<StatefulSet>());
}

#[test]
fn a_daemonset_stands_crashes_stale_views_and_missed_events() {
    block_on(check::<DaemonSet>());
}

#[test]
fn a_job_stands_crashes_stale_views_and_missed_events() {
    block_on(check::<Job>());
}
