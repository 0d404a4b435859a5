//! Loads one API server over its kubeconfig and says how quick it was: rk's, or another that speaks the same API.
//!
//! `cargo run --release -p rk --example load -- KUBECONFIG PHASE [--seconds N] [--count N]`, one line for each figure: what, how many a second,
//! median and 99th percentile in milliseconds. Phases: `writes` (creates, updates, status patches, gets, deletes; 1 client and 32),
//! `fill` (`--count` pods), `lists` (of what is there), `watches` (`--count` watchers, one of which never reads). `tests/bench/api.py` runs
//! them against two servers in turn.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use client::Client;
use futures::future::try_join_all;
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const NAMESPACE: &str = "load";
const CLIENTS: usize = 32;
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Every so many pods carry the label that the selective list asks for.
const LABELLED: usize = 100;
const UPDATES: usize = 500;
/// Between two updates that are watched: they come steadily, not in one burst.
const UPDATE_PAUSE: Duration = Duration::from_millis(20);

struct Options {
    kubeconfig: PathBuf,
    phase: String,
    seconds: u64,
    count: usize,
}

fn options() -> anyhow::Result<Options> {
    const USAGE: &str = "usage: load KUBECONFIG writes|fill|lists|watches [--seconds N] [--count N]";
    let mut words = std::env::args().skip(1);
    let (Some(kubeconfig), Some(phase)) = (words.next(), words.next()) else { bail!(USAGE) };
    let mut options = Options { kubeconfig: kubeconfig.into(), phase, seconds: 5, count: 10_000 };
    while let Some(word) = words.next() {
        let number = || words.next().and_then(|n| n.parse::<usize>().ok()).with_context(|| format!("{word} wants a number"));
        match word.as_str() {
            "--seconds" => options.seconds = { number }()? as u64,
            "--count" => options.count = { number }()?,
            _ => bail!(USAGE),
        }
    }
    Ok(options)
}

/// A client of its own has a connection of its own.
async fn connect(options: &Options, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::from_kubeconfig(&options.kubeconfig).await?);
    }
    Ok(clients)
}

/// The length of the answer.
async fn call(client: &Client, method: &str, path: &str, media: &str, accept: &str, body: Vec<u8>) -> anyhow::Result<usize> {
    let request = Request::builder().method(method).uri(path).header("accept", accept).header("content-type", media);
    let response = client.kube().send(request.body(body.into())?).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(500)]));
    Ok(bytes.len())
}

fn say(what: &str, count: usize, took: Duration, mut each: Vec<Duration>) {
    each.sort_unstable();
    let at = |part: usize| each.get(each.len() * part / 100).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    println!("{}", json!({ "what": what, "per_second": count as f64 / took.as_secs_f64(), "p50_ms": at(50), "p99_ms": at(99), "count": count }));
}

/// Every client calls `make(number)` again and again, until the time is over or `most` were made; the answer is how many were made.
async fn rate(what: &str, clients: &[Client], limit: Duration, most: usize, make: impl Fn(usize) -> Call + Send + Sync + 'static) -> anyhow::Result<usize> {
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let began = Instant::now();
    let tasks = clients.iter().cloned().map(|client| {
        let (next, make) = (next.clone(), make.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < limit {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= most {
                    break;
                }
                let Call { method, path, media, body } = make(number);
                let at = Instant::now();
                call(&client, method, &path, media, JSON, body).await?;
                times.push(at.elapsed());
            }
            anyhow::Ok(times)
        })
    });
    let mut times = Vec::new();
    for task in try_join_all(tasks).await? {
        times.extend(task?);
    }
    let count = times.len();
    say(&format!("{what}, {} client{}", clients.len(), if clients.len() == 1 { "" } else { "s" }), count, began.elapsed(), times);
    Ok(count)
}

struct Call {
    method: &'static str,
    path: String,
    media: &'static str,
    body: Vec<u8>,
}

fn maps(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{name}")
}

fn pods(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods{name}")
}

fn config_map(name: &str, letter: char) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "text": letter.to_string().repeat(1024) } })
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

async fn prepare(client: &Client) -> anyhow::Result<()> {
    for (path, kind, name) in [("/api/v1/namespaces".to_owned(), "Namespace", NAMESPACE), (format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), "ServiceAccount", "default")] {
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
        let made = call(client, "POST", &path, JSON, JSON, object.to_string().into()).await;
        // A controller makes the account, where one runs.
        made.map(drop).or_else(|error| if error.to_string().contains("409") { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}

async fn writes(options: &Options) -> anyhow::Result<()> {
    let clients = connect(options, CLIENTS).await?;
    prepare(&clients[0]).await?;
    let limit = Duration::from_secs(options.seconds);
    let post = |path: String, object: Value| Call { method: "POST", path, media: JSON, body: object.to_string().into() };
    let mut made = 0;
    for several in [&clients[..1], &clients[..]] {
        let run = std::process::id() as usize * 100 + several.len();
        made = rate("create ConfigMap of 1 KiB", several, limit, usize::MAX, move |i| post(maps(""), config_map(&format!("m{run}-{i}"), 'a'))).await?;
        rate("create Pod", several, limit, usize::MAX, move |i| post(pods(""), pod(&format!("p{run}-{i}"), i))).await?;
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
    let clients = connect(options, CLIENTS).await?;
    prepare(&clients[0]).await?;
    let make = |i: usize| Call { method: "POST", path: pods(""), media: JSON, body: pod(&format!("fill-{i}"), i).to_string().into() };
    rate(&format!("create {} Pods", options.count), &clients, Duration::from_secs(3600), options.count, make).await?;
    Ok(())
}

async fn lists(options: &Options) -> anyhow::Result<()> {
    let client = &connect(options, 1).await?[0];
    let selective = format!("?labelSelector=number%3Dn{}", LABELLED / 2);
    for (what, query, accept) in [
        ("list all Pods, JSON, any version", "?resourceVersion=0", JSON),
        ("list all Pods, JSON, consistent", "", JSON),
        ("list all Pods, protobuf, any version", "?resourceVersion=0", PROTOBUF),
        ("list all Pods, protobuf, consistent", "", PROTOBUF),
        ("list all Pods, Table", "", TABLE),
        ("list one Pod in a hundred by label, JSON", selective.as_str(), JSON),
    ] {
        let (began, mut times, mut bytes) = (Instant::now(), Vec::new(), 0);
        while began.elapsed() < Duration::from_secs(options.seconds) || times.len() < 3 {
            let at = Instant::now();
            bytes = call(client, "GET", &pods(query), JSON, accept, Vec::new()).await?;
            times.push(at.elapsed());
        }
        say(&format!("{what} ({:.1} MB)", bytes as f64 / 1e6), times.len(), began.elapsed(), times);
    }
    Ok(())
}

/// From the moment that an update is sent to the moment that each watcher has it.
async fn watches(options: &Options) -> anyhow::Result<()> {
    let clients = connect(options, options.count + 2).await?;
    prepare(&clients[0]).await?;
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
    say(&format!("updates seen by {} watchers beside one that never reads", options.count), all.len(), began.elapsed(), all);
    call(&clients[0], "DELETE", &maps("/watched"), JSON, JSON, Vec::new()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = options()?;
    match options.phase.as_str() {
        "writes" => writes(&options).await,
        "fill" => fill(&options).await,
        "lists" => lists(&options).await,
        "watches" => watches(&options).await,
        other => bail!("no phase is called {other}"),
    }
}
