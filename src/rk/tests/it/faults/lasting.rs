//! What does not pass by itself: rival owners, a namespace that cannot go, a budget that allows nothing.
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn owner(pod: &Value) -> &str {
    pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default()
}

#[test]
fn owners_with_one_selector_keep_to_their_own_and_come_to_rest() {
    block_on(async {
        let cluster = Cluster::start(Clock::system(), &["replicaset-controller", "replicationcontroller-controller"]).await.with_kubelets();
        for name in ["orphan-1", "orphan-2", "orphan-3"] {
            let mut pod = template("x", json!({}));
            pod["metadata"]["name"] = json!(name);
            cluster.world.post(PODS, pod).await;
        }
        let run = async |world: &World| (world.list(PODS).await.iter().filter(|p| p["status"]["phase"] == "Running").count() == 3).then_some(());
        cluster.wait("the orphans run", run).await;
        // The controllers see them, too.
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.world.create(REPLICA_SETS, "one", replicas(3, "x", json!({}))).await;
        cluster.world.create(REPLICA_SETS, "two", replicas(3, "x", json!({}))).await;
        let mut third = replicas(3, "x", json!({}));
        third["selector"] = json!({"app": "x"});
        cluster.world.create(CONTROLLERS, "three", third).await;
        let settled = async |world: &World| {
            let pods = world.list(PODS).await;
            let own = |name: &str| pods.iter().filter(|p| owner(p) == name && p["metadata"]["deletionTimestamp"].is_null()).count();
            (pods.len() == 9 && ["one", "two", "three"].map(own) == [3; 3]).then_some(())
        };
        cluster.wait("each has its three", settled).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(cluster.writes_within(Duration::from_secs(3)).await, 0, "{}", cluster.tally.told());
        cluster.wait("and keeps them", settled).await;
        // The orphans found an owner, so that six were made.
        assert_eq!(cluster.tally.of("POST /api/v1/namespaces/default/pods"), 6, "{}", cluster.tally.told());
    });
}

#[test]
fn a_namespace_that_cannot_go_says_why_and_nobody_fills_it_again() {
    block_on(async {
        let names = [
            "deployment-controller",
            "replicaset-controller",
            "job-controller",
            "statefulset-controller",
            "pod-garbage-collector-controller",
            "namespace-controller",
        ];
        let cluster = Cluster::start(Clock::system(), &names).await;
        let world = &cluster.world;
        world.post("/api/v1/namespaces", json!({"metadata": {"name": "going"}})).await;
        world.post("/api/v1/namespaces/going/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        // Not to be deleted by anybody but us: the namespace's content stays, its owners too.
        let held = |name: &str, spec: Value| json!({"metadata": {"name": name, "finalizers": ["example.com/hold"]}, "spec": spec});
        world.post("/apis/apps/v1/namespaces/going/deployments", held("d", replicas(2, "d", json!({})))).await;
        world.post("/apis/apps/v1/namespaces/going/replicasets", held("r", replicas(2, "r", json!({})))).await;
        let mut set = replicas(2, "s", json!({}));
        set["serviceName"] = json!("s");
        world.post("/apis/apps/v1/namespaces/going/statefulsets", held("s", set)).await;
        let job = json!({"template": template("j", json!({"restartPolicy": "Never"}))});
        world.post("/apis/batch/v1/namespaces/going/jobs", held("j", job)).await;
        let some = async |world: &World| (world.list("/api/v1/namespaces/going/pods").await.len() >= 6).then_some(());
        cluster.wait("pods of all", some).await;
        world.call(http::Method::DELETE, "/api/v1/namespaces/going", Value::Null, "application/json").await.unwrap();
        // Nothing runs, so pods that have no node are gone at once, but for the Job's, which waits to be counted.
        let message = cluster.condition("/api/v1/namespaces", "going", "NamespaceFinalizersRemaining").await.1;
        assert!(message.starts_with("Some content in the namespace has finalizers remaining: "), "{message}");
        cluster
            .wait("what is held is told", async |world: &World| {
                let namespace = world.get("/api/v1/namespaces", "going").await;
                let conditions = namespace["status"]["conditions"].as_array()?;
                conditions.iter().any(|c| c["message"].as_str().is_some_and(|m| m.contains("example.com/hold in 4 resource instances"))).then_some(())
            })
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let next = cluster.writes_within(Duration::from_secs(6)).await;
        assert!(next <= 30, "{next} writes in six seconds: {}", cluster.tally.told());
        assert_eq!(world.list("/api/v1/namespaces/going/pods").await.len(), 0);
        for path in ["apps/v1/namespaces/going/deployments/d", "apps/v1/namespaces/going/replicasets/r", "apps/v1/namespaces/going/statefulsets/s", "batch/v1/namespaces/going/jobs/j"] {
            let (path, name) = path.rsplit_once('/').unwrap();
            world.patch(&format!("/apis/{path}"), name, json!({"metadata": {"finalizers": null}})).await;
        }
        cluster.wait("the namespace goes", async |world: &World| world.get("/api/v1/namespaces", "going").await["metadata"].is_null().then_some(())).await;
    });
}

#[test]
fn a_budget_that_allows_nothing_refuses_evictions_and_costs_nothing() {
    block_on(async {
        let names = ["deployment-controller", "replicaset-controller", "disruption-controller"];
        let cluster = Cluster::start(Clock::system(), &names).await.with_kubelets();
        let world = &cluster.world;
        world.create(DEPLOYMENTS, "x", replicas(3, "x", json!({}))).await;
        let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
        let spec = json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "x"}}});
        world.post(budgets, json!({"metadata": {"name": "b"}, "spec": spec})).await;
        let counted = async |world: &World| (world.get(budgets, "b").await["status"]["currentHealthy"] == 3).then_some(());
        cluster.wait("all are healthy", counted).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = cluster.tally.writes();
        for pod in world.list(PODS).await.iter().cycle().take(30) {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
            let refused = world.call(http::Method::POST, &format!("{PODS}/{name}/eviction"), eviction, "application/json").await.unwrap_err();
            assert_eq!((refused.code(), refused.reason()), (Some(429), "TooManyRequests"));
            assert_eq!(refused.to_string(), "Cannot evict pod as it would violate the pod's disruption budget.");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cluster.tally.writes(), before, "{}", cluster.tally.told());
        // A rolling update is no eviction.
        world.patch(DEPLOYMENTS, "x", json!({"spec": {"template": {"metadata": {"annotations": {"new": "yes"}}}}})).await;
        cluster
            .wait("the update ends", async |world: &World| {
                let status = world.get(DEPLOYMENTS, "x").await["status"].clone();
                (status["observedGeneration"] == 2 && status["updatedReplicas"] == 3 && status["replicas"] == 3 && status["availableReplicas"] == 3).then_some(())
            })
            .await;
    });
}
