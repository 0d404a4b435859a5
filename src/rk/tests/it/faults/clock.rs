//! The clock of the control plane is set an hour on, or back.
use std::time::Duration;

use client::k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::world::NODES;

const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A clock that shows the machine's time, which the API server has, and stands still.
fn clock() -> (Clock, Timestamp) {
    let now = Timestamp::now();
    (Clock::fixed(now), now)
}

async fn names(world: &World, path: &str) -> Vec<String> {
    world.list(path).await.iter().map(|o| o["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_cron_job_starts_once_for_an_hour_that_was_skipped_and_never_twice_for_one() {
    block_on(async {
        let (clock, now) = clock();
        let cluster = Cluster::start(clock.clone(), &["cronjob-controller", "job-controller"]).await.with_kubelets();
        let job = json!({"spec": {"template": template("x", json!({"restartPolicy": "Never"}))}});
        let spec = json!({"schedule": "* * * * *", "jobTemplate": job, "successfulJobsHistoryLimit": 10});
        cluster.world.post(CRON_JOBS, json!({"metadata": {"name": "x"}, "spec": spec})).await;
        let minute = |at: Timestamp| format!("x-{}", at.as_second() / 60);
        for (jump, jobs) in [(HOUR, 1), (HOUR * 4, 2)] {
            clock.set(now + jump);
            cluster.poke(CRON_JOBS, "x").await;
            let started = async |world: &World| {
                let names = names(world, JOBS).await;
                (names.len() == jobs && names.contains(&minute(now + jump))).then_some(())
            };
            cluster.wait("the job of the last minute", started).await;
        }
        // Three hours are more than a hundred minutes.
        cluster.event("TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew").await;
        cluster.wait("the jobs end", async |world: &World| (world.get(CRON_JOBS, "x").await["status"]["active"].is_null()).then_some(())).await;
        for back in [HOUR, SignedDuration::ZERO, HOUR * 2] {
            clock.set(now + back);
            cluster.poke(CRON_JOBS, "x").await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cluster.writes_within(Duration::from_secs(2)).await, 0, "{}", cluster.tally.told());
        assert_eq!(names(&cluster.world, JOBS).await.len(), 2);
        clock.set(now + HOUR * 4 + SignedDuration::from_mins(1));
        cluster.poke(CRON_JOBS, "x").await;
        cluster.wait("it goes on", async |world: &World| (names(world, JOBS).await.len() == 3).then_some(())).await;
    });
}

#[test]
fn deadlines_and_lifetimes_of_jobs_follow_the_clock_and_not_before_their_time() {
    block_on(async {
        let (clock, now) = clock();
        let cluster = Cluster::start(clock.clone(), &["job-controller", "ttl-after-finished-controller"]).await.with_kubelets();
        let done = json!({"ttlSecondsAfterFinished": 600, "template": template("done", json!({"restartPolicy": "Never"}))});
        cluster.world.create(JOBS, "done", done).await;
        // Its pod runs on: the kubelets here end only pods that are never restarted.
        let long = json!({"activeDeadlineSeconds": 600, "template": template("long", json!({"restartPolicy": "OnFailure"}))});
        cluster.world.create(JOBS, "long", long).await;
        cluster.condition(JOBS, "done", "Complete").await;
        cluster.wait("the long one runs", async |world: &World| (world.get(JOBS, "long").await["status"]["active"] == 1).then_some(())).await;
        for jump in [-HOUR, SignedDuration::ZERO, SignedDuration::from_secs(500)] {
            clock.set(now + jump);
            cluster.poke(JOBS, "done").await;
            cluster.poke(JOBS, "long").await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        assert_eq!(names(&cluster.world, JOBS).await, ["done", "long"]);
        assert_eq!(cluster.world.get(JOBS, "long").await["status"]["active"], 1);
        clock.set(now + HOUR);
        cluster.poke(JOBS, "done").await;
        cluster.poke(JOBS, "long").await;
        let (reason, message) = cluster.condition(JOBS, "long", "Failed").await;
        assert_eq!((reason.as_str(), message.as_str()), ("DeadlineExceeded", "Job was active longer than specified deadline"));
        // The pods are another controller's, which does not run here.
        let marked = async |world: &World| {
            let job = world.get(JOBS, "done").await;
            (job["metadata"].is_null() || job["metadata"]["deletionTimestamp"].is_string()).then_some(())
        };
        cluster.wait("the finished one goes", marked).await;
    });
}

#[test]
fn a_clock_that_is_set_silences_no_node() {
    block_on(async {
        let (clock, now) = clock();
        let cluster = Cluster::start(clock.clone(), &["node-lifecycle-controller"]).await.with_kubelets();
        let world = &cluster.world;
        let stamp = |at: Timestamp| json!(at.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string());
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        for node in NODES {
            let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": stamp(now)});
            world.post(leases, json!({"metadata": {"name": node}, "spec": spec})).await;
        }
        let mut pod = template("x", json!({}));
        pod["metadata"]["name"] = json!("x");
        world.post(PODS, pod).await;
        let unready = async |world: &World| {
            let nodes = world.list("/api/v1/nodes").await;
            let is_unready = |node: &Value| node["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] != "True");
            nodes.iter().filter(|n| is_unready(n)).count()
        };
        // The mark that admission leaves on new nodes is taken off.
        let clean = async |world: &World| {
            let nodes = world.list("/api/v1/nodes").await;
            nodes.iter().all(|n| n["spec"]["taints"].is_null()).then_some(())
        };
        cluster.wait("no node has a taint", clean).await;
        cluster.wait("the pod runs", async |world: &World| (world.get(PODS, "x").await["status"]["phase"] == "Running").then_some(())).await;
        for jump in [HOUR, -HOUR, HOUR * 24] {
            let before = cluster.tally.writes();
            clock.set(now + jump);
            for node in NODES {
                cluster.poke("/api/v1/nodes", node).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!((unready(world).await, cluster.tally.writes()), (0, before), "{jump}: {}", cluster.tally.told());
            assert!(world.get(PODS, "x").await["metadata"]["deletionTimestamp"].is_null());
        }
        // A node whose own clock goes an hour back lives; those that say nothing do not, after their grace.
        clock.advance(Duration::from_secs(40));
        world.patch(leases, NODES[0], json!({"spec": {"renewTime": stamp(now - HOUR)}})).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        clock.advance(Duration::from_secs(20));
        for node in NODES {
            cluster.poke("/api/v1/nodes", node).await;
        }
        cluster.wait("two are lost", async |world: &World| (unready(world).await == 2).then_some(())).await;
        let first = world.get("/api/v1/nodes", NODES[0]).await;
        assert!(first["spec"]["taints"].is_null(), "{}", first["spec"]);
    });
}
