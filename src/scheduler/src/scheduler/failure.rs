//! Telling why a pod waits: an event, the condition PodScheduled, and the node that it was promised.
//!
//! Models pkg/scheduler/schedule_one.go `handleSchedulingFailure`, v1.37.
use std::sync::Arc;

use client::{Client, EventType, Named, ObjectKey, Patch};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Scheduler;
use crate::pod::PodInfo;
use crate::queue::Rejectors;

/// Events carry no more (events.k8s.io `NoteLengthLimit`).
const NOTE_BYTES_MAX: usize = 1024;

/// What becomes of the pod's nominated node.
#[derive(Debug, PartialEq, Eq)]
pub enum Nominate {
    Unchanged,
    /// It has none.
    Nothing,
    Node(String),
}

#[derive(Debug)]
pub struct Failure {
    pub message: String,
    /// Who turned the pod away; none where something went wrong.
    pub rejectors: Option<Rejectors>,
    pub nominate: Nominate,
}

impl Failure {
    pub fn unschedulable(message: String, rejectors: Rejectors, nominate: Nominate) -> Self {
        Self { message, rejectors: Some(rejectors), nominate }
    }

    pub fn error(message: String) -> Self {
        Self { message, rejectors: None, nominate: Nominate::Nothing }
    }

    fn reason(&self) -> &'static str {
        if self.rejectors.is_some() { "Unschedulable" } else { "SchedulerError" }
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= NOTE_BYTES_MAX {
        return message.to_owned();
    }
    let end = (0..=NOTE_BYTES_MAX - 4).rev().find(|i| message.is_char_boundary(*i)).unwrap_or_default();
    format!("{} ...", &message[..end])
}

/// The change of the pod's status; `None` where it says so already.
fn status_patch(object: &Pod, failure: &Failure, time: &Value) -> Option<Value> {
    let conditions = object.status.as_ref().and_then(|s| s.conditions.as_ref());
    let old = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled");
    let generation = object.metadata.generation.filter(|g| *g > 0);
    let is_told = old.is_some_and(|c| {
        let same_text = c.message.as_deref() == Some(&failure.message) && c.reason.as_deref() == Some(failure.reason());
        c.status == "False" && same_text && c.observed_generation == generation
    });
    let nominated = object.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default();
    let wanted = match &failure.nominate {
        Nominate::Unchanged => nominated,
        Nominate::Nothing => "",
        Nominate::Node(node) => node,
    };
    let mut status = json!({});
    if !is_told {
        let since = old.filter(|c| c.status == "False").and_then(|c| serde_json::to_value(c.last_transition_time.as_ref()?).ok());
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": failure.reason(), "message": failure.message,
            "observedGeneration": generation, "lastTransitionTime": since.as_ref().unwrap_or(time), "lastProbeTime": null,
        }]);
    }
    if wanted != nominated {
        status["nominatedNodeName"] = if wanted.is_empty() { Value::Null } else { wanted.into() };
    }
    let changes = status.as_object().is_some_and(|s| !s.is_empty());
    changes.then(|| json!({"metadata": {"uid": object.uid()}, "status": status}))
}

/// Writes the status in the background; a pod that has gone is no news.
pub(super) fn write_status(client: &Client, key: ObjectKey, patch: Value) {
    let client = client.clone();
    tokio::spawn(async move {
        if let Err(error) = client.patch_status_unread::<Pod>(&key, &Patch::Strategic(patch)).await {
            tracing::debug!(pod = %key, error = &error as &dyn std::error::Error, "status not written");
        }
    });
}

impl Scheduler {
    pub(super) fn report(&mut self, pod: &Arc<PodInfo>, profile: usize, failure: Failure) {
        tracing::debug!(pod = %pod.key, message = failure.message, "no node");
        match &failure.nominate {
            Nominate::Unchanged => self.nominator.set(pod.clone(), None),
            Nominate::Nothing => drop(self.nominator.remove(&pod.key)),
            Nominate::Node(node) => self.nominator.set(pod.clone(), Some(node)),
        }
        let Some(object) = self.pods.get(&pod.key).filter(|o| o.uid() == pod.uid) else { return };
        self.events[profile].record(&*object, EventType::Warning, "FailedScheduling", shortened(&failure.message));
        let time = serde_json::to_value(self.clock.time()).unwrap_or_default();
        if let Some(patch) = status_patch(&object, &failure, &time) {
            write_status(&self.client, pod.key.clone(), patch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u", "generation": 2}, "status": status})).unwrap()
    }

    fn failure(message: &str, nominate: Nominate) -> Failure {
        Failure::unschedulable(message.into(), Rejectors::default(), nominate)
    }

    #[test]
    fn what_is_told_already_is_not_written_again() {
        let told = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m", "observedGeneration": 2,
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let object = pod(json!({"conditions": [told], "nominatedNodeName": "a"}));
        assert_eq!(status_patch(&object, &failure("m", Nominate::Unchanged), &Value::Null), None);
        let patch = status_patch(&object, &failure("m", Nominate::Nothing), &Value::Null).unwrap();
        assert_eq!(patch["status"], json!({"nominatedNodeName": null}));
        let patch = status_patch(&object, &failure("n", Nominate::Node("b".into())), &Value::Null).unwrap();
        assert_eq!(patch["status"]["nominatedNodeName"], "b");
        assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_long_message_is_cut_for_the_event() {
        let text = "ä".repeat(600);
        let cut = shortened(&text);
        assert!(cut.len() <= NOTE_BYTES_MAX && cut.ends_with(" ..."));
    }
}
