//! Makes volumes out of folders on the nodes (provisioner `rk.io/local-path`), and removes them with what they hold.
//!
//! Models sigs.k8s.io/sig-storage-lib-external-provisioner controller.go, v13 (which claims are ours, when a volume is given back, its
//! finalizer and events), and what users know as local-path-provisioner. A volume stands in the API before anything is on the node: the
//! kubelet makes the folder for the first pod, so no crash leaves one that nobody knows. It is removed by a pod on that node that runs this
//! program with no other folder in sight; no node needs a right for it. Left out: a limit of what is written (the request is recorded only).
//! Reads PersistentVolumeClaim, PersistentVolume, StorageClass, Node, Pod. Writes PersistentVolume, the claim's chosen node, and those pods.
mod make;
mod remover;
#[cfg(test)]
mod tests;
mod volume;

use std::sync::Arc;

use api::volume::LOCAL_PROVISIONER;
use client::k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use client::k8s_openapi::api::storage::v1::StorageClass;
use client::{Client, Clock, Controller, Event, EventRecorder, Informer, Named, ObjectKey};

use crate::context::ControllerContext;

const NAME: &str = "local-storage-controller";
/// Of volumes that are removed with their claim: they stay until their folder is gone, whoever deletes them.
const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

struct Context {
    client: Client,
    recorder: EventRecorder,
    clock: Clock,
    image: String,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, LOCAL_PROVISIONER),
        client,
        clock: cx.clock.clone(),
        image: cx.config.system_image.clone(),
        claims: cx.informers.get(),
        volumes: cx.informers.get(),
        classes: cx.informers.get(),
        nodes: cx.informers.get(),
        pods: cx.informers.get(),
    });
    let (claims, volumes, classes, nodes, pods) =
        (cx.claims.clone(), cx.volumes.clone(), cx.classes.clone(), cx.nodes.clone(), cx.pods.clone());
    let on_claims = Controller::new("local-storage-claims", cx.clone())
        .on(&claims, |_, queue, event| {
            if make::is_asked(event.object()) {
                queue.add(event.object().key());
            }
        })
        .watches(&classes, |cx, _| waiting_claims(cx))
        .watches(&nodes, |cx, event| if has_come_or_gone(event) { waiting_claims(cx) } else { Vec::new() })
        .on(&volumes, |_, _, _| {})
        .run(|cx, key| async move { make::reconcile(&cx, &key).await });
    let on_volumes = Controller::new("local-storage-volumes", cx)
        .on(&volumes, |_, queue, event| {
            if volume::is_ours(event.object()) {
                queue.add(event.object().key());
            }
        })
        .watches(&pods, |_, event| remover::volume_of(event.object()).into_iter().collect())
        .watches(&nodes, |cx, event| {
            let ours = cx.volumes.list().into_iter().filter(|v| volume::is_ours(v) && has_come_or_gone(event));
            ours.map(|v| v.key()).collect()
        })
        .run(|cx, key| async move { volume::reconcile(&cx, &key).await });
    futures::future::join(on_claims, on_volumes).await;
}

/// Nodes write their status often; what matters here is whether there is one, and where its volumes are.
fn has_come_or_gone(event: &Event<Node>) -> bool {
    let mut folders = event.states().map(|node| node.annotation(api::volume::LOCAL_STORAGE));
    !matches!(event, Event::Updated { .. }) || folders.next() != folders.next()
}

fn waiting_claims(cx: &Context) -> Vec<ObjectKey> {
    cx.claims.list().iter().filter(|claim| make::is_asked(claim)).map(|claim| claim.key()).collect()
}
