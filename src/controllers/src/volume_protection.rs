//! Keeps claims that pods use, and volumes that are bound, from being deleted.
//!
//! Models pkg/controller/volume/{pvcprotection,pvprotection}, v1.37. Left out: the condition Unused of claims.
//! Reads PersistentVolume, PersistentVolumeClaim, Pod. Writes their finalizers. Wakes on all of them.
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use client::{Client, Controller, Event, Informer, Kind, ListOptions, Named, Next, ObjectKey, controller_of};

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods;
use crate::volume_binding::{PODS_BY_CLAIM, claim_names, index_pods_by_claim};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

struct Context {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    pods: Informer<Pod>,
}

fn context(cx: &ControllerContext, name: &str) -> Arc<Context> {
    let (claims, volumes, pods) = (cx.informers.get(), cx.informers.get(), cx.informers.get());
    Arc::new(Context { client: cx.client(name), claims, volumes, pods })
}

pub(crate) async fn run(cx: ControllerContext) {
    let (for_claims, for_volumes) = (context(&cx, "pvc-protection-controller"), context(&cx, "pv-protection-controller"));
    index_pods_by_claim(&for_claims.pods);
    let (claims, volumes, pods) = (for_claims.claims.clone(), for_claims.volumes.clone(), for_claims.pods.clone());
    let on_claims = Controller::new("pvc-protection-controller", for_claims)
        .reconciles(&claims)
        .watches(&pods, |_, event| {
            let pod = event.object();
            let frees = matches!(event, Event::Deleted(_)) || pods::is_terminated(pod) || pods::node_name(pod).is_empty();
            let keys = claim_names(pod).into_iter().map(|name| ObjectKey::new(pod.namespace(), name));
            keys.filter(|_| frees).collect()
        })
        .run(|cx, key| async move { reconcile_claim(&cx, &key).await });
    let on_volumes = Controller::new("pv-protection-controller", for_volumes)
        .reconciles(&volumes)
        .run(|cx, key| async move { reconcile_volume(&cx, &key).await });
    futures::future::join(on_claims, on_volumes).await;
}

async fn reconcile_claim(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(claim) = cx.claims.get(key) else { return Ok(Next::Wait) };
    if !claim.is_deleting() {
        add(&cx.client, &*claim, CLAIM_FINALIZER).await?;
        return Ok(Next::Wait);
    }
    if !has(&*claim, CLAIM_FINALIZER) || cx.pods.by_index(PODS_BY_CLAIM, &key.to_string()).iter().any(|p| uses(p, &claim)) {
        return Ok(Next::Wait);
    }
    // A pod that the cache does not show yet would lose its claim.
    let pods = cx.client.list::<Pod>(&key.namespace, &ListOptions::default()).await;
    let pods = pods.during(|| format!("list the pods that use PersistentVolumeClaim {key}"))?;
    if !pods.items.iter().any(|p| uses(p, &claim)) {
        remove(&cx.client, &*claim, CLAIM_FINALIZER).await?;
    }
    Ok(Next::Wait)
}

async fn reconcile_volume(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(volume) = cx.volumes.get(key) else { return Ok(Next::Wait) };
    if !volume.is_deleting() {
        add(&cx.client, &*volume, VOLUME_FINALIZER).await?;
    } else if volume.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        remove(&cx.client, &*volume, VOLUME_FINALIZER).await?;
    }
    Ok(Next::Wait)
}

/// A pod without a node does not count: no kubelet starts it with a claim that is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let is_shut_down = pod.is_deleting() && pod.metadata.deletion_grace_period_seconds == Some(0);
    let is_for_pod = controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.uid());
    !pods::node_name(pod).is_empty()
        && pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|volume| {
            let named = volume.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == claim.name());
            let own = volume.ephemeral.is_some() && format!("{}-{}", pod.name(), volume.name) == claim.name();
            named || own && is_for_pod && !is_shut_down
        })
}

fn has(object: &impl Named, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|f| f == finalizer)
}

pub(crate) async fn add<K: Kind>(client: &Client, object: &K, finalizer: &str) -> Result<(), Failure> {
    if has(object, finalizer) {
        return Ok(());
    }
    let mut update = object.clone();
    update.metadata_mut().finalizers.get_or_insert_default().push(finalizer.to_owned());
    let step = || format!("protect {} {}", K::KIND, ObjectKey::of(object));
    unless_gone(client.update(&update).await).map(|_| ()).during(step)
}

pub(crate) async fn remove<K: Kind>(client: &Client, object: &K, finalizer: &str) -> Result<(), Failure> {
    if !has(object, finalizer) {
        return Ok(());
    }
    let mut update = object.clone();
    update.metadata_mut().finalizers.get_or_insert_default().retain(|f| f != finalizer);
    let step = || format!("let {} {} go", K::KIND, ObjectKey::of(object));
    unless_gone(client.update(&update).await).map(|_| ()).during(step)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_used_by_pods_that_have_a_node() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": "p-v", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod", "controller": true}]}}))
        .unwrap();
        let pod = |node: &str, volume: serde_json::Value| -> Pod {
            let spec = json!({"nodeName": node, "containers": [], "volumes": [volume]});
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": "pod"}, "spec": spec})).unwrap()
        };
        let named = json!({"name": "x", "persistentVolumeClaim": {"claimName": "p-v"}});
        let own = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        assert!(uses(&pod("n", named.clone()), &claim) && uses(&pod("n", own), &claim));
        assert!(!uses(&pod("", named), &claim) && !uses(&pod("n", json!({"name": "v", "emptyDir": {}})), &claim));
    }
}
