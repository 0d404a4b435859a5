//! Samples of what nodes and containers use, two of each: cpu is the difference between them.
//!
//! Models metrics-server pkg/storage. There is no timer: whoever asks has fresh samples taken, at most every 15 seconds. Who asks after a long
//! time waits two seconds for the second one, so that the answer is about now.
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::body::Body;
use futures::future::join_all;
use http::header::{HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::parse::{self, ContainerKey, Point, Sample};
use crate::server::ApiServer;

/// As metrics-server's `--metric-resolution`.
const RESOLUTION: Duration = Duration::from_secs(15);
/// Samples further apart say nothing of now.
const WINDOW_MAX: Duration = Duration::from_secs(60);
const WINDOW_MIN: Duration = Duration::from_secs(2);
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// A container that has run for less is not measured by its whole life.
const AGE_MIN_SECONDS: f64 = 1.0;

#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub nodes: BTreeMap<String, NodeUsage>,
    pub pods: BTreeMap<(String, String), PodUsage>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeUsage {
    pub at: jiff::Timestamp,
    pub window: Duration,
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodUsage {
    pub at: jiff::Timestamp,
    pub window: Duration,
    pub containers: Vec<ContainerUsage>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ContainerUsage {
    pub name: String,
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

/// One sample of each node that answered.
type Round = HashMap<String, Sample>;

#[derive(Default)]
struct State {
    latest: Option<(Instant, Round)>,
    usage: std::sync::Arc<Usage>,
    has_usage: bool,
}

/// Asked by one at a time; the others find what he found.
#[derive(Default)]
pub struct Collector(Mutex<State>);

impl Collector {
    pub async fn read(&self, server: &ApiServer) -> std::sync::Arc<Usage> {
        let mut state = self.0.lock().await;
        let age = state.latest.as_ref().map(|(at, _)| at.elapsed());
        match age {
            Some(age) if age < RESOLUTION && state.has_usage => return state.usage.clone(),
            Some(age) if (WINDOW_MIN..=WINDOW_MAX).contains(&age) => {}
            _ => {
                state.latest = Some((Instant::now(), round(server).await));
                tokio::time::sleep(WINDOW_MIN).await;
            }
        }
        let (at, latest) = (Instant::now(), round(server).await);
        let previous = state.latest.take().map(|(_, round)| round).unwrap_or_default();
        state.usage = std::sync::Arc::new(usage(&previous, &latest));
        state.has_usage = true;
        state.latest = Some((at, latest));
        state.usage.clone()
    }
}

async fn round(server: &ApiServer) -> Round {
    let nodes: Vec<String> = server.0.parts.cache.list("", "nodes", None).iter().map(|node| node.name().to_owned()).collect();
    let asked = nodes.into_iter().map(|node| async move {
        match tokio::time::timeout(NODE_TIMEOUT, scrape(server, &node)).await {
            Ok(Ok(sample)) => Some((node, sample)),
            Ok(Err(error)) => {
                tracing::debug!(node, error, "the node's usage cannot be read");
                None
            }
            Err(_) => {
                tracing::debug!(node, "the node's usage cannot be read in time");
                None
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn scrape(server: &ApiServer, node: &str) -> Result<Sample, String> {
    let stream = server.0.parts.nodes.dial(node).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/metrics/resource");
    request.headers_mut().insert(HOST, HeaderValue::from_str(node).map_err(|e| e.to_string())?);
    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string());
    connection.abort();
    let bytes = bytes?.to_bytes();
    if status != StatusCode::OK {
        return Err(format!("the kubelet answered {status}"));
    }
    Ok(parse::sample(&String::from_utf8_lossy(&bytes), jiff::Timestamp::now().as_millisecond()))
}

/// What was used between two rounds; pure. What has no two points is left out.
fn usage(previous: &Round, latest: &Round) -> Usage {
    let mut usage = Usage::default();
    for (node, sample) in latest {
        let before = previous.get(node);
        if let Some((cpu_nanos, window)) = before.and_then(|before| rate(Some(&before.node), &sample.node)) {
            let at = timestamp(sample.node.at_millis);
            usage.nodes.insert(node.clone(), NodeUsage { at, window, cpu_nanos, memory_bytes: sample.node.memory_bytes as u64 });
        }
        let mut pods: BTreeMap<(String, String), Option<PodUsage>> = BTreeMap::new();
        let mut containers: Vec<(&ContainerKey, &Point)> = sample.containers.iter().collect();
        containers.sort_by_key(|(key, _)| *key);
        for (key, point) in containers {
            let pod = pods.entry((key.0.clone(), key.1.clone())).or_insert_with(|| {
                Some(PodUsage { at: timestamp(point.at_millis), window: Duration::MAX, containers: Vec::new() })
            });
            match rate(before.and_then(|before| before.containers.get(key)), point) {
                Some((cpu_nanos, window)) => {
                    if let Some(pod) = pod {
                        pod.window = pod.window.min(window);
                        pod.containers.push(ContainerUsage { name: key.2.clone(), cpu_nanos, memory_bytes: point.memory_bytes as u64 });
                    }
                }
                // A pod is told of as a whole or not at all.
                None => *pod = None,
            }
        }
        usage.pods.extend(pods.into_iter().filter_map(|(key, pod)| Some((key, pod?))));
    }
    usage
}

fn timestamp(millis: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
}

/// Cpu nanoseconds per second, and over how long. A container that started after the first sample is measured from its start.
fn rate(before: Option<&Point>, now: &Point) -> Option<(u64, Duration)> {
    if !now.is_whole() {
        return None;
    }
    let end = now.at_millis as f64 / 1000.0;
    let before = before.filter(|before| before.is_whole() && before.started_seconds == now.started_seconds && before.cpu_seconds <= now.cpu_seconds);
    let (start, used) = match before {
        Some(before) => (before.at_millis as f64 / 1000.0, now.cpu_seconds - before.cpu_seconds),
        None => (now.started_seconds, now.cpu_seconds),
    };
    let seconds = end - start;
    let is_recent = before.is_some() || (now.started_seconds > 0.0 && seconds <= WINDOW_MAX.as_secs_f64());
    if seconds < AGE_MIN_SECONDS || !is_recent {
        return None;
    }
    Some(((used / seconds * 1e9) as u64, Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> Round {
        [("n".to_owned(), parse::sample(text, 0))].into()
    }

    fn container(name: &str, cpu: f64, at_millis: i64, started: f64) -> String {
        let labels = format!("{{container=\"{name}\",namespace=\"d\",pod=\"p\"}}");
        format!(
            "container_cpu_usage_seconds_total{labels} {cpu} {at_millis}\ncontainer_memory_working_set_bytes{labels} 2048\n\
             container_start_time_seconds{labels} {started}\n"
        )
    }

    #[test]
    fn cpu_is_the_difference_of_two_samples() {
        let node = |cpu: f64, at: i64| format!("node_cpu_usage_seconds_total {cpu} {at}\nnode_memory_working_set_bytes 1024\n");
        let first = node(10.0, 100_000) + &container("a", 1.0, 100_000, 5.0);
        let second = node(11.0, 110_000) + &container("a", 1.5, 110_000, 5.0);
        let usage = usage(&round(&first), &round(&second));
        let used = &usage.nodes["n"];
        assert_eq!((used.cpu_nanos, used.memory_bytes, used.window), (100_000_000, 1024, Duration::from_secs(10)));
        let pod = &usage.pods[&("d".to_owned(), "p".to_owned())];
        assert_eq!(pod.containers, [ContainerUsage { name: "a".to_owned(), cpu_nanos: 50_000_000, memory_bytes: 2048 }]);
    }

    #[test]
    fn a_pod_of_which_one_container_has_no_two_samples_is_left_out() {
        let first = container("a", 1.0, 100_000, 5.0);
        let whole = container("a", 1.5, 110_000, 5.0);
        let key = ("d".to_owned(), "p".to_owned());
        // Started between the samples: measured from there.
        let fresh = usage(&round(&first), &round(&(whole.clone() + &container("b", 2.0, 110_000, 105.0))));
        assert_eq!(fresh.pods[&key].containers[1].cpu_nanos, 400_000_000);
        assert_eq!(fresh.pods[&key].window, Duration::from_secs(5));
        let unknown = usage(&round(&first), &round(&(whole + &container("b", 2.0, 110_000, 0.0))));
        assert!(!unknown.pods.contains_key(&key));
        // Restarted: another life, and too short to be measured.
        let restarted = usage(&round(&first), &round(&container("a", 0.1, 110_000, 109.5)));
        assert!(restarted.pods.is_empty());
    }
}
