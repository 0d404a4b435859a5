//! Which pods are missing, and which are too many. Models podsShouldBeOnNode and manage of daemon_controller.go.
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::apps::v1::DaemonSet;
use client::k8s_openapi::api::core::v1::{Node, Pod};
use client::{Named, Next};
use jiff::Timestamp;

use super::NodePods;
use super::nodes::{Eligibility, Fit};
use super::rolling;
use crate::history::REVISION_LABEL;
use crate::pods;

/// Nodes that get a pod, and pods that go.
#[derive(Default)]
pub(super) struct Changes {
    pub create_on: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
}

/// What users are told by events.
pub(super) enum Note {
    Failed { pod: Arc<Pod>, node: String },
    Succeeded { pod: Arc<Pod>, node: String },
}

pub(super) struct Plan {
    pub changes: Changes,
    pub notes: Vec<Note>,
    /// When a failed pod that is left alone for now may be deleted.
    pub next: Next,
}

struct Manager<'a> {
    ds: &'a DaemonSet,
    hash: &'a str,
    /// How long a failed pod on a node is still left alone.
    failed: &'a dyn Fn(&str) -> Option<Duration>,
    now: Timestamp,
    changes: Changes,
    notes: Vec<Note>,
    wait: Option<Duration>,
}

/// Scheduled first, then oldest first.
pub(super) fn sort(pods: &mut [Arc<Pod>]) {
    pods.sort_by_key(|p| {
        (pods::node_name(p).is_empty(), p.metadata.creation_timestamp.clone(), p.metadata.name.clone())
    });
}

pub(super) fn manage(
    ds: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &NodePods,
    hash: &str,
    failed: &dyn Fn(&str) -> Option<Duration>,
    now: Timestamp,
) -> Plan {
    let mut manager =
        Manager { ds, hash, failed, now, changes: Changes::default(), notes: Vec::new(), wait: None };
    let fit = Fit::new(ds);
    for node in nodes {
        let here = pods.get(node.name()).map(Vec::as_slice);
        match (fit.judge(node), here) {
            (Eligibility::Runs, None) => manager.changes.create_on.push(node.name().to_owned()),
            (Eligibility::Goes, here) => {
                let alive = here.into_iter().flatten().filter(|p| !p.is_deleting());
                manager.changes.delete.extend(alive.cloned());
            }
            (eligibility, here) => manager.tidy(node.name(), here.unwrap_or_default(), eligibility),
        }
    }
    // Pods meant for nodes that are gone: never scheduled, so that nobody else deletes them.
    let exists = |name: &str| nodes.iter().any(|n| n.name() == name);
    let stranded = pods.iter().filter(|(node, _)| !exists(node)).flat_map(|(_, pods)| pods);
    manager.changes.delete.extend(stranded.filter(|p| pods::node_name(p).is_empty()).cloned());
    let next = manager.wait.map_or(Next::Wait, Next::After);
    Plan { changes: manager.changes, notes: manager.notes, next }
}

impl Manager<'_> {
    /// A node whose pods may stay: ended ones go, and of the others all but those that a rollout needs.
    fn tidy(&mut self, node: &str, here: &[Arc<Pod>], eligibility: Eligibility) {
        let mut running = Vec::new();
        for pod in here.iter().filter(|p| !p.is_deleting()) {
            match pods::phase(pod) {
                "Failed" => match (self.failed)(node) {
                    Some(left) => self.wait = Some(self.wait.map_or(left, |w| w.min(left))),
                    None => {
                        self.notes.push(Note::Failed { pod: pod.clone(), node: node.to_owned() });
                        self.changes.delete.push(pod.clone());
                    }
                },
                "Succeeded" => {
                    self.notes.push(Note::Succeeded { pod: pod.clone(), node: node.to_owned() });
                    self.changes.delete.push(pod.clone());
                }
                _ => running.push(pod.clone()),
            }
        }
        sort(&mut running);
        if !rolling::allows_surge(self.ds) {
            self.changes.delete.extend(running.into_iter().skip(1));
            return;
        }
        match running.len() {
            0 if eligibility == Eligibility::Runs => self.changes.create_on.push(node.to_owned()),
            0 | 1 => {}
            _ => self.tidy_surge(running),
        }
    }

    /// Two pods may be on the node only while the new one is not available yet and the old one still is ready.
    fn tidy_surge(&mut self, running: Vec<Arc<Pod>>) {
        let (mut newest, mut older): (Option<Arc<Pod>>, Option<Arc<Pod>>) = (None, None);
        for pod in running {
            let slot = if pod.label(REVISION_LABEL) == Some(self.hash) { &mut newest } else { &mut older };
            match slot {
                None => *slot = Some(pod),
                Some(_) => self.changes.delete.push(pod),
            }
        }
        let (Some(newest), Some(older)) = (newest, older) else { return };
        let min_ready = self.ds.spec.min_ready_seconds.unwrap_or(0);
        if !pods::is_ready(&older) || pods::is_available(&newest, min_ready, self.now) {
            self.changes.delete.push(older);
        }
    }
}
