//! Controllers of workloads, and of what limits, scales and ends them.
use serde_json::{Value, json};

use super::scenario::{Act, Scenario, Until, count, looks, merge, post, step};
use crate::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/x";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const REPLICA_SET: &str = "/apis/apps/v1/namespaces/default/replicasets/x";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/default/statefulsets/x";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/default/daemonsets/x";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const JOB: &str = "/apis/batch/v1/namespaces/default/jobs/x";
const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const CRON_JOB: &str = "/apis/batch/v1/namespaces/default/cronjobs/x";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const AUTOSCALER: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/x";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const BUDGET: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/x";

/// A pod's template; it needs no grace where nothing runs.
fn template(image: &str, more: Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"labels": {"app": "x"}}, "spec": spec})
}

fn new_image(image: &str) -> Value {
    json!({"spec": {"template": template(image, json!({}))}})
}

fn object(spec: Value) -> Value {
    json!({"metadata": {"name": "x"}, "spec": spec})
}

fn set(replicas: usize) -> Value {
    object(json!({"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template("a", json!({}))}))
}

/// So many pods, none on its way out, all of this image.
fn pods(images: &'static str) -> Until {
    let holds: for<'a> fn(&'a World) -> futures::future::BoxFuture<'a, bool> = match images {
        "a" => |world| Box::pin(pods_are(world, "a")),
        "aa" => |world| Box::pin(pods_are(world, "aa")),
        "aaa" => |world| Box::pin(pods_are(world, "aaa")),
        "aaaa" => |world| Box::pin(pods_are(world, "aaaa")),
        "b" => |world| Box::pin(pods_are(world, "b")),
        "bb" => |world| Box::pin(pods_are(world, "bb")),
        "bbb" => |world| Box::pin(pods_are(world, "bbb")),
        other => panic!("{other} is not in the list"),
    };
    Until::Holds(holds)
}

/// One letter for each.
async fn pods_are(world: &World, images: &str) -> bool {
    let pods = world.list(PODS).await;
    let found: String = pods.iter().filter_map(|pod| pod["spec"]["containers"][0]["image"].as_str()).collect();
    found == images && pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null())
}

/// The status is that of the newest spec.
fn is_current(world: &World, path: &'static str) -> impl Future<Output = bool> + Send {
    let reads = super::scenario::read(world, path);
    async move {
        let object = reads.await;
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
    }
}

pub fn replica_set() -> Scenario {
    let status = |n: usize| looks(REPLICA_SET, json!({"status": {"replicas": n, "readyReplicas": n}}));
    Scenario {
        controller: "replicaset-controller",
        seen: &["pods", "replicasets"],
        makes: &[PODS],
        creates: 3,
        missed: Some(Act::TakePod),
        steps: vec![
            step([post(REPLICA_SETS, set(3))], [pods("aaa"), status(3)]),
            step([merge(REPLICA_SET, json!({"spec": {"replicas": 1}}))], [pods("a"), status(1)]),
        ],
        ..Scenario::default()
    }
}

/// Two pods are there already and have no owner.
pub fn adoption() -> Scenario {
    let orphan = |name: &str| {
        let mut pod = template("a", json!({}));
        pod["metadata"]["name"] = json!(name);
        post(PODS, pod)
    };
    let status = looks(REPLICA_SET, json!({"status": {"replicas": 3, "readyReplicas": 3}}));
    Scenario {
        controller: "replicaset-controller",
        seen: &["pods", "replicasets"],
        makes: &[PODS],
        creates: 1,
        // A set that is seen before its orphans makes more pods than it needs, and takes any of them back.
        before: vec![orphan("one"), orphan("two")],
        steps: vec![step([post(REPLICA_SETS, set(3))], [pods("aaa"), status])],
        ..Scenario::default()
    }
}

pub fn replication() -> Scenario {
    let controller = object(json!({"replicas": 2, "selector": {"app": "x"}, "template": template("a", json!({}))}));
    let path = "/api/v1/namespaces/default/replicationcontrollers/x";
    let status = |n: usize| looks(path, json!({"status": {"replicas": n, "readyReplicas": n}}));
    Scenario {
        controller: "replicationcontroller-controller",
        seen: &["pods", "replicationcontrollers"],
        makes: &[PODS],
        creates: 3,
        missed: Some(Act::TakePod),
        steps: vec![
            step([post(CONTROLLERS, controller)], [pods("aa"), status(2)]),
            step([merge(path, json!({"spec": {"replicas": 3}}))], [pods("aaa"), status(3)]),
        ],
        ..Scenario::default()
    }
}

pub fn deployment() -> Scenario {
    let status = |sizes| looks(DEPLOYMENT, json!({"status": {"replicas": sizes, "updatedReplicas": sizes, "availableReplicas": sizes}}));
    let current = || Until::Holds(|world| Box::pin(is_current(world, DEPLOYMENT)));
    Scenario {
        controller: "deployment-controller",
        others: &["replicaset-controller"],
        seen: &["replicasets", "deployments"],
        makes: &[REPLICA_SETS],
        creates: 2,
        missed: Some(Act::TakePod),
        steps: vec![
            step([post(DEPLOYMENTS, set(2))], [pods("aa"), status(2), current()]),
            step([merge(DEPLOYMENT, new_image("b"))], [pods("bb"), status(2), current()]),
            // Back to a set that is there.
            step([merge(DEPLOYMENT, new_image("a"))], [pods("aa"), status(2), current()]),
        ],
        ..Scenario::default()
    }
}

/// All old pods go before the first new one comes.
pub fn recreation() -> Scenario {
    let mut wanted = set(2);
    wanted["spec"]["strategy"] = json!({"type": "Recreate"});
    let status = || looks(DEPLOYMENT, json!({"status": {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}}));
    Scenario {
        controller: "deployment-controller",
        others: &["replicaset-controller"],
        seen: &["replicasets", "pods"],
        makes: &[REPLICA_SETS],
        creates: 2,
        steps: vec![
            step([post(DEPLOYMENTS, wanted)], [pods("aa"), status()]),
            step([merge(DEPLOYMENT, new_image("b"))], [pods("bb"), status()]),
        ],
        ..Scenario::default()
    }
}

pub fn stateful_set() -> Scenario {
    let mut wanted = set(2);
    wanted["spec"]["serviceName"] = json!("x");
    let settled = || {
        Until::Holds(|world| {
            Box::pin(async move {
                let set = super::scenario::read(world, STATEFUL_SET).await;
                set["status"]["currentRevision"] == set["status"]["updateRevision"] && set["status"]["observedGeneration"] == set["metadata"]["generation"]
            })
        })
    };
    let ready = |n: usize| looks(STATEFUL_SET, json!({"status": {"readyReplicas": n, "replicas": n}}));
    let named = |name: &str| looks(PODS, json!({"items": [{"metadata": {"name": name}}]}));
    Scenario {
        controller: "statefulset-controller",
        seen: &["pods", "statefulsets", "controllerrevisions"],
        makes: &[PODS, REVISIONS],
        // Two pods and their revision; two pods of the second revision, and it.
        creates: 6,
        // Its pods are looked for by version and name, not counted.
        missed: Some(Act::TakeUnseenPod),
        steps: vec![
            step([post(STATEFUL_SETS, wanted)], [pods("aa"), ready(2), settled()]),
            step([merge(STATEFUL_SET, new_image("b"))], [pods("bb"), ready(2), settled()]),
            step([merge(STATEFUL_SET, json!({"spec": {"replicas": 1}}))], [pods("b"), named("x-0"), ready(1), settled()]),
        ],
        ..Scenario::default()
    }
}

pub fn daemon_set() -> Scenario {
    let wanted = object(json!({"selector": {"matchLabels": {"app": "x"}}, "template": template("a", json!({}))}));
    let status = |n: usize| looks(DAEMON_SET, json!({"status": {"numberReady": n, "updatedNumberScheduled": n, "desiredNumberScheduled": n}}));
    let current = || Until::Holds(|world| Box::pin(is_current(world, DAEMON_SET)));
    let on = |node: &str| looks(PODS, json!({"items": [{"spec": {"nodeName": node}}]}));
    let node = json!({"metadata": {"name": "n4"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    Scenario {
        controller: "daemonset-controller",
        seen: &["pods", "daemonsets", "nodes", "controllerrevisions"],
        makes: &[PODS, REVISIONS],
        // A pod for each of three nodes and their revision, twice; and one for the node that comes.
        creates: 9,
        missed: Some(Act::TakePod),
        steps: vec![
            step([post(DAEMON_SETS, wanted)], [pods("aaa"), status(3), current(), on("n1"), on("n2"), on("n3")]),
            step([merge(DAEMON_SET, new_image("b"))], [pods("bbb"), status(3), current(), on("n1"), on("n2"), on("n3")]),
            step([post("/api/v1/nodes", node)], [count(PODS, 4), status(4), current(), on("n4")]),
        ],
        ..Scenario::default()
    }
}

fn ended() -> Vec<Until> {
    let complete = looks(JOB, json!({"status": {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 3}}));
    let counted = Until::Holds(|world| {
        Box::pin(async move {
            let status = super::scenario::read(world, JOB).await["status"].clone();
            let all = world.list(PODS).await;
            let is_free = all.iter().all(|pod| pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty));
            let uncounted = status["uncountedTerminatedPods"].as_object().is_none_or(serde_json::Map::is_empty);
            is_free && uncounted && status["active"].as_u64().unwrap_or(0) == 0
        })
    });
    vec![complete, counted]
}

fn new_job(more: Value) -> Value {
    let mut spec = json!({"completions": 3, "parallelism": 2, "template": template("a", json!({"restartPolicy": "Never"}))});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    object(spec)
}

pub fn job() -> Scenario {
    Scenario {
        controller: "job-controller",
        seen: &["pods", "jobs"],
        makes: &[PODS],
        creates: 3,
        missed: Some(Act::TakePod),
        steps: vec![step([post(JOBS, new_job(json!({})))], ended())],
        ..Scenario::default()
    }
}

/// Suspended at first; each index is done once.
pub fn indexed_job() -> Scenario {
    let suspended = looks(JOB, json!({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}));
    let mut until = ended();
    until.push(looks(JOB, json!({"status": {"completedIndexes": "0-2"}})));
    Scenario {
        controller: "job-controller",
        seen: &["pods", "jobs"],
        makes: &[PODS],
        creates: 3,
        steps: vec![
            step([post(JOBS, new_job(json!({"completionMode": "Indexed", "suspend": true})))], [suspended, count(PODS, 0)]),
            step([merge(JOB, json!({"spec": {"suspend": false}}))], until),
        ],
        ..Scenario::default()
    }
}

pub fn cron_job() -> Scenario {
    let job = json!({"spec": {"template": template("a", json!({"restartPolicy": "Never"}))}});
    let wanted = object(json!({"schedule": "0 0 1 1 *", "jobTemplate": job}));
    // It has missed the first of January.
    let missed = json!({"status": {"lastScheduleTime": "2024-06-01T00:00:00Z"}});
    let done = Until::Holds(|world| {
        Box::pin(async move {
            let status = super::scenario::read(world, CRON_JOB).await["status"].clone();
            status["lastSuccessfulTime"].is_string() && status["active"].as_array().is_none_or(Vec::is_empty)
        })
    });
    Scenario {
        controller: "cronjob-controller",
        others: &["job-controller"],
        seen: &["jobs", "cronjobs"],
        makes: &[JOBS],
        creates: 1,
        steps: vec![
            step([post(CRON_JOBS, wanted), merge("/apis/batch/v1/namespaces/default/cronjobs/x/status", missed)], [count(JOBS, 1), done]),
            step([merge(CRON_JOB, json!({"spec": {"successfulJobsHistoryLimit": 0}}))], [count(JOBS, 0)]),
        ],
        ..Scenario::default()
    }
}

pub fn ttl_after_finished() -> Scenario {
    // Who deletes in the foreground would be the garbage collector.
    let going = looks(JOB, json!({"metadata": {"finalizers": ["foregroundDeletion"]}}));
    Scenario {
        controller: "ttl-after-finished-controller",
        others: &["job-controller"],
        seen: &["jobs"],
        steps: vec![step([post(JOBS, new_job(json!({"ttlSecondsAfterFinished": 0})))], [going])],
        ..Scenario::default()
    }
}

pub fn autoscaler() -> Scenario {
    let target = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x"});
    let wanted = object(json!({"minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": target}));
    // Not desiredReplicas: without metrics it stays what the last status said, and one that crashes between scaling and its
    // status never says it (setCurrentReplicasAndMetricsInStatus of pkg/controller/podautoscaler/horizontal.go).
    let sized = |n: usize| looks(AUTOSCALER, json!({"status": {"currentReplicas": n}}));
    let set_to = |n: usize| looks(REPLICA_SET, json!({"spec": {"replicas": n}, "status": {"readyReplicas": n}}));
    Scenario {
        controller: "horizontal-pod-autoscaler-controller",
        others: &["replicaset-controller"],
        seen: &["pods", "horizontalpodautoscalers"],
        steps: vec![
            step([post(REPLICA_SETS, set(1)), post(AUTOSCALERS, wanted)], [set_to(2), sized(2)]),
            step([merge(AUTOSCALER, json!({"spec": {"minReplicas": 1, "maxReplicas": 1}}))], [set_to(1), sized(1)]),
        ],
        ..Scenario::default()
    }
}

pub fn disruption() -> Scenario {
    let wanted = object(json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}));
    let allows = |allowed: usize, wanted: usize| {
        looks(BUDGET, json!({"status": {"currentHealthy": 2, "expectedPods": 2, "desiredHealthy": wanted, "disruptionsAllowed": allowed}}))
    };
    Scenario {
        controller: "disruption-controller",
        others: &["replicaset-controller"],
        seen: &["pods", "poddisruptionbudgets", "replicasets"],
        missed: Some(Act::TakePod),
        steps: vec![
            step([post(REPLICA_SETS, set(2)), post(BUDGETS, wanted)], [allows(1, 1)]),
            step([merge(BUDGET, json!({"spec": {"minAvailable": 2}}))], [allows(0, 2)]),
        ],
        ..Scenario::default()
    }
}

/// Its Job does not end, and is not started anew.
pub fn cron_job_under_way() -> Scenario {
    let job = json!({"spec": {"template": template("a", json!({"restartPolicy": "OnFailure"}))}});
    let wanted = object(json!({"schedule": "0 0 1 1 *", "concurrencyPolicy": "Replace", "jobTemplate": job}));
    let status = "/apis/batch/v1/namespaces/default/cronjobs/x/status";
    let active = || looks(CRON_JOB, json!({"status": {"active": [{"kind": "Job"}]}}));
    let again = Until::Holds(|world| {
        Box::pin(async move {
            let at = super::scenario::read(world, CRON_JOB).await["status"]["lastScheduleTime"].clone();
            at.as_str().is_some_and(|at| !at.starts_with("2024"))
        })
    });
    Scenario {
        controller: "cronjob-controller",
        seen: &["jobs", "cronjobs"],
        makes: &[JOBS],
        creates: 1,
        steps: vec![
            step(
                [post(CRON_JOBS, wanted), merge(status, json!({"status": {"lastScheduleTime": "2024-06-01T00:00:00Z"}}))],
                [count(JOBS, 1), active(), again],
            ),
            step([merge(CRON_JOB, json!({"spec": {"concurrencyPolicy": "Forbid"}}))], [count(JOBS, 1), active()]),
        ],
        ..Scenario::default()
    }
}
