//! When a node was last heard of, and what follows from its silence.
use std::time::Duration;

use client::k8s_openapi::api::coordination::v1::Lease;
use client::k8s_openapi::api::core::v1::{Node, NodeCondition};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::Named;
use jiff::Timestamp;

use super::{GRACE, STARTUP_GRACE};

/// Judged by the time that passes in this process: a change seen now is a sign of life now, whatever the node's clock says, and a clock that is
/// set silences no node. All times are of [`client::Clock::elapsed`] but those that the node gives.
pub(super) struct Probe {
    at: Duration,
    startup: bool,
    heartbeat: Option<Timestamp>,
    renewal: Option<Timestamp>,
}

pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub(crate) fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|c| c.status == "True")
}

fn heartbeat(node: &Node) -> Option<Timestamp> {
    ready(node)?.last_heartbeat_time.as_ref().map(|t| t.0)
}

fn renewal(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|t| t.0)
}

impl Probe {
    /// A node seen for the first time has its whole grace, from now, or from its creation if it never reported.
    /// `today` is the time of the day.
    pub fn new(node: &Node, lease: Option<&Lease>, now: Duration, today: Timestamp) -> Self {
        let startup = ready(node).is_none();
        let created = node.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let age = created.map_or(Duration::ZERO, |at| Duration::try_from(today.duration_since(at)).unwrap_or(Duration::ZERO));
        let at = if startup { now.saturating_sub(age) } else { now };
        Self { at, startup, heartbeat: heartbeat(node), renewal: lease.and_then(renewal) }
    }

    pub fn saw_node(&mut self, node: &Node, now: Duration) {
        let seen = heartbeat(node);
        if self.startup && ready(node).is_some() || seen != self.heartbeat {
            (self.at, self.startup) = (now, false);
        }
        self.heartbeat = seen;
    }

    /// Whether this is a renewal that was not known. One with an earlier time is one, too (upstream passes it over): the node's clock was set back.
    pub fn saw_lease(&mut self, lease: &Lease, now: Duration) -> bool {
        let seen = renewal(lease);
        let fresh = seen != self.renewal;
        if fresh {
            (self.at, self.renewal) = (now, seen);
        }
        fresh
    }

    pub fn due(&self) -> Duration {
        let grace = if self.startup { STARTUP_GRACE } else { GRACE };
        self.at.saturating_add(grace)
    }

    pub fn is_overdue(&self, now: Duration) -> bool {
        now > self.due()
    }
}

pub(super) struct Verdict {
    /// `True`, `False` or `Unknown`: what Ready is, or is from now on; empty where the kubelet has yet to say.
    pub ready: String,
    pub was_ready: bool,
    /// Conditions to write.
    pub conditions: Option<Vec<NodeCondition>>,
}

impl Verdict {
    pub fn is_ready(&self) -> bool {
        self.ready == "True"
    }
}

/// Turns the conditions that only the kubelet can know to Unknown when it has fallen silent.
pub(super) fn judge(node: &Node, overdue: bool, now: Timestamp) -> Verdict {
    let was_ready = is_ready(node);
    if !overdue {
        let ready = ready(node).map(|c| c.status.clone()).unwrap_or_default();
        return Verdict { ready, was_ready, conditions: None };
    }
    let now = Timestamp::from_second(now.as_second()).ok().map(Time);
    let mut changed = Vec::new();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let unknown = |reason: &str, message: &str, heartbeat| NodeCondition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat,
            last_transition_time: now.clone(),
        };
        match condition(node, kind) {
            None => changed.push(unknown(
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
                node.meta().creation_timestamp.clone(),
            )),
            Some(c) if c.status != "Unknown" => changed.push(unknown(
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
                c.last_heartbeat_time.clone(),
            )),
            Some(_) => {}
        }
    }
    Verdict { ready: "Unknown".to_owned(), was_ready, conditions: (!changed.is_empty()).then_some(changed) }
}
