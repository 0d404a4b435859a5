//! Other people's requests while something is wrong.
use std::time::{Duration, Instant};

use anyhow::ensure;
use client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::calls::{JSON, call, config_map, prepare, say};

const NAMESPACE: &str = "load-bystanders";
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);

fn maps(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{name}")
}

pub async fn make_ready(client: &Client) -> anyhow::Result<()> {
    prepare(client, NAMESPACE).await?;
    crate::calls::make(client, &maps(""), &config_map("read", 'a')).await
}

/// One client: reads, writes, lists and reads again, one every [`PAUSE`], until `stop` is given.
async fn one(client: Client, number: usize, stop: watch::Receiver<bool>) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let name = format!("b{}-{number}", std::process::id());
    let object = config_map(&name, 'b').to_string();
    crate::calls::make(&client, &maps(""), &config_map(&name, 'a')).await?;
    let mut times = Vec::new();
    for turn in 0.. {
        ticks.tick().await;
        if *stop.borrow() {
            break;
        }
        let (method, path, body) = match turn % 4 {
            0 | 2 => ("GET", maps("/read"), Vec::new()),
            1 => ("PUT", maps(&format!("/{name}")), object.clone().into_bytes()),
            _ => ("GET", maps("?limit=10"), Vec::new()),
        };
        let at = Instant::now();
        call(&client, method, &path, JSON, JSON, body).await?;
        times.push(at.elapsed());
    }
    Ok(times)
}

/// Says how long bystanders waited while `trouble` was under way.
pub async fn beside<T>(what: &str, clients: &[Client], trouble: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        tasks.spawn(one(client.clone(), number, stopped.clone()));
    }
    let began = Instant::now();
    let done = trouble.await;
    let took = began.elapsed();
    stop.send_replace(true);
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task??);
    }
    ensure!(!times.is_empty(), "nobody was there beside {what}");
    say(&format!("others' requests, {what}"), times.len(), took, times);
    done
}
