//! Timed calls of an API server by many clients: what the loads share.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use client::Client;
use futures::future::try_join_all;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use serde_json::{Value, json};

pub const CLIENTS: usize = 32;
pub const JSON: &str = "application/json";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// `KUBECONFIG PHASE [--NAME VALUE ...]`
pub struct Options {
    pub kubeconfig: PathBuf,
    pub phase: String,
    pub more: BTreeMap<String, String>,
}

impl Options {
    /// `known`: the names that may be given.
    pub fn read(usage: &'static str, known: &[&str]) -> anyhow::Result<Self> {
        let mut words = std::env::args().skip(1);
        let (Some(kubeconfig), Some(phase)) = (words.next(), words.next()) else { bail!(usage) };
        let mut more = BTreeMap::new();
        while let Some(word) = words.next() {
            let (Some(name), Some(value)) = (word.strip_prefix("--").filter(|name| known.contains(name)), words.next()) else { bail!(usage) };
            more.insert(name.to_owned(), value);
        }
        Ok(Self { kubeconfig: kubeconfig.into(), phase, more })
    }

    pub fn count(&self, default: usize) -> anyhow::Result<usize> {
        self.more.get("count").map_or(Ok(default), |count| count.parse().context("--count wants a number"))
    }

    /// How long each rate is measured.
    pub fn limit(&self) -> anyhow::Result<Duration> {
        let seconds = self.more.get("seconds").map_or(Ok(5), |seconds| seconds.parse());
        Ok(Duration::from_secs(seconds.context("--seconds wants a number")?))
    }
}

/// A client of its own has a connection of its own.
pub async fn connect(kubeconfig: &Path, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::from_kubeconfig(kubeconfig).await?);
    }
    Ok(clients)
}

/// The answer, whatever it is.
pub async fn send(client: &Client, method: &str, path: &str, media: &str, accept: &str, body: Vec<u8>) -> anyhow::Result<(StatusCode, Bytes)> {
    let request = Request::builder().method(method).uri(path).header("accept", accept).header("content-type", media);
    let response = client.kube().send(request.body(body.into())?).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// The length of the answer.
pub async fn call(client: &Client, method: &str, path: &str, media: &str, accept: &str, body: Vec<u8>) -> anyhow::Result<usize> {
    let (status, bytes) = send(client, method, path, media, accept, body).await?;
    ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(500)]));
    Ok(bytes.len())
}

pub fn say(what: &str, count: usize, took: Duration, mut each: Vec<Duration>) {
    each.sort_unstable();
    let at = |part: usize| each.get(each.len() * part / 100).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    println!("{}", json!({ "what": what, "per_second": count as f64 / took.as_secs_f64(), "p50_ms": at(50), "p99_ms": at(99), "count": count }));
}

pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub media: &'static str,
    pub body: Vec<u8>,
}

impl Call {
    pub fn post(path: String, object: &Value) -> Self {
        Self { method: "POST", path, media: JSON, body: object.to_string().into() }
    }
}

/// Every client calls `make(number)` again and again, until the time is over or `most` were made; the answer is how many were made.
pub async fn rate(what: &str, clients: &[Client], limit: Duration, most: usize, make: impl Fn(usize) -> Call + Send + Sync + 'static) -> anyhow::Result<usize> {
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

/// Lists again and again, three times at least; the size stands in what is said.
pub async fn list(what: &str, client: &Client, limit: Duration, path: &str, accept: &str) -> anyhow::Result<()> {
    let (began, mut times, mut bytes) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < limit || times.len() < 3 {
        let at = Instant::now();
        bytes = call(client, "GET", path, JSON, accept, Vec::new()).await?;
        times.push(at.elapsed());
    }
    say(&format!("{what} ({:.1} MB)", bytes as f64 / 1e6), times.len(), began.elapsed(), times);
    Ok(())
}

/// What is there already may stay.
pub async fn make(client: &Client, path: &str, object: &Value) -> anyhow::Result<()> {
    let made = call(client, "POST", path, JSON, JSON, object.to_string().into()).await;
    made.map(drop).or_else(|error| if error.to_string().contains("409") { Ok(()) } else { Err(error) })
}

/// A namespace in which pods can be made: a controller makes the account, where one runs.
pub async fn prepare(client: &Client, namespace: &str) -> anyhow::Result<()> {
    for (path, kind, name) in [("/api/v1/namespaces".to_owned(), "Namespace", namespace), (format!("/api/v1/namespaces/{namespace}/serviceaccounts"), "ServiceAccount", "default")] {
        make(client, &path, &json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } })).await?;
    }
    Ok(())
}

/// A ConfigMap of 1 KiB.
pub fn config_map(name: &str, letter: char) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "text": letter.to_string().repeat(1024) } })
}
