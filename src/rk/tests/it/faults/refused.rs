//! The API server refuses what a controller wants to create.
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const POST_PODS: &str = "POST /api/v1/namespaces/default/pods";

async fn count(world: &World, path: &str) -> usize {
    world.list(path).await.len()
}

/// The first tries come within milliseconds, then each takes twice as long: few in some seconds, and hardly any in the next ones.
async fn falls_off(cluster: &Cluster) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first = cluster.tally.of(POST_PODS);
    assert!((3..=30).contains(&first), "{}", cluster.tally.told());
    let next = cluster.writes_within(Duration::from_secs(3)).await;
    assert!(next <= 4, "{next} writes in the next seconds: {}", cluster.tally.told());
}

/// Waits until a pod would be refused: rules of admission act a moment after they were written.
async fn acts(cluster: &Cluster) {
    let mut pod = template("probe", json!({}));
    pod["metadata"]["name"] = json!("probe");
    let refused = async |world: &World| {
        let answer = world.call(http::Method::POST, &format!("{PODS}?dryRun=All"), pod.clone(), "application/json").await;
        answer.is_err().then_some(())
    };
    cluster.wait("pods are refused", refused).await;
}

async fn deployment(name: &str, spec: Value) -> Cluster {
    let cluster = Cluster::start(Clock::system(), &["deployment-controller", "replicaset-controller"]).await;
    cluster.world.create(DEPLOYMENTS, name, spec).await;
    cluster
}

#[test]
fn a_template_that_cannot_run_is_told_and_tried_more_and_more_rarely() {
    block_on(async {
        let cluster = deployment("x", replicas(3, "x", json!({"priorityClassName": "none"}))).await;
        let why = "is forbidden: no PriorityClass with name none was found";
        let (reason, message) = cluster.condition(DEPLOYMENTS, "x", "ReplicaFailure").await;
        assert_eq!(reason, "FailedCreate");
        assert!(message.starts_with("pods \"x-") && message.contains(why), "{message}");
        let event = cluster.event("FailedCreate", why).await;
        assert!(event.starts_with("Error creating: pods \"x-"), "{event}");
        falls_off(&cluster).await;
        // Of the same words there is one event, whose count grows.
        let events = cluster.world.list("/api/v1/namespaces/default/events").await;
        let told: Vec<_> = events.iter().filter(|e| e["reason"] == "FailedCreate").collect();
        assert!(told.len() == 1 && told[0]["count"].as_u64() > Some(3), "{told:?}");
        // Once it can be had, nobody has to say so.
        cluster.world.post("/apis/scheduling.k8s.io/v1/priorityclasses", json!({"metadata": {"name": "none"}, "value": 1})).await;
        cluster.wait("3 pods", async |world: &World| (count(world, PODS).await == 3).then_some(())).await;
    });
}

#[test]
fn a_job_whose_template_cannot_run_is_told_and_tried_more_and_more_rarely() {
    block_on(async {
        let cluster = Cluster::start(Clock::system(), &["job-controller"]).await.with_kubelets();
        let spec = json!({"completions": 3, "parallelism": 3,
            "template": template("x", json!({"restartPolicy": "Never", "priorityClassName": "none"}))});
        cluster.world.create(JOBS, "x", spec).await;
        let event = cluster.event("FailedCreate", "no PriorityClass with name none was found").await;
        assert!(event.starts_with("Error creating: pods \"x-"), "{event}");
        falls_off(&cluster).await;
        cluster.world.post("/apis/scheduling.k8s.io/v1/priorityclasses", json!({"metadata": {"name": "none"}, "value": 1})).await;
        cluster.condition(JOBS, "x", "Complete").await;
    });
}

#[test]
fn a_quota_lets_in_what_it_allows_and_the_rest_follows_when_it_grows() {
    block_on(async {
        let controllers = ["deployment-controller", "replicaset-controller", "resourcequota-controller"];
        let cluster = Cluster::start(Clock::system(), &controllers).await;
        cluster.world.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}})).await;
        let is_counted = async |world: &World| world.get(QUOTAS, "q").await["status"]["used"]["pods"].is_string().then_some(());
        cluster.wait("the quota is counted", is_counted).await;
        cluster.world.create(DEPLOYMENTS, "x", replicas(5, "x", json!({}))).await;
        let why = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
        let (reason, message) = cluster.condition(DEPLOYMENTS, "x", "ReplicaFailure").await;
        assert_eq!((reason.as_str(), message.contains(why)), ("FailedCreate", true), "{message}");
        cluster.event("FailedCreate", why).await;
        falls_off(&cluster).await;
        assert_eq!(count(&cluster.world, PODS).await, 2);
        cluster.world.patch(QUOTAS, "q", json!({"spec": {"hard": {"pods": "5"}}})).await;
        cluster.wait("5 pods", async |world: &World| (count(world, PODS).await == 5).then_some(())).await;
        let settled = async |world: &World| {
            let status = world.get(DEPLOYMENTS, "x").await["status"].clone();
            let fails = status["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "ReplicaFailure");
            (!fails && status["replicas"] == 5).then_some(())
        };
        cluster.wait("no failure is told any more", settled).await;
    });
}

#[test]
fn many_pods_at_once_under_a_quota_are_all_let_in() {
    block_on(async {
        let cluster = Cluster::start(Clock::system(), &["replicaset-controller", "resourcequota-controller"]).await;
        cluster.world.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "400"}}})).await;
        let is_counted = async |world: &World| world.get(QUOTAS, "q").await["status"]["used"]["pods"].is_string().then_some(());
        cluster.wait("the quota is counted", is_counted).await;
        cluster.world.create(REPLICA_SETS, "x", replicas(400, "x", json!({}))).await;
        cluster.wait("400 pods", async |world: &World| (count(world, PODS).await == 400).then_some(())).await;
        assert_eq!(cluster.tally.of(POST_PODS), 400, "none is asked for twice");
        assert_eq!(cluster.world.get(QUOTAS, "q").await["status"]["used"]["pods"], "400");
    });
}

#[test]
fn a_webhook_that_cannot_be_reached_is_told_and_not_overrun() {
    block_on(async {
        let cluster = Cluster::start(Clock::system(), &["deployment-controller", "replicaset-controller"]).await;
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let hook = json!({"name": "hook.example.com", "rules": [rule], "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1,
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:9/"}});
        let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        cluster.world.post(hooks, json!({"metadata": {"name": "h"}, "webhooks": [hook]})).await;
        acts(&cluster).await;
        cluster.world.create(DEPLOYMENTS, "x", replicas(3, "x", json!({}))).await;
        let why = "failed calling webhook \"hook.example.com\"";
        let (reason, message) = cluster.condition(DEPLOYMENTS, "x", "ReplicaFailure").await;
        assert_eq!((reason.as_str(), message.contains(why)), ("FailedCreate", true), "{message}");
        cluster.event("FailedCreate", why).await;
        falls_off(&cluster).await;
    });
}

#[test]
fn a_policy_that_denies_is_told_and_not_overrun() {
    block_on(async {
        let cluster = Cluster::start(Clock::system(), &["deployment-controller", "replicaset-controller"]).await;
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let spec = json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "no pods today"}]});
        let group = "/apis/admissionregistration.k8s.io/v1";
        cluster.world.post(&format!("{group}/validatingadmissionpolicies"), json!({"metadata": {"name": "p"}, "spec": spec})).await;
        let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
        cluster.world.post(&format!("{group}/validatingadmissionpolicybindings"), binding).await;
        acts(&cluster).await;
        cluster.world.create(DEPLOYMENTS, "x", replicas(3, "x", json!({}))).await;
        let why = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no pods today";
        let (reason, message) = cluster.condition(DEPLOYMENTS, "x", "ReplicaFailure").await;
        assert_eq!((reason.as_str(), message.contains(why)), ("FailedCreate", true), "{message}");
        falls_off(&cluster).await;
    });
}
