//! The loads, each in a namespace of its own that goes with it.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{ApiResource, Clock, DeleteOptions, Event, Informer, Kind, Named, ObjectKey, PartialObject, Patch, Propagation};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota, Secret, Service};
use serde_json::json;

use crate::count::Count;
use crate::{Bench, PATIENCE};

const ALL: [&str; 7] = ["rollout", "quota", "jobs", "cronjobs", "namespace", "garbage", "rounds"];

pub async fn run(bench: &Bench, names: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|n| !ALL.contains(&n.as_str())) {
        anyhow::bail!("no load {unknown}; there are {}", ALL.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    if wanted("rollout") {
        bench.namespace("rollout").await?;
        roll(bench, "rollout", bench.size(1000, 100)).await?;
        bench.rest("").await?;
    }
    if wanted("quota") {
        let replicas = bench.size(1000, 100);
        bench.namespace("quota").await?;
        let hard = json!({"pods": (2 * replicas).to_string(), "count/configmaps": "100"});
        let quota = json!({"metadata": {"name": "quota", "namespace": "quota"}, "spec": {"hard": hard}});
        bench.client.create::<ResourceQuota>(&serde_json::from_value(quota)?).await?;
        roll(bench, "quota", replicas).await?;
        bench.rest("").await?;
    }
    if wanted("jobs") {
        jobs(bench, "jobs", bench.size(10_000, 500)).await?;
        bench.rest("").await?;
    }
    if wanted("cronjobs") {
        cron_jobs(bench, bench.size(1000, 100), bench.size(3, 1)).await?;
        bench.rest("").await?;
    }
    if wanted("namespace") {
        namespace(bench, "namespace", bench.size(10_000, 1000)).await?;
        bench.rest("").await?;
    }
    if wanted("garbage") {
        garbage(bench, bench.size(100_000, 2000)).await?;
        bench.rest("").await?;
    }
    if wanted("rounds") {
        rounds(bench).await?;
    }
    Ok(())
}

fn informer<K: Kind>(bench: &Bench, namespace: &str) -> Informer<K> {
    Informer::<K>::builder(&bench.client).namespace(namespace).start()
}

/// The metadata of one kind's objects.
async fn metadata<K: Kind>(bench: &Bench, namespace: &str) -> Count<PartialObject> {
    let builder = Informer::<PartialObject>::builder_at(&bench.client, ApiResource::of::<K>()).namespace(namespace);
    Count::new(builder.start(), |o| !o.is_deleting()).await
}

async fn remove(bench: &Bench, what: &str, name: &str, count: usize) -> anyhow::Result<()> {
    let builder = Informer::<Namespace>::builder(&bench.client).fields(format!("metadata.name={name}"));
    let there = Count::new(builder.start(), |_| true).await;
    bench
        .measure(what, count, async {
            bench.client.delete::<Namespace>(&ObjectKey::cluster(name), &DeleteOptions::default()).await?;
            there.reach("the namespace goes", |n| n.all == 0).await
        })
        .await
}

/// A Deployment in the namespace of this name, updated, and gone with the namespace.
async fn roll(bench: &Bench, name: &str, replicas: usize) -> anyhow::Result<()> {
    let wanted = i32::try_from(replicas)?;
    let key = ObjectKey::new(name, "web");
    // Counts as good once all replicas are of the newest template, and no others are left.
    let rolled = |d: &Deployment| {
        let Some(status) = &d.status else { return false };
        let all = d.spec.replicas.unwrap_or(1);
        status.observed_generation == d.metadata.generation
            && [status.replicas, status.updated_replicas, status.available_replicas] == [Some(all); 3]
    };
    let deployments = Count::new(informer::<Deployment>(bench, name), rolled).await;
    let pods = metadata::<Pod>(bench, name).await;
    let template = |image: &str| json!({"metadata": {"labels": {"app": "web"}}, "spec": bench.pod_spec(image, "Always")});
    let object = json!({"metadata": {"name": "web", "namespace": name},
        "spec": {"replicas": wanted, "selector": {"matchLabels": {"app": "web"}}, "template": template("one")}});
    bench
        .measure(&format!("{name}: Deployment of {replicas}, available"), replicas, async {
            bench.client.create::<Deployment>(&serde_json::from_value(object)?).await?;
            deployments.reach("a new Deployment", |n| n.good == 1).await
        })
        .await?;
    bench
        .measure(&format!("{name}: Deployment of {replicas}, rolling update"), replicas, async {
            let patch = Patch::Merge(json!({"spec": {"template": template("two")}}));
            bench.client.patch::<Deployment>(&key, &patch).await?;
            deployments.reach("the update begins", |n| n.good == 0).await?;
            deployments.reach("the update", |n| n.good == 1).await?;
            pods.reach("the old pods go", |n| n.all == replicas).await
        })
        .await?;
    remove(bench, &format!("{name}: Deployment of {replicas}, namespace deleted"), name, replicas).await
}

fn is_complete(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Complete" && c.status == "True")
}

async fn jobs(bench: &Bench, name: &str, count: usize) -> anyhow::Result<()> {
    bench.namespace(name).await?;
    let jobs = Count::new(informer::<Job>(bench, name), is_complete).await;
    let spec = json!({"template": {"spec": bench.pod_spec("one", "Never")}});
    bench
        .measure(&format!("{count} Jobs of one pod: complete"), count, async {
            bench.make::<Job>(count, |i| json!({"metadata": {"name": format!("job-{i}"), "namespace": name}, "spec": spec})).await?;
            jobs.reach("Jobs complete", |n| n.good == count).await
        })
        .await?;
    remove(bench, &format!("{count} Jobs and their pods: namespace deleted"), name, 2 * count).await
}

/// Seconds from each minute to the Jobs of that minute, as the watch shows them.
type Lags = BTreeMap<u64, Vec<f64>>;

async fn cron_jobs(bench: &Bench, count: usize, minutes: usize) -> anyhow::Result<()> {
    let name = "cronjobs";
    bench.namespace(name).await?;
    let jobs = informer::<Job>(bench, name);
    let lags = Arc::new(Mutex::new(Lags::new()));
    let (seen, changed) = (lags.clone(), Arc::new(tokio::sync::Notify::new()));
    let tell = changed.clone();
    let guard = jobs.on_event(move |event| {
        // A CronJob's Job is named after the minute that it is for.
        let Event::Added(job) = event else { return };
        let Some(minute) = job.name().rsplit('-').next().and_then(|m| m.parse::<u64>().ok()) else { return };
        let lag = Clock::system().now().as_millisecond() as f64 / 1000.0 - minute as f64 * 60.0;
        seen.lock().expect("no holder panics").entry(minute).or_default().push(lag);
        tell.notify_one();
    });
    guard.forever();
    let spec = json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": bench.pod_spec("one", "Never")}}}});
    bench
        .measure(&format!("{count} CronJobs made"), count, async {
            bench.make::<CronJob>(count, |i| json!({"metadata": {"name": format!("cron-{i}"), "namespace": name}, "spec": spec})).await
        })
        .await?;
    let first = u64::try_from(Clock::system().now().as_second())? / 60 + 1;
    for minute in first..first + u64::try_from(minutes)? {
        let work = async {
            let all_there = async {
                while lags.lock().expect("no holder panics").get(&minute).is_none_or(|l| l.len() < count) {
                    changed.notified().await;
                }
            };
            Ok(tokio::time::timeout(PATIENCE.min(Duration::from_secs(300)), all_there).await?)
        };
        bench.measure(&format!("{count} CronJobs: a minute"), count, work).await?;
        let mut of_minute = lags.lock().expect("no holder panics").get(&minute).cloned().unwrap_or_default();
        of_minute.sort_by(f64::total_cmp);
        println!("    after the full minute: first {:.2} s, half {:.2} s, last {:.2} s", of_minute[0], of_minute[count / 2], of_minute[count - 1]);
    }
    remove(bench, &format!("{count} CronJobs: namespace deleted"), name, count).await
}

async fn namespace(bench: &Bench, name: &str, count: usize) -> anyhow::Result<()> {
    bench.namespace(name).await?;
    let pods = Count::new(informer::<Pod>(bench, name), |p| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))).await;
    let [maps, secrets, services, runs] = [6, 2, 1, 1].map(|tenths| count * tenths / 10);
    let named = |kind: &str, i: usize| json!({"name": format!("{kind}-{i}"), "namespace": name});
    bench
        .measure(&format!("namespace of {count} objects: filled"), count, async {
            bench.make::<ConfigMap>(maps, |i| json!({"metadata": named("map", i), "data": {"key": "value"}})).await?;
            bench.make::<Secret>(secrets, |i| json!({"metadata": named("secret", i), "stringData": {"key": "value"}})).await?;
            bench.make::<Service>(services, |i| json!({"metadata": named("service", i), "spec": {"ports": [{"port": 80}]}})).await?;
            let spec = bench.pod_spec("one", "Always");
            bench.make::<Pod>(runs, |i| json!({"metadata": named("pod", i), "spec": spec})).await?;
            pods.reach("pods run", |n| n.good == runs).await
        })
        .await?;
    remove(bench, &format!("namespace of {count} objects: deleted"), name, count).await
}

async fn garbage(bench: &Bench, count: usize) -> anyhow::Result<()> {
    let name = "garbage";
    bench.namespace(name).await?;
    let owner = json!({"metadata": {"name": "owner", "namespace": name}});
    let owner = bench.client.create::<ConfigMap>(&serde_json::from_value(owner)?).await?;
    let maps = metadata::<ConfigMap>(bench, name).await;
    let references = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
    let dependent = |i: usize| json!({"metadata": {"name": format!("map-{i}"), "namespace": name, "ownerReferences": references}});
    bench.measure(&format!("{count} dependents made"), count, bench.make::<ConfigMap>(count, dependent)).await?;
    bench
        .measure(&format!("{count} dependents: collected"), count, async {
            let options = DeleteOptions::default().propagation(Propagation::Background);
            bench.client.delete::<ConfigMap>(&owner.key(), &options).await?;
            // The certificates of the cluster stand in every namespace.
            maps.reach("dependents go", |n| n.all <= 1).await
        })
        .await?;
    remove(bench, "    their namespace deleted", name, 1).await
}

/// The same load again and again, after once to warm up: what is used afterwards shall not grow. Events, which would stay for an hour (upstream
/// keeps those on disk only), are deleted after each. A long rest after the first round and after the last one lets all be forgotten that is kept for
/// a time only: what there is then more than before is left for good.
async fn rounds(bench: &Bench) -> anyhow::Result<()> {
    round(bench, 0).await?;
    let before = bench.left("after one round and a rest").await?;
    let mut memory = Vec::new();
    for number in 1..=bench.rounds {
        round(bench, number).await?;
        bench.forget_events().await?;
        memory.push(bench.rest(&format!("round {number}")).await?.own_mb());
    }
    let last = &memory[memory.len().saturating_sub(5)..];
    println!("own memory over {} rounds: {:.2} MB more with each; of the last five: {:.2} MB", memory.len(), slope(&memory), slope(last));
    let after = bench.left("after all rounds and a rest").await?;
    let each = |before: f64, after: f64| (after - before) / bench.rounds as f64;
    println!(
        "left of each round: {:.1} kB in use, {:.1} kB own memory, {:.2} objects",
        each(before.used, after.used) / 1e3,
        each(before.own, after.own) / 1e3,
        each(before.objects, after.objects)
    );
    Ok(())
}

async fn round(bench: &Bench, number: usize) -> anyhow::Result<()> {
    let name = |part: &str| format!("round-{number}{part}");
    match bench.of.as_str() {
        "rollout" => {
            bench.namespace(&name("")).await?;
            roll(bench, &name(""), bench.size(1000, 100)).await
        }
        "jobs" => jobs(bench, &name(""), bench.size(10_000, 500)).await,
        "namespace" => namespace(bench, &name(""), bench.size(10_000, 1000)).await,
        "garbage" => garbage(bench, bench.size(100_000, 2000)).await,
        "" => {
            bench.namespace(&name("-a")).await?;
            roll(bench, &name("-a"), bench.size(200, 50)).await?;
            jobs(bench, &name("-b"), bench.size(500, 50)).await?;
            namespace(bench, &name("-c"), bench.size(1000, 100)).await
        }
        other => anyhow::bail!("no rounds of {other}; there are rollout, jobs, namespace, garbage"),
    }
}

/// How much `values` grow from one to the next: the line with the least squares.
fn slope(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let (middle, mean) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in values.iter().enumerate() {
        above += (x as f64 - middle) * (y - mean);
        below += (x as f64 - middle).powi(2);
    }
    above / below
}
