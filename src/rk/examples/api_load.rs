//! Loads one API server over its kubeconfig and says how quick it was: rk's, or another that speaks the same API.
//!
//! `cargo run --release -p rk --example api_load -- KUBECONFIG PHASE [--seconds N] [--count N]`, one line for each figure: what, how many a second,
//! median and 99th percentile in milliseconds. Phases: `writes` (creates, updates, status patches, gets, deletes; 1 client and 32),
//! `fill` (`--count` pods), `lists` (of what is there), `watches` (`--count` watchers, one of which never reads). `tests/bench/api.py` runs
//! them against two servers in turn.
#[path = "shared/calls.rs"]
mod calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use client::Client;
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::calls::{CLIENTS, Call, JSON, Options, TABLE, call, config_map, connect, list, prepare, rate, say};

const USAGE: &str = "usage: load KUBECONFIG writes|fill|lists|watches [--seconds N] [--count N]";
const NAMESPACE: &str = "load";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Every so many pods carry the label that the selective list asks for.
const LABELLED: usize = 100;
const UPDATES: usize = 500;
/// Between two updates that are watched: they come steadily, not in one burst.
const UPDATE_PAUSE: Duration = Duration::from_millis(20);

fn maps(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{name}")
}

fn pods(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods{name}")
}

/// No scheduler takes it.
fn pod(name: &str, number: usize) -> Value {
    let labels = json!({ "app": "load", "number": format!("n{}", number % LABELLED) });
    let environment: Vec<Value> = (0..5).map(|i| json!({ "name": format!("VARIABLE_{i}"), "value": "some value" })).collect();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels, "annotations": { "example.com/owner": "load" } },
        "spec": { "schedulerName": "nobody", "containers": [{ "name": "main", "image": "registry.example.com/load/main:1.0", "env": environment,
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } }, "ports": [{ "containerPort": 8080 }],
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } } }] } })
}

async fn writes(options: &Options) -> anyhow::Result<()> {
    let clients = connect(&options.kubeconfig, CLIENTS).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let limit = options.limit()?;
    let mut made = 0;
    for several in [&clients[..1], &clients[..]] {
        let run = std::process::id() as usize * 100 + several.len();
        made = rate("create ConfigMap of 1 KiB", several, limit, usize::MAX, move |i| Call::post(maps(""), &config_map(&format!("m{run}-{i}"), 'a'))).await?;
        rate("create Pod", several, limit, usize::MAX, move |i| Call::post(pods(""), &pod(&format!("p{run}-{i}"), i))).await?;
    }
    let run = std::process::id() as usize * 100 + CLIENTS;
    let put = move |i: usize| {
        let name = format!("m{run}-{}", i % made);
        Call { method: "PUT", path: maps(&format!("/{name}")), media: JSON, body: config_map(&name, char::from(b'b' + (i / made % 20) as u8)).to_string().into() }
    };
    rate("update ConfigMap", &clients, limit, usize::MAX, put).await?;
    let patch = move |i: usize| {
        let body = json!({ "status": { "phase": "Running", "message": format!("patch {i}"), "conditions": [{ "type": "Ready", "status": "True" }] } });
        let path = pods(&format!("/p{run}-{}/status", i % 100));
        Call { method: "PATCH", path, media: "application/strategic-merge-patch+json", body: body.to_string().into() }
    };
    rate("patch Pod status", &clients, limit, usize::MAX, patch).await?;
    let get = move |i: usize| Call { method: "GET", path: maps(&format!("/m{run}-{}", i % made)), media: JSON, body: Vec::new() };
    rate("get ConfigMap", &clients, limit, usize::MAX, get).await?;
    let delete = move |i: usize| Call { method: "DELETE", path: maps(&format!("/m{run}-{i}")), media: JSON, body: Vec::new() };
    rate("delete ConfigMap", &clients, limit, made, delete).await?;
    call(&clients[0], "DELETE", &maps(""), JSON, JSON, Vec::new()).await?;
    call(&clients[0], "DELETE", &pods("?gracePeriodSeconds=0"), JSON, JSON, br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#.to_vec()).await?;
    Ok(())
}

async fn fill(options: &Options) -> anyhow::Result<()> {
    let clients = connect(&options.kubeconfig, CLIENTS).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let (count, make) = (options.count(10_000)?, |i: usize| Call::post(pods(""), &pod(&format!("fill-{i}"), i)));
    rate(&format!("create {count} Pods"), &clients, Duration::from_secs(3600), count, make).await?;
    Ok(())
}

async fn lists(options: &Options) -> anyhow::Result<()> {
    let client = &connect(&options.kubeconfig, 1).await?[0];
    let selective = format!("?labelSelector=number%3Dn{}", LABELLED / 2);
    for (what, query, accept) in [
        ("list all Pods, JSON, any version", "?resourceVersion=0", JSON),
        ("list all Pods, JSON, consistent", "", JSON),
        ("list all Pods, protobuf, any version", "?resourceVersion=0", PROTOBUF),
        ("list all Pods, protobuf, consistent", "", PROTOBUF),
        ("list all Pods, Table", "", TABLE),
        ("list one Pod in a hundred by label, JSON", selective.as_str(), JSON),
    ] {
        list(what, client, options.limit()?, &pods(query), accept).await?;
    }
    Ok(())
}

/// From the moment that an update is sent to the moment that each watcher has it.
async fn watches(options: &Options) -> anyhow::Result<()> {
    let count = options.count(10_000)?;
    let clients = connect(&options.kubeconfig, count + 2).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let began = Instant::now();
    let sent: Arc<Vec<AtomicUsize>> = Arc::new((0..UPDATES).map(|_| AtomicUsize::new(0)).collect());
    let (tell, mut told) = mpsc::channel::<Vec<Duration>>(64);
    let open = |client: Client| async move {
        let request = Request::builder().uri(maps("?watch=1&fieldSelector=metadata.name%3Dwatched")).header("accept", JSON);
        anyhow::Ok(client.kube().request_stream(request.body(Vec::new())?).await?)
    };
    let stalled = open(clients[1].clone()).await?;
    for client in clients[2..].iter().cloned() {
        let (mut lines, sent, tell) = (open(client).await?.lines(), sent.clone(), tell.clone());
        tokio::spawn(async move {
            let mut late = Vec::with_capacity(UPDATES);
            while let Ok(Some(line)) = lines.try_next().await {
                let now = began.elapsed().as_micros() as usize;
                let Some(number) = line.split_once("\"number\":\"").and_then(|(_, rest)| rest.split('"').next()?.parse::<usize>().ok()) else { continue };
                late.push(Duration::from_micros(now.saturating_sub(sent[number].load(Ordering::Acquire)) as u64));
                if number + 1 == UPDATES {
                    break;
                }
            }
            let _ = tell.send(late).await;
        });
    }
    drop(tell);
    for number in 0..UPDATES {
        let mut object = config_map("watched", 'w');
        object["metadata"]["annotations"] = json!({ "number": number.to_string() });
        sent[number].store(began.elapsed().as_micros() as usize, Ordering::Release);
        let (method, path) = if number == 0 { ("POST", maps("")) } else { ("PUT", maps("/watched")) };
        call(&clients[0], method, &path, JSON, JSON, object.to_string().into()).await?;
        tokio::time::sleep(UPDATE_PAUSE).await;
    }
    let mut all = Vec::new();
    while let Some(late) = told.recv().await {
        ensure!(late.len() == UPDATES, "a watcher saw {} of {UPDATES} updates", late.len());
        all.extend(late);
    }
    drop(stalled);
    say(&format!("updates seen by {count} watchers beside one that never reads"), all.len(), began.elapsed(), all);
    call(&clients[0], "DELETE", &maps("/watched"), JSON, JSON, Vec::new()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::read(USAGE, &["seconds", "count"])?;
    match options.phase.as_str() {
        "writes" => writes(&options).await,
        "fill" => fill(&options).await,
        "lists" => lists(&options).await,
        "watches" => watches(&options).await,
        other => bail!("no phase is called {other}\n{USAGE}"),
    }
}
