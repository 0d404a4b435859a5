//! Definitions that come, stay and go.
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use client::Client;
use http::StatusCode;
use serde_json::{Value, json};

use crate::NAMESPACE;
use crate::calls::{Call, JSON, Options, call, connect, prepare, rate, say, send};
use crate::shapes::{Kind, definitions};

/// Calls under way at once while definitions are made.
const MAKERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(1);
/// Definitions that are there at once while they come and go.
const BATCH: usize = 50;
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const HALT: Duration = Duration::from_secs(600);

/// What is done once.
fn tell(what: &str, took: Duration) {
    println!("{}", json!({ "what": what, "seconds": took.as_secs_f64() }));
}

/// Asks until the answer is as wanted.
pub async fn until(client: &Client, call: &Call, is_it: impl Fn(StatusCode, &[u8]) -> bool, accept: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (status, bytes) = send(client, call.method, &call.path, call.media, accept, call.body.clone()).await?;
        if is_it(status, &bytes) {
            return Ok(());
        }
        let has_no_end = began.elapsed() > HALT;
        if has_no_end || !(status.is_success() || matches!(status.as_u16(), 404 | 409 | 429) || status.is_server_error()) {
            bail!("{} {}: {status}: {}", call.method, call.path, String::from_utf8_lossy(&bytes[..bytes.len().min(500)]));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub fn get(path: String) -> Call {
    Call { method: "GET", path, media: JSON, body: Vec::new() }
}

async fn until_gone(client: &Client, kind: &Kind) -> anyhow::Result<()> {
    until(client, &get(definitions(&format!("/{}", kind.definition_name()))), |status, _| status == StatusCode::NOT_FOUND, JSON).await
}

/// From the answer that a definition is stored to the answer that its first object is.
pub async fn first(options: &Options) -> anyhow::Result<()> {
    let client = &connect(&options.kubeconfig, 1).await?[0];
    prepare(client, NAMESPACE).await?;
    let set = format!("first{}", std::process::id());
    let (began, mut times) = (Instant::now(), Vec::new());
    for number in 0..options.count(20)? {
        let kind = Kind::new(&set, number);
        call(client, "POST", &definitions(""), JSON, JSON, kind.definition()?.to_string().into()).await?;
        let at = Instant::now();
        until(client, &Call::post(kind.path(""), &kind.object("first", number)), |status, _| status == StatusCode::CREATED, JSON).await?;
        times.push(at.elapsed());
        call(client, "DELETE", &definitions(&format!("/{}", kind.definition_name())), JSON, JSON, Vec::new()).await?;
        until_gone(client, &kind).await?;
    }
    let label = options.more.get("label").map_or("", String::as_str);
    say(&format!("from definition to first object{label}"), times.len(), began.elapsed(), times);
    Ok(())
}

fn made(kinds: &[Kind]) -> anyhow::Result<impl Fn(usize) -> Call + Send + Sync + use<>> {
    let definitions_made: Vec<Value> = kinds.iter().map(Kind::definition).collect::<Result<_, _>>()?;
    Ok(move |i: usize| Call::post(definitions(""), &definitions_made[i]))
}

async fn until_served(client: &Client, kinds: &[Kind]) -> anyhow::Result<()> {
    for kind in kinds {
        until(client, &get(kind.path("")), |status, _| status.is_success(), JSON).await?;
    }
    Ok(())
}

pub async fn install(options: &Options) -> anyhow::Result<()> {
    let clients = connect(&options.kubeconfig, MAKERS).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let kinds: Vec<Kind> = (0..options.count(500)?).map(|number| Kind::new("stay", number)).collect();
    let began = Instant::now();
    rate("create definition", &clients, HALT, kinds.len(), made(&kinds)?).await?;
    until_served(&clients[0], &kinds).await?;
    tell(&format!("{} definitions, until all are served", kinds.len()), began.elapsed());
    let wanted: Vec<String> = kinds.iter().map(|kind| format!("\"resource\":\"{}\"", kind.plural)).collect();
    let has_all = |_, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace(": ", ":");
        wanted.iter().all(|resource| text.contains(resource))
    };
    until(&clients[0], &get("/apis".to_owned()), has_all, AGGREGATED).await?;
    tell(&format!("{} definitions, until discovery has all", kinds.len()), began.elapsed());
    for kind in &kinds {
        let named = format!("/namespaces/{{namespace}}/{}", kind.plural);
        let is_in = |status: StatusCode, bytes: &[u8]| status.is_success() && String::from_utf8_lossy(bytes).contains(&named);
        until(&clients[0], &get(format!("/openapi/v3/apis/{}/v1", kind.group)), is_in, JSON).await?;
    }
    tell(&format!("{} definitions, until OpenAPI v3 has all", kinds.len()), began.elapsed());
    let at = Instant::now();
    let last = kinds.last().map(|kind| format!("/namespaces/{{namespace}}/{}", kind.plural)).unwrap_or_default();
    until(&clients[0], &get("/openapi/v2".to_owned()), |_, bytes| String::from_utf8_lossy(bytes).contains(&last), JSON).await?;
    tell("then, the first OpenAPI v2 document that has all", at.elapsed());
    Ok(())
}

pub async fn churn(options: &Options) -> anyhow::Result<()> {
    let clients = connect(&options.kubeconfig, MAKERS).await?;
    prepare(&clients[0], NAMESPACE).await?;
    let (count, set) = (options.count(1000)?, format!("churn{}", std::process::id()));
    let began = Instant::now();
    let kinds: Vec<Kind> = (0..count).map(|number| Kind::new(&set, number)).collect();
    for batch in kinds.chunks(BATCH) {
        let make = made(batch)?;
        for i in 0..batch.len() {
            let Call { method, path, media, body } = make(i);
            call(&clients[i % MAKERS], method, &path, media, JSON, body).await?;
        }
        until_served(&clients[0], batch).await?;
        for kind in batch {
            until(&clients[0], &Call::post(kind.path(""), &kind.object("one", 0)), |status, _| status == StatusCode::CREATED, JSON).await?;
        }
        for (i, kind) in batch.iter().enumerate() {
            call(&clients[i % MAKERS], "DELETE", &definitions(&format!("/{}", kind.definition_name())), JSON, JSON, Vec::new()).await?;
        }
        for kind in batch {
            until_gone(&clients[0], kind).await?;
        }
    }
    let (status, _) = send(&clients[0], "GET", &kinds[0].path(""), JSON, JSON, Vec::new()).await?;
    ensure!(status == StatusCode::NOT_FOUND, "a kind that has gone answers {status}");
    tell(&format!("{count} definitions created and deleted, {BATCH} at a time, each with an object"), began.elapsed());
    Ok(())
}
