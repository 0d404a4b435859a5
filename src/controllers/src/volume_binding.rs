//! Binds PersistentVolumeClaims to PersistentVolumes, and says what becomes of volumes that are let go.
//!
//! Models pkg/controller/volume/persistentvolume/pv_controller.go, v1.37; which volume suits is in [`api::volume`].
//! Left out: provisioners, deleters and recyclers in the tree (there is none for hostPath here: it would act on the server's own
//! disk); migration to CSI. A binding is four writes, each of which can be the last before a crash; all are done again.
//! Reads PersistentVolume, PersistentVolumeClaim, StorageClass, Pod. Writes volumes, claims, and the status of both.
//! Wakes on all of them: a volume that becomes available wakes the claims that wait.
mod claim;
#[cfg(test)]
mod tests;
mod volume;
mod writes;

use std::sync::Arc;

use api::volume::BIND_COMPLETED;
use client::k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use client::k8s_openapi::api::storage::v1::StorageClass;
use client::{Client, Controller, Event, EventRecorder, Informer, Named, ObjectKey, WorkQueue};

use crate::context::ControllerContext;

const NAME: &str = "persistent-volume-binder";
/// Volumes by the claim that they refer to, `namespace/name`.
const BY_CLAIM: &str = "volume-claim-ref";
/// Pods by the claims that they use, `namespace/name`.
pub(crate) const PODS_BY_CLAIM: &str = "pod-claims";

struct Context {
    client: Client,
    recorder: EventRecorder,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
}

/// Lets pods be found by the claims they use.
pub(crate) fn index_pods_by_claim(pods: &Informer<Pod>) {
    pods.add_index(PODS_BY_CLAIM, |pod: &Pod| claim_names(pod).into_iter().map(|name| format!("{}/{name}", pod.namespace())).collect());
}

/// The claims that a pod uses, those of its ephemeral volumes included.
pub(crate) fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &client::k8s_openapi::api::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), v.name)),
        (None, None) => None,
    };
    volumes.filter_map(name).collect()
}

fn claim_key(reference: &ObjectReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default())
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, "persistentvolume-controller"),
        client,
        volumes: cx.informers.get(),
        claims: cx.informers.get(),
        classes: cx.informers.get(),
        pods: cx.informers.get(),
    });
    index_pods_by_claim(&cx.pods);
    cx.volumes.add_index(BY_CLAIM, |v: &PersistentVolume| claim_ref(v).map(|r| claim_key(r).to_string()).into_iter().collect());
    let (volumes, claims, classes, pods) = (cx.volumes.clone(), cx.claims.clone(), cx.classes.clone(), cx.pods.clone());
    // One worker for each: two claims must not choose the same volume at once.
    let on_volumes = Controller::new("persistent-volume-binder-volumes", cx.clone()).workers(1);
    let (volume_queue, claims_seen) = (on_volumes.queue(), claims.clone());
    let on_volumes = on_volumes.reconciles(&volumes).on(&claims_seen, wake_volumes);
    let on_claims = Controller::new("persistent-volume-binder-claims", cx)
        .workers(1)
        .reconciles(&claims)
        .on(&volumes, wake_claims)
        .watches(&classes, |cx, _| waiting_claims(cx))
        .on(&pods, |_, _, _| {});
    let claim_queue = on_claims.queue();
    futures::future::join(
        on_volumes.run(move |cx, key| {
            let queue = claim_queue.clone();
            async move { volume::reconcile(&cx, &key, &queue).await }
        }),
        on_claims.run(move |cx, key| {
            let queue = volume_queue.clone();
            async move { claim::reconcile(&cx, &key, &queue).await }
        }),
    )
    .await;
}

/// A claim concerns the volume it names, and those that refer to it.
fn wake_volumes(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<PersistentVolumeClaim>) {
    for claim in event.states() {
        if !volume_name(claim).is_empty() {
            queue.add(ObjectKey::cluster(volume_name(claim)));
        }
    }
    let key = event.object().key().to_string();
    cx.volumes.by_index(BY_CLAIM, &key).iter().for_each(|volume| queue.add(volume.key()));
}

/// A volume concerns the claim it refers to, and if it is free all that wait.
fn wake_claims(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<PersistentVolume>) {
    let volume = event.object();
    if let Some(reference) = claim_ref(volume) {
        queue.add(claim_key(reference));
    } else if !matches!(event, Event::Deleted(_)) {
        waiting_claims(cx).into_iter().for_each(|key| queue.add(key));
    }
    // A claim may name a volume that is new, or gone.
    if !matches!(event, Event::Updated { .. }) {
        let named = cx.claims.list().into_iter().filter(|c| volume_name(c) == volume.name());
        named.for_each(|claim| queue.add(claim.key()));
    }
}

fn waiting_claims(cx: &Context) -> Vec<ObjectKey> {
    let claims = cx.claims.list();
    claims.iter().filter(|c| c.annotation(BIND_COMPLETED).is_none()).map(|c| c.key()).collect()
}
