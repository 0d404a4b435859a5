//! The row of a pod: what STATUS says is a fact that people and scripts rely on. Models printPod.
use std::collections::HashMap;

use jiff::Timestamp;

use super::access::{age, condition_is_true, flag, is_deleting, is_set, number, text_or};
use super::format::human_duration;
use crate::tree::Tree;

/// What a walk over the container statuses finds.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: i64,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn restarted(&mut self, status: &Tree) {
        self.restarts += number(status, &["restartCount"]);
        let finished = status.str_at(&["lastState", "terminated", "finishedAt"]).parse().ok();
        self.last_restart = self.last_restart.max(finished);
    }
}

pub(super) fn cells(pod: &Tree, now: Timestamp) -> Vec<Tree> {
    let init: HashMap<&str, &Tree> = pod.array_at(&["spec", "initContainers"]).iter().map(|c| (c.str_at(&["name"]), c)).collect();
    let is_sidecar = |name: &str| init.get(name).is_some_and(|c| c.str_at(&["restartPolicy"]) == "Always");
    let sidecars = pod.array_at(&["spec", "initContainers"]).iter().filter(|c| c.str_at(&["restartPolicy"]) == "Always").count();
    let total = pod.array_at(&["spec", "containers"]).len() + sidecars;

    let mut summary = Summary { reason: base_reason(pod), ..Summary::default() };
    let mut sidecar_restarts = Summary::default();
    let initializing = walk_init(pod, &mut summary, &mut sidecar_restarts, is_sidecar);
    if !initializing || condition_is_true(pod, "Initialized") {
        summary.restarts = sidecar_restarts.restarts;
        summary.last_restart = sidecar_restarts.last_restart;
        walk_main(pod, &mut summary);
    }
    let phase = pod.str_at(&["status", "phase"]);
    if is_deleting(pod) && pod.str_at(&["status", "reason"]) == "NodeLost" {
        summary.reason = "Unknown".into();
    } else if is_deleting(pod) && phase != "Succeeded" && phase != "Failed" {
        summary.reason = "Terminating".into();
    }
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(now.duration_since(last)))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = pod.array_at(&["status", "podIPs"]).first().map_or("", |ip| ip.str_at(&["ip"]));
    vec![
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        if ip.is_empty() { "<none>" } else { ip }.into(),
        text_or(pod, &["spec", "nodeName"], "<none>"),
        text_or(pod, &["status", "nominatedNodeName"], "<none>"),
        readiness_gates(pod).into(),
    ]
}

fn base_reason(pod: &Tree) -> String {
    let gated = |c: &&Tree| c.str_at(&["type"]) == "PodScheduled" && c.str_at(&["reason"]) == "SchedulingGated";
    if pod.array_at(&["status", "conditions"]).iter().find(gated).is_some() {
        return "SchedulingGated".into();
    }
    let reason = pod.str_at(&["status", "reason"]);
    if reason.is_empty() { pod.str_at(&["status", "phase"]) } else { reason }.into()
}

/// Whether an init container still holds the pod up; then the reason says which.
fn walk_init(pod: &Tree, summary: &mut Summary, sidecars: &mut Summary, is_sidecar: impl Fn(&str) -> bool) -> bool {
    let count = pod.array_at(&["spec", "initContainers"]).len();
    for (i, status) in pod.array_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(status.str_at(&["name"]));
        summary.restarted(status);
        if sidecar {
            sidecars.restarted(status);
        }
        let terminated = status.at(&["state", "terminated"]).filter(|t| !t.is_null());
        let waiting = status.str_at(&["state", "waiting", "reason"]);
        match terminated {
            Some(t) if number(t, &["exitCode"]) == 0 => continue,
            _ if sidecar && flag(status, &["started"], false) => {
                summary.ready += i64::from(flag(status, &["ready"], false));
                continue;
            }
            Some(t) => summary.reason = format!("Init:{}", terminated_reason(t)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => summary.reason = format!("Init:{waiting}"),
            None => summary.reason = format!("Init:{i}/{count}"),
        }
        return true;
    }
    false
}

fn terminated_reason(terminated: &Tree) -> String {
    let reason = terminated.str_at(&["reason"]);
    let signal = number(terminated, &["signal"]);
    if !reason.is_empty() {
        reason.into()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", number(terminated, &["exitCode"]))
    }
}

fn walk_main(pod: &Tree, summary: &mut Summary) {
    let (mut has_running, mut error_reason) = (false, String::new());
    for status in pod.array_at(&["status", "containerStatuses"]).iter().rev() {
        summary.restarted(status);
        let waiting = status.str_at(&["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.into();
        } else if let Some(terminated) = status.at(&["state", "terminated"]).filter(|t| !t.is_null()) {
            summary.reason = terminated_reason(terminated);
            if number(terminated, &["exitCode"]) != 0 {
                error_reason.clone_from(&summary.reason);
            }
        } else if flag(status, &["ready"], false) && is_set(status, &["state", "running"]) {
            has_running = true;
            summary.ready += 1;
        }
    }
    // A pod whose one container has ended while another runs is running.
    if summary.reason == "Completed" {
        if has_running && condition_is_true(pod, "Ready") {
            summary.reason = "Running".into();
        } else if !error_reason.is_empty() {
            summary.reason = error_reason;
        } else if has_running {
            summary.reason = "NotReady".into();
        }
    }
}

fn readiness_gates(pod: &Tree) -> String {
    let gates = pod.array_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let ready = gates.iter().filter(|gate| condition_is_true(pod, gate.str_at(&["conditionType"]))).count();
    format!("{ready}/{}", gates.len())
}
