//! Says who enlarges a claim's volume: never this process, always the driver's own controller.
//!
//! Models pkg/controller/volume/expand/expand_controller.go, v1.37, with no plugin in the tree that could expand.
//! Reads PersistentVolumeClaim, PersistentVolume. Writes Events. Wakes on claims whose request has grown.
use std::sync::Arc;

use api::quantity::Quantity;
use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use client::{Controller, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey};

use crate::context::ControllerContext;
use crate::failure::Failure;

struct Context {
    recorder: EventRecorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client("expand-controller");
    let cx = Arc::new(Context { recorder: cx.recorder(&client, "volume_expand"), claims: cx.informers.get(), volumes: cx.informers.get() });
    let (claims, volumes) = (cx.claims.clone(), cx.volumes.clone());
    Controller::new("volume_expand", cx)
        .watches(&claims, |_, event| {
            let has_grown = match event {
                Event::Updated { old, new } => requested(new) > requested(old),
                Event::Added(_) => true,
                Event::Deleted(_) => false,
            };
            has_grown.then(|| event.object().key()).into_iter().collect()
        })
        .on(&volumes, |_, _, _| {})
        .run(|cx, key| async move { reconcile(&cx, &key) })
        .await;
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Quantity::parse(&requests.get("storage")?.0).ok()
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    Quantity::parse(&claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0).ok()
}

fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(claim) = cx.claims.get(key) else { return Ok(Next::Wait) };
    let is_bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if !is_bound || requested(&claim) <= capacity(&claim) {
        return Ok(Next::Wait);
    }
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
    let Some(volume) = cx.volumes.get(&ObjectKey::cluster(name)) else { return Ok(Next::Wait) };
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.is_some_and(|r| r.uid.as_deref() == Some(claim.uid())) {
        let text = "waiting for an external controller to expand this PVC";
        cx.recorder.record(&*claim, EventType::Normal, "ExternalExpanding", text);
    }
    Ok(Next::Wait)
}
