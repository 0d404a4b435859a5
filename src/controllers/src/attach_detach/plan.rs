//! What to attach and detach on one node. Pure.
use std::sync::Arc;
use std::time::Duration;

use client::Named;
use client::k8s_openapi::api::core::v1::Node;
use client::k8s_openapi::api::storage::v1::VolumeAttachment;
use jiff::Timestamp;

use super::desired::Wanted;
use crate::pods::until;

/// A node that says nothing gets this long to unmount (upstream's maxWaitForUnmountDuration).
pub(super) const UNMOUNT_WAIT: Duration = Duration::from_secs(6 * 60);

pub(super) struct View<'a> {
    pub node: Option<&'a Node>,
    pub wanted: &'a [Wanted],
    /// All attachments of this node.
    pub attached: &'a [Arc<VolumeAttachment>],
    /// Attachments of a volume on other nodes.
    pub elsewhere: &'a dyn Fn(&str) -> Vec<Arc<VolumeAttachment>>,
    /// Since when nobody wants the attachment of this name; starts the clock.
    pub unwanted_since: &'a dyn Fn(&str) -> Timestamp,
    /// The name in the node's status of a volume.
    pub handle_of: &'a dyn Fn(&str) -> Option<String>,
    pub now: Timestamp,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Of `wanted`.
    Attach(usize),
    /// Has to leave another node first.
    Refused(usize, String),
    Failed(usize, String),
    Detach(Arc<VolumeAttachment>),
    /// Wanted (again): its clock stops.
    Keep(String),
    LookAgain(Duration),
}

pub(super) struct Plan {
    pub steps: Vec<Step>,
    /// What the node's status shall say is attached.
    pub reported: Vec<String>,
}

pub(super) fn plan(view: &View) -> Plan {
    let mut plan = Plan { steps: Vec::new(), reported: Vec::new() };
    let node = view.node.map(|n| n.name().to_owned());
    for (index, wanted) in view.wanted.iter().enumerate() {
        let Some(node) = &node else { continue };
        let name = wanted.attachment_name(node);
        match view.attached.iter().find(|a| a.name() == name) {
            Some(attachment) => {
                let status = attachment.status.as_ref();
                if let Some(error) = status.and_then(|s| s.attach_error.as_ref()) {
                    let why = error.message.clone().unwrap_or_default();
                    plan.steps
                        .push(Step::Failed(index, format!("AttachVolume.Attach failed for volume {:?} : {why}", wanted.volume.name())));
                } else if status.is_some_and(|s| s.attached) && !attachment.is_deleting() {
                    plan.reported.push(wanted.unique_name());
                }
                plan.steps.push(Step::Keep(name));
            }
            None => plan.steps.push(match (view.elsewhere)(wanted.volume.name()).first() {
                Some(other) if !wanted.is_shared() => Step::Refused(index, multi_attach(wanted, other)),
                _ => Step::Attach(index),
            }),
        }
    }
    let mut look_again: Option<Duration> = None;
    for attachment in view.attached {
        let is_wanted = node.as_ref().is_some_and(|node| view.wanted.iter().any(|w| w.attachment_name(node) == attachment.name()));
        // What others made by hand is theirs to delete.
        let is_ours = attachment.name().starts_with("csi-") && attachment.spec.source.persistent_volume_name.is_some();
        if is_wanted || !is_ours || attachment.is_deleting() {
            continue;
        }
        let handle = attachment.spec.source.persistent_volume_name.as_deref().and_then(view.handle_of);
        let waited = until(view.now, (view.unwanted_since)(attachment.name()));
        match hold(view.node, handle.as_deref(), waited) {
            None => plan.steps.push(Step::Detach(attachment.clone())),
            Some(left) => {
                plan.reported.extend(handle);
                look_again = Some(look_again.map_or(left, |l| l.min(left)));
            }
        }
    }
    plan.steps.extend(look_again.map(Step::LookAgain));
    plan.reported.sort();
    plan.reported.dedup();
    plan
}

/// How long a volume that nobody wants stays at most; `None`: it goes now.
fn hold(node: Option<&Node>, handle: Option<&str>, waited: Duration) -> Option<Duration> {
    let node = node?;
    let status = node.status.clone().unwrap_or_default();
    let is_mounted = handle.is_some_and(|handle| status.volumes_in_use.iter().flatten().any(|name| name == handle));
    let is_out_of_service =
        node.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten().any(|t| t.key == "node.kubernetes.io/out-of-service");
    if !is_mounted || is_out_of_service {
        return None;
    }
    let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    match UNMOUNT_WAIT.checked_sub(waited).filter(|left| !left.is_zero()) {
        Some(left) => Some(left),
        // Its kubelet lives and will say when it is done.
        None if is_ready => Some(UNMOUNT_WAIT),
        None => None,
    }
}

fn multi_attach(wanted: &Wanted, other: &VolumeAttachment) -> String {
    let volume = wanted.volume.name();
    let node = &other.spec.node_name;
    tracing::debug!(volume, node, "a volume for one node is still on another");
    format!("Multi-Attach error for volume {volume:?} Volume is already exclusively attached to one node and can't be attached to another")
}
