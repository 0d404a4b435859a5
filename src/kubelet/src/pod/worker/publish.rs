//! Writes the pod's status: one patch at a time, always the newest, never an older one over a newer one.
//!
//! Models pkg/kubelet/status/status_manager.go, v1.37. Whatever happens while a patch is under way goes into the next.

use std::sync::Arc;
use std::time::Duration;

use client::{ApiError, DeleteOptions, ObjectKey, Patch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use tracing::warn;

use super::{Sandbox, Worker};
use crate::allocation::{IN_PROGRESS, PENDING};
use crate::images::chain;
use crate::pod::event::{Event, StatusFailure};
use crate::pod::record::Record;
use crate::pod::status::{Facts, status};
use crate::time;

const OWN_CONDITIONS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Publisher {
    in_flight: bool,
    deleting: bool,
    failures: u32,
    /// What was written last. The server may keep it in another form; that alone is no reason to write it again.
    written: Option<PodStatus>,
    pub retry_at: Option<Timestamp>,
    /// When a failed refresh of volumes is tried again.
    pub refresh_at: Option<Timestamp>,
    /// The API no longer knows the pod; the informer will say so too.
    gone: bool,
}

impl Worker {
    pub(super) fn publish(&mut self) {
        let now = time::now();
        if self.publisher.in_flight || self.publisher.gone || self.removed || self.publisher.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.settle_resize();
        let new = status(&self.pod, &self.records, &self.facts(), now);
        let old = self.pod.status.clone().unwrap_or_default();
        let known = self.publisher.written.as_ref() == Some(&new) && !overwritten(&old, &new);
        let patch = if known { None } else { patch(&old, &new, &self.uid) };
        let Some(patch) = patch else {
            self.delete_when_final();
            return;
        };
        self.publisher.written = Some(new);
        self.publisher.in_flight = true;
        self.publisher.retry_at = None;
        let (client, key, events) = (self.cx.client.clone(), ObjectKey::of(&*self.pod), self.events.0.clone());
        self.tasks.spawn_owing(Event::StatusWritten(Err(StatusFailure::died())), async move {
            let result = client.patch_status::<Pod>(&key, &Patch::Strategic(patch)).await;
            let _ = events.send(Event::StatusWritten(result.map(Arc::new).map_err(failure))).await;
        });
    }

    fn facts(&self) -> Facts {
        let pod_ips = match &self.sandbox {
            Sandbox::Ready { pod_ips, .. } => pod_ips.clone(),
            _ => Vec::new(),
        };
        let view = self.cx.allocations.view(&self.uid);
        Facts {
            resize: view.as_ref().map(|v| v.conditions.clone()).unwrap_or_default(),
            actuated: view.map(|v| (v.actuated, v.cgroup)),
            sandbox_ready: matches!(self.sandbox, Sandbox::Ready { .. }),
            pod_ips,
            host_ip: self.cx.config.node_ip.to_string(),
            started_at: Some(self.started_at),
            terminating: self.pod.metadata.deletion_timestamp.is_some(),
            verdict: self.verdict.clone(),
            all_stopped: self.ending() && matches!(self.sandbox, Sandbox::Gone) && self.records.iter().all(|r| r.running().is_none()),
        }
    }

    pub(super) fn status_written(&mut self, result: Result<Arc<Pod>, StatusFailure>) {
        self.publisher.in_flight = false;
        match result {
            Ok(pod) => {
                self.publisher.failures = 0;
                self.newer(pod);
            }
            Err(error) if error.gone => self.publisher.gone = true,
            Err(error) => {
                warn!(pod = self.pod.metadata.name, error = error.message, "write the pod's status");
                self.publisher.written = None;
                self.postpone();
            }
        }
    }

    fn postpone(&mut self) {
        self.publisher.failures += 1;
        let delay = Duration::from_secs(1 << self.publisher.failures.min(5)).min(RETRY_MAX);
        self.publisher.retry_at = Some(time::after(time::now(), delay));
    }

    /// Takes `pod` as the API's word, unless what is known is newer.
    pub(super) fn newer(&mut self, pod: Arc<Pod>) {
        if pod.metadata.uid != self.pod.metadata.uid {
            return;
        }
        let version = |p: &Pod| p.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
        if version(&pod) >= version(&self.pod) {
            self.pod = self.cx.allocations.consider(&pod);
        }
    }

    /// The last write of a pod that was deleted: it leaves the API.
    fn delete_when_final(&mut self) {
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        if !deleting || self.publisher.deleting || !matches!(self.sandbox, Sandbox::Gone) || self.records.iter().any(|r: &Record| r.running().is_some()) {
            return;
        }
        self.publisher.deleting = true;
        let (client, key, events, uid) = (self.cx.client.clone(), ObjectKey::of(&*self.pod), self.events.0.clone(), self.uid.clone());
        self.tasks.spawn_owing(Event::Deleted(Err(StatusFailure::died())), async move {
            let result = client.delete::<Pod>(&key, &DeleteOptions::uid(uid).now()).await;
            let _ = events.send(Event::Deleted(result.map_err(failure))).await;
        });
    }

    pub(super) fn deleted(&mut self, result: Result<(), StatusFailure>) {
        match result {
            // Finalizers may keep it; it is not asked again.
            Ok(()) => {}
            Err(error) if error.gone => self.publisher.gone = true,
            Err(error) => {
                warn!(pod = self.pod.metadata.name, error = error.message, "delete the pod");
                self.publisher.deleting = false;
                self.postpone();
            }
        }
    }

    pub(super) fn gone_from_api(&self) -> bool {
        self.removed || self.publisher.gone
    }
}

fn failure(error: ApiError) -> StatusFailure {
    // A conflict is another pod of the same name: ours is gone.
    StatusFailure { gone: error.is_not_found() || error.is_conflict(), message: chain(&error) }
}

/// Whether somebody else has changed a condition that is the kubelet's: the node controller marks pods of a silent node not ready.
/// Models needsReconcile.
fn overwritten(api: &PodStatus, own: &PodStatus) -> bool {
    let stated = |status: &PodStatus, kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind).map(|c| c.status.clone());
    OWN_CONDITIONS.iter().any(|kind| stated(own, kind).is_some_and(|state| stated(api, kind) != Some(state)))
}

/// The strategic merge patch from `old` to `new`, for this pod only. Conditions of others are left alone.
fn patch(old: &PodStatus, new: &PodStatus, uid: &str) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (serde_json::to_value(old), serde_json::to_value(new)) else { return None };
    let mut status = Map::new();
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        status.insert(key.clone(), Value::Null);
    }
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => {
                let Value::Array(mut items) = changed(old.get(key), value, "type") else { continue };
                let stays = |kind: &str| value.as_array().into_iter().flatten().any(|c| c["type"] == kind);
                let before = |kind: &str| old.get(key).and_then(Value::as_array).into_iter().flatten().any(|c| c["type"] == kind);
                let gone = [PENDING, IN_PROGRESS].into_iter().filter(|kind| before(kind) && !stays(kind));
                items.extend(gone.map(|kind| json!({"$patch": "delete", "type": kind})));
                Value::Array(items)
            }
            "resources" | "allocatedResources" => {
                let mut value = value.clone();
                value["$patch"] = json!("replace");
                value
            }
            "podIPs" | "hostIPs" => {
                // Merged by address: what is no longer ours must be named to go.
                let Value::Array(items) = value else { continue };
                let gone = old.get(key).and_then(Value::as_array).into_iter().flatten().filter(|o| !items.contains(o));
                let gone: Vec<Value> = gone.map(|o| json!({"$patch": "delete", "ip": o["ip"]})).collect();
                Value::Array(items.iter().cloned().chain(gone).collect())
            }
            _ => value.clone(),
        };
        status.insert(key.clone(), value);
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn changed(old: Option<&Value>, new: &Value, key: &str) -> Value {
    let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let items = new.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = Vec::new();
    for item in items.iter().filter(|i| !before.contains(i)) {
        let mut item = item.clone();
        // A field that is gone must be said to be gone.
        let was = before.iter().find(|b| b[key] == item[key]);
        if let (Some(map), Some(Value::Object(was))) = (item.as_object_mut(), was) {
            for field in was.keys() {
                if !map.contains_key(field) {
                    map.insert(field.clone(), Value::Null);
                }
            }
        }
        out.push(item);
    }
    Value::Array(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_others_changed_is_written_again() {
        let of = |ready: &str| -> PodStatus { serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": ready}, {"type": "PodScheduled", "status": ready}]})).expect("a status") };
        assert!(overwritten(&of("False"), &of("True")));
        assert!(!overwritten(&of("True"), &of("True")));
    }

    #[test]
    fn the_end_of_a_resize_takes_its_conditions_away() {
        let of = |v: Value| -> PodStatus { serde_json::from_value(json!({"conditions": v})).expect("a status") };
        let ready = json!({"type": "Ready", "status": "True"});
        let old = of(json!([ready, {"type": "PodResizeInProgress", "status": "True"}]));
        let expect = json!({"metadata": {"uid": "u"}, "status": {"conditions": [{"$patch": "delete", "type": "PodResizeInProgress"}]}});
        assert_eq!(patch(&old, &of(json!([ready])), "u"), Some(expect));
    }

    #[test]
    fn a_patch_names_what_changed_and_nothing_else() {
        let of = |v: Value| -> PodStatus { serde_json::from_value(v).expect("a status") };
        let old = of(json!({"phase": "Pending", "reason": "x", "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}, {"type": "own/gate", "status": "True"}]}));
        let new = of(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "own/gate", "status": "True"}]}));
        assert_eq!(patch(&old, &old, "u"), None);
        assert_eq!(
            patch(&old, &new, "u"),
            Some(json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null,
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]}}))
        );
    }
}
