//! /pods, /stats/summary and /metrics.
//!
//! Models pkg/kubelet/server/stats and pkg/kubelet/metrics/collectors/resource_metrics.go, v1.37, as far as readings of cgroups go:
//! cpu, memory and processes of containers and pods.

use std::fmt::Write;

use http::{Response, StatusCode};
use runtime::{ContainerState, SandboxState, Stats};
use serde_json::{Value, json};

use super::{Body, Refusal, typed};
use crate::kubelet::Context;
use crate::pod::spec::{LABEL_CONTAINER, LABEL_NAMESPACE, LABEL_POD, LABEL_UID};
use crate::time;

pub fn pods(cx: &Context) -> Result<Response<Body>, Refusal> {
    let pods = cx.pods.get().map(client::Informer::list).unwrap_or_default();
    let items: Vec<Value> = pods.iter().filter_map(|p| serde_json::to_value(&**p).ok()).collect();
    Ok(json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
}

fn json_answer(value: &Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", value.to_string())
}

struct ContainerReading {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    started_at: jiff::Timestamp,
    read_at: jiff::Timestamp,
    stats: Stats,
}

struct PodReading {
    namespace: String,
    pod: String,
    uid: String,
    created_at: jiff::Timestamp,
    read_at: jiff::Timestamp,
    stats: Stats,
}

async fn readings(cx: &Context) -> (Vec<PodReading>, Vec<ContainerReading>) {
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    let stamp = |at: std::time::SystemTime| jiff::Timestamp::try_from(at).unwrap_or_else(|_| time::now());
    for sandbox in cx.runtime.list().await.into_iter().filter(|s| s.state == SandboxState::Ready) {
        let label = |name: &str| sandbox.labels.get(name).cloned().unwrap_or_default();
        let (namespace, pod, uid) = (label(LABEL_NAMESPACE), label(LABEL_POD), label(LABEL_UID));
        if let Ok(stats) = cx.runtime.sandbox_stats(&sandbox.id).await {
            pods.push(PodReading {
                namespace: namespace.clone(),
                pod: pod.clone(),
                uid: uid.clone(),
                created_at: stamp(sandbox.created_at),
                read_at: time::now(),
                stats,
            });
        }
        for container in &sandbox.containers {
            let ContainerState::Running(started) = &container.state else { continue };
            let Ok(stats) = cx.runtime.stats(&container.id).await else { continue };
            containers.push(ContainerReading {
                namespace: namespace.clone(),
                pod: pod.clone(),
                uid: uid.clone(),
                container: container.labels.get(LABEL_CONTAINER).unwrap_or(&container.name).clone(),
                started_at: stamp(started.started_at),
                read_at: time::now(),
                stats,
            });
        }
    }
    (pods, containers)
}

fn cpu_and_memory(stats: &Stats) -> (Value, Value) {
    let at = time::api(time::now());
    let available = stats.memory_limit_bytes.map(|l| l.saturating_sub(stats.memory_working_set_bytes));
    let mut memory = json!({
        "time": at, "usageBytes": stats.memory_usage_bytes, "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults});
    if let Some(available) = available {
        memory["availableBytes"] = available.into();
    }
    let nanos = u64::try_from(stats.cpu_usage.as_nanos()).unwrap_or(u64::MAX);
    (json!({"time": at, "usageCoreNanoSeconds": nanos}), memory)
}

pub async fn summary(cx: &Context) -> Result<Response<Body>, Refusal> {
    let (pods, containers) = readings(cx).await;
    let free = cx.machine.free();
    let at = time::api(time::now());
    let used = cx.machine.memory_bytes.saturating_sub(free.memory_available_bytes);
    let available = (cx.machine.storage_bytes as f64 * free.disk_available_fraction) as u64;
    let fs = json!({"time": at, "capacityBytes": cx.machine.storage_bytes, "availableBytes": available,
        "usedBytes": cx.machine.storage_bytes.saturating_sub(available)});
    let total = machine_cpu().unwrap_or_else(|| pods.iter().map(|p| p.stats.cpu_usage).sum());
    let pods: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let (cpu, memory) = cpu_and_memory(&pod.stats);
            let own: Vec<Value> = containers
                .iter()
                .filter(|c| c.uid == pod.uid)
                .map(|c| {
                    let (cpu, memory) = cpu_and_memory(&c.stats);
                    json!({"name": c.container, "startTime": time::api(c.started_at), "cpu": cpu, "memory": memory})
                })
                .collect();
            json!({"podRef": {"name": pod.pod, "namespace": pod.namespace, "uid": pod.uid}, "startTime": time::api(pod.created_at),
                "containers": own, "cpu": cpu, "memory": memory, "process_stats": {"process_count": pod.stats.pids}})
        })
        .collect();
    Ok(json_answer(&json!({
        "node": {"nodeName": cx.config.node_name, "startTime": at, "fs": fs, "runtime": {"imageFs": fs},
            "cpu": {"time": at, "usageCoreNanoSeconds": u64::try_from(total.as_nanos()).unwrap_or(u64::MAX)},
            "memory": {"time": at, "availableBytes": free.memory_available_bytes, "usageBytes": used, "workingSetBytes": used}},
        "pods": pods})))
}

fn text(body: String) -> Response<Body> {
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

pub async fn metrics(cx: &Context) -> Result<Response<Body>, Refusal> {
    let list = cx.runtime.list().await;
    let running = list.iter().flat_map(|s| &s.containers).filter(|c| matches!(c.state, ContainerState::Running(_))).count();
    let exited = list.iter().flat_map(|s| &s.containers).count() - running;
    let ready = list.iter().filter(|s| s.state == SandboxState::Ready).count();
    let mut out = String::new();
    let _ = write!(
        out,
        "# HELP kubelet_running_containers [ALPHA] Number of containers currently running\n# TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {running}\nkubelet_running_containers{{container_state=\"exited\"}} {exited}\n\
         # HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox\n# TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {ready}\n\
         # HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n# TYPE kubelet_node_name gauge\nkubelet_node_name{{node={:?}}} 1\n",
        cx.config.node_name
    );
    Ok(text(out))
}

/// What all processes of the machine have used, from `/proc/stat`; `None` where that cannot be read.
fn machine_cpu() -> Option<std::time::Duration> {
    cpu_of_proc_stat(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The busy columns of the first line: user, nice, system, irq, softirq and steal, in hundredths of a second. Guests count as user.
fn cpu_of_proc_stat(text: &str) -> Option<std::time::Duration> {
    const MILLIS_PER_TICK: u64 = 10;
    let columns: Vec<u64> = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| columns.get(*i)).sum();
    Some(std::time::Duration::from_millis(busy * MILLIS_PER_TICK))
}

/// Writes one family of metrics: each line's labels, value, and milliseconds since 1970 where it has a time.
fn family(out: &mut String, name: &str, kind: &str, help: &str, lines: impl Iterator<Item = (String, String, Option<jiff::Timestamp>)>) {
    let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
    for (labels, value, at) in lines {
        let _ = write!(out, "{name}{labels} {value}");
        if let Some(at) = at {
            let _ = write!(out, " {}", at.as_millisecond());
        }
        out.push('\n');
    }
}

pub async fn resource_metrics(cx: &Context) -> Result<Response<Body>, Refusal> {
    let (pods, containers) = readings(cx).await;
    let mut out = String::new();
    let of = |c: &ContainerReading| format!("{{container={:?},namespace={:?},pod={:?}}}", c.container, c.namespace, c.pod);
    let of_pod = |p: &PodReading| format!("{{namespace={:?},pod={:?}}}", p.namespace, p.pod);
    let cpu = |stats: &Stats| stats.cpu_usage.as_secs_f64().to_string();
    let memory = |stats: &Stats| stats.memory_working_set_bytes.to_string();
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    let lines = containers.iter().map(|c| (of(c), cpu(&c.stats), Some(c.read_at)));
    family(&mut out, "container_cpu_usage_seconds_total", "counter", help, lines);
    let lines = containers.iter().map(|c| (of(c), memory(&c.stats), Some(c.read_at)));
    family(&mut out, "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", lines);
    let started = |c: &ContainerReading| (c.started_at.as_millisecond() as f64 / 1000.0).to_string();
    let help = "Start time of the container since unix epoch in seconds";
    family(&mut out, "container_start_time_seconds", "gauge", help, containers.iter().map(|c| (of(c), started(c), None)));
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    let lines = machine_cpu().into_iter().map(|used| (String::new(), used.as_secs_f64().to_string(), Some(time::now())));
    family(&mut out, "node_cpu_usage_seconds_total", "counter", help, lines);
    let free = cx.machine.free();
    let used = cx.machine.memory_bytes.saturating_sub(free.memory_available_bytes);
    let line = std::iter::once((String::new(), used.to_string(), Some(time::now())));
    family(&mut out, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", line);
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    let lines = pods.iter().map(|p| (of_pod(p), cpu(&p.stats), Some(p.read_at)));
    family(&mut out, "pod_cpu_usage_seconds_total", "counter", help, lines);
    let lines = pods.iter().map(|p| (of_pod(p), memory(&p.stats), Some(p.read_at)));
    family(&mut out, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", lines);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    family(&mut out, "resource_scrape_error", "gauge", help, std::iter::once((String::new(), "0".to_owned(), None)));
    Ok(text(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_of_the_machine_is_not_counted() {
        let text = "cpu  100 20 30 9999 888 1 2 3 50 0\ncpu0 1 1 1 1\n";
        assert_eq!(cpu_of_proc_stat(text), Some(std::time::Duration::from_millis(1560)));
        assert_eq!(cpu_of_proc_stat("intr 1"), None);
    }
}
