//! Evicts pods from devices with a NoExecute taint that their claims do not tolerate (any longer).
//!
//! Models pkg/controller/devicetainteviction/device_taint_eviction.go, v1.37. Left out: the conditions of DeviceTaintRules that tell how far
//! an eviction has come.
//! Reads Pod, ResourceClaim, ResourceSlice, DeviceTaintRule. Writes Pod/status; deletes pods.
//! Wakes on pods with claims, on the claims, and on slices and rules, whose taints may concern every such pod.
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceTaintRule, DeviceToleration, ResourceClaim, ResourceSlice,
};
use client::{Client, Clock, Controller, DeleteOptions, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, Patch};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods::{is_terminated, node_name};

const NAME: &str = "device-taint-eviction-controller";
/// Pods by the claims that they use.
const BY_CLAIM: &str = "device-taint-claim";

struct Context {
    client: Client,
    recorder: EventRecorder,
    clock: Clock,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    rules: Informer<DeviceTaintRule>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let recorder = cx.recorder(&client, NAME);
    let (pods, claims) = (cx.informers.get::<Pod>(), cx.informers.get::<ResourceClaim>());
    let (slices, rules) = (cx.informers.get::<ResourceSlice>(), cx.informers.get::<DeviceTaintRule>());
    pods.add_index(BY_CLAIM, |pod| claim_names(pod).map(|name| format!("{}/{name}", pod.namespace())).collect());
    let clock = cx.clock.clone();
    let cx = Arc::new(Context {
        client,
        recorder,
        clock,
        pods: pods.clone(),
        claims: claims.clone(),
        slices: slices.clone(),
        rules: rules.clone(),
    });
    Controller::new(NAME, cx)
        .watches(&pods, |_, event| {
            let pod = event.object();
            let has_any = claim_names(pod).next().is_some() && !matches!(event, Event::Deleted(_));
            has_any.then(|| pod.key()).into_iter().collect()
        })
        .watches(&claims, |cx, event| {
            let pods = cx.pods.by_index(BY_CLAIM, &event.object().key().to_string());
            pods.iter().map(|p| p.key()).collect()
        })
        .watches(&slices, |cx, event| {
            let tainted = |s: &Arc<ResourceSlice>| s.spec.devices.iter().flatten().any(|d| d.taints.iter().flatten().any(is_evicting));
            if event.states().any(tainted) { all(cx) } else { Vec::new() }
        })
        .watches(&rules, |cx, event| if event.states().any(|r| is_evicting(&r.spec.taint)) { all(cx) } else { Vec::new() })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// Pods that use allocated claims.
fn all(cx: &Context) -> Vec<ObjectKey> {
    let claims = cx.claims.list().into_iter().filter(|c| c.status.as_ref().is_some_and(|s| s.allocation.is_some()));
    claims.flat_map(|claim| cx.pods.by_index(BY_CLAIM, &claim.key().to_string())).map(|pod| pod.key()).collect()
}

fn claim_names(pod: &Pod) -> impl Iterator<Item = String> {
    let made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    let made = made.filter_map(|s| s.resource_claim_name.clone());
    let named = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    named.filter_map(|c| c.resource_claim_name.clone()).chain(made)
}

fn is_evicting(taint: &DeviceTaint) -> bool {
    taint.effect == "NoExecute"
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(pod) = cx.pods.get(key).filter(|p| !node_name(p).is_empty() && !p.is_deleting() && !is_terminated(p)) else {
        return Ok(Next::Wait);
    };
    let claims = claim_names(&pod).filter_map(|name| cx.claims.get(&ObjectKey::new(pod.namespace(), name)));
    let reserved = |c: &Arc<ResourceClaim>| c.status.iter().flat_map(|s| s.reserved_for.iter().flatten()).any(|r| r.uid == pod.uid());
    let (slices, rules) = (cx.slices.list(), cx.rules.list());
    let due = claims.filter(reserved).filter_map(|claim| eviction_time(&claim, &slices, &rules)).min();
    let now = cx.clock.now();
    match due {
        None => Ok(Next::Wait),
        Some(due) if due > now => Ok(Next::After(due.duration_since(now).unsigned_abs())),
        Some(_) => evict(cx, &pod).await.map(|()| Next::Wait),
    }
}

/// When the claim's pods have to go; `None` where nothing asks for that.
fn eviction_time(claim: &ResourceClaim, slices: &[Arc<ResourceSlice>], rules: &[Arc<DeviceTaintRule>]) -> Option<Timestamp> {
    let allocation = claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref()?;
    let devices = allocation.results.iter().flatten();
    devices.flat_map(|device| taints(device, slices, rules).into_iter().filter_map(move |taint| time_of(device, &taint))).min()
}

/// A taint that is tolerated for a time counts from when it was added.
fn time_of(device: &DeviceRequestAllocationResult, taint: &DeviceTaint) -> Option<Timestamp> {
    let added = taint.time_added.as_ref()?.0;
    let tolerating = device.tolerations.iter().flatten().filter(|t| t.effect.as_deref() == Some("NoExecute") && tolerates(t, taint));
    let mut seconds: Option<i64> = None;
    for toleration in tolerating {
        let given = toleration.toleration_seconds?.max(0);
        seconds = Some(seconds.map_or(given, |s| s.min(given)));
    }
    added.checked_add(SignedDuration::from_secs(seconds.unwrap_or_default())).ok()
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = |v: &Option<String>| v.clone().unwrap_or_default();
    (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            "" | "Equal" => value(&toleration.value) == value(&taint.value),
            _ => false,
        }
}

/// The evicting taints of a device: its own, and those of rules.
fn taints(device: &DeviceRequestAllocationResult, slices: &[Arc<ResourceSlice>], rules: &[Arc<DeviceTaintRule>]) -> Vec<DeviceTaint> {
    let of_pool = slices.iter().filter(|s| s.spec.driver == device.driver && s.spec.pool.name == device.pool);
    let newest = of_pool.clone().map(|s| s.spec.pool.generation).max();
    let own = of_pool
        .filter(|s| Some(s.spec.pool.generation) == newest)
        .flat_map(|s| s.spec.devices.iter().flatten())
        .filter(|d| d.name == device.device)
        .flat_map(|d| d.taints.iter().flatten());
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|w| w == value);
    let by_rule = rules.iter().filter(|rule| {
        let selector = rule.spec.device_selector.as_ref();
        selector.is_some_and(|s| is(&s.driver, &device.driver) && is(&s.pool, &device.pool) && is(&s.device, &device.device))
    });
    own.chain(by_rule.map(|r| &r.spec.taint)).filter(|t| is_evicting(t)).cloned().collect()
}

async fn evict(cx: &Context, pod: &Pod) -> Result<(), Failure> {
    let key = pod.key();
    cx.recorder.record(pod, EventType::Normal, "DeviceTaintManagerEviction", "Marking for deletion");
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByDeviceTaintManager", "lastTransitionTime": cx.clock.time(),
        "message": "Device Taint manager: deleting due to NoExecute taint", "observedGeneration": pod.metadata.generation,
    });
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}}));
    let told = unless_gone(cx.client.patch_status::<Pod>(&key, &patch).await).during(|| format!("mark pod {key} as disrupted"))?;
    if told.is_some() {
        let deleted = cx.client.delete::<Pod>(&key, &DeleteOptions::uid(pod.uid())).await;
        unless_gone(deleted).during(|| format!("delete pod {key}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds from the taint to the eviction.
    fn due(tolerations: serde_json::Value, selector: serde_json::Value) -> Option<i64> {
        let result = json!({"driver": "d", "pool": "p", "device": "gpu-0", "request": "r", "tolerations": tolerations});
        let status = json!({"allocation": {"devices": {"results": [result]}}});
        let claim: ResourceClaim = serde_json::from_value(json!({"metadata": {"name": "c"}, "status": status})).unwrap();
        let taint = json!({"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
        let rule = json!({"metadata": {"name": "r"}, "spec": {"deviceSelector": selector, "taint": taint}});
        let rules = [Arc::new(serde_json::from_value(rule).unwrap())];
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        eviction_time(&claim, &[], &rules).map(|t| t.duration_since(start).as_secs())
    }

    #[test]
    fn a_pod_stays_for_as_long_as_its_claim_tolerates() {
        let all = json!({"driver": "d"});
        assert_eq!(due(json!([]), all.clone()), Some(0));
        assert_eq!(due(json!([]), json!({"driver": "d", "device": "gpu-1"})), None);
        let tolerated =
            |seconds: serde_json::Value| json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        assert_eq!(due(tolerated(30.into()), all.clone()), Some(30));
        assert_eq!(due(tolerated(serde_json::Value::Null), all), None);
    }
}
