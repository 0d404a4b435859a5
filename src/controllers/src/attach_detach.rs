//! Has the volumes of a node's pods attached to it, and detached when no pod there needs them.
//!
//! Models pkg/controller/volume/attachdetach/{attach_detach_controller,reconciler/reconciler}.go and pkg/volume/csi/csi_attacher.go, v1.37.
//! Only drivers outside of the tree attach anything: what is wanted is said by a VolumeAttachment, which the driver's attacher answers.
//! All state is in the API but one clock: since when a volume waits to be unmounted. Left out: the metrics of forced detaches.
//! Reads Node, Pod, PersistentVolumeClaim, PersistentVolume, CSIDriver, VolumeAttachment. Writes VolumeAttachment, Node/status, Events.
mod desired;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use client::k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use client::k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Clock, Controller, DeleteOptions, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, Patch};
use jiff::Timestamp;
use serde_json::json;

use self::desired::Wanted;
use self::plan::Step;
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods;
use crate::volume_binding::{PODS_BY_CLAIM, claim_names, index_pods_by_claim};

const NAME: &str = "attachdetach-controller";
const PODS_BY_NODE: &str = "attach-node";
const ATTACHMENTS_BY_NODE: &str = "node";
const ATTACHMENTS_BY_VOLUME: &str = "volume";
const POISON: &str = "nothing panics while it holds the lock";

struct Context {
    client: Client,
    recorder: EventRecorder,
    clock: Clock,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
    /// Nodes that wait for a volume to leave another one.
    waiting: Mutex<HashSet<ObjectKey>>,
    /// By attachment, since when nobody wants it.
    unwanted_since: Mutex<HashMap<String, Timestamp>>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        clock: cx.clock.clone(),
        nodes: cx.informers.get(),
        pods: cx.informers.get(),
        claims: cx.informers.get(),
        volumes: cx.informers.get(),
        drivers: cx.informers.get(),
        attachments: cx.informers.get(),
        waiting: Mutex::default(),
        unwanted_since: Mutex::default(),
    });
    add_indices(&cx);
    let (nodes, pods, claims) = (cx.nodes.clone(), cx.pods.clone(), cx.claims.clone());
    let (volumes, drivers, attachments) = (cx.volumes.clone(), cx.drivers.clone(), cx.attachments.clone());
    Controller::new(NAME, cx)
        .reconciles(&nodes)
        .watches(&pods, |_, event| {
            let pod = event.object();
            let concerns = !claim_names(pod).is_empty() && !pods::node_name(pod).is_empty();
            concerns.then(|| ObjectKey::cluster(pods::node_name(pod))).into_iter().collect()
        })
        .watches(&claims, |cx, event| nodes_of_claim(cx, &event.object().key()))
        .watches(&volumes, |cx, event| {
            let reference = event.object().spec.as_ref().and_then(|s| s.claim_ref.clone());
            let key = reference.map(|r| ObjectKey::new(r.namespace.unwrap_or_default(), r.name.unwrap_or_default()));
            key.map(|key| nodes_of_claim(cx, &key)).unwrap_or_default()
        })
        .watches(&drivers, |cx, _| cx.nodes.list().iter().map(|node| node.key()).collect())
        .watches(&attachments, on_attachment)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn add_indices(cx: &Context) {
    index_pods_by_claim(&cx.pods);
    cx.pods.add_index(PODS_BY_NODE, |pod: &Pod| Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()).into_iter().collect());
    cx.attachments.add_index(ATTACHMENTS_BY_NODE, |a: &VolumeAttachment| vec![a.spec.node_name.clone()]);
    cx.attachments
        .add_index(ATTACHMENTS_BY_VOLUME, |a: &VolumeAttachment| a.spec.source.persistent_volume_name.clone().into_iter().collect());
}

fn on_attachment(cx: &Context, event: &Event<VolumeAttachment>) -> Vec<ObjectKey> {
    let attachment = event.object();
    let mut keys = vec![ObjectKey::cluster(attachment.spec.node_name.clone())];
    if matches!(event, Event::Deleted(_)) {
        cx.unwanted_since.lock().expect(POISON).remove(attachment.name());
        keys.extend(cx.waiting.lock().expect(POISON).iter().cloned());
    }
    keys
}

fn nodes_of_claim(cx: &Context, claim: &ObjectKey) -> Vec<ObjectKey> {
    let users = cx.pods.by_index(PODS_BY_CLAIM, &claim.to_string());
    users.iter().map(|pod| pods::node_name(pod)).filter(|node| !node.is_empty()).map(ObjectKey::cluster).collect()
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let attached = cx.attachments.by_index(ATTACHMENTS_BY_NODE, &key.name);
    let pods = cx.pods.by_index(PODS_BY_NODE, &key.name);
    let wanted = desired::wanted(cx, &pods);
    let node = cx.nodes.get(key);
    // What the node's status tells may have been written after the cache was looked at for the last volume.
    let tells_of_any = node.as_ref().is_some_and(|n| n.status.iter().any(|s| s.volumes_attached.as_ref().is_some_and(|v| !v.is_empty())));
    if wanted.is_empty() && attached.is_empty() && !tells_of_any {
        cx.waiting.lock().expect(POISON).remove(key);
        return Ok(Next::Wait);
    }
    let plan = {
        let view = plan::View {
            node: node.as_deref(),
            wanted: &wanted,
            attached: &attached,
            elsewhere: &|volume| {
                let all = cx.attachments.by_index(ATTACHMENTS_BY_VOLUME, volume);
                all.into_iter().filter(|a| a.spec.node_name != key.name).collect()
            },
            unwanted_since: &|name| cx.unwanted_since(name),
            handle_of: &|volume| desired::unique_name(&*cx.volumes.get(&ObjectKey::cluster(volume))?),
            // A clock that is set takes no volume away from a node that still has it mounted.
            now: cx.clock.steady(),
        };
        plan::plan(&view)
    };
    let mut next = Next::Wait;
    let mut waits = false;
    // Said before anything is detached: the kubelet must not mount what goes.
    report(cx, node.as_deref(), &plan.reported).await?;
    for step in plan.steps {
        match step {
            Step::Attach(index) => attach(cx, &key.name, &wanted[index]).await?,
            Step::Refused(index, why) => {
                tell(cx, &wanted[index], &why);
                waits = true;
            }
            Step::Failed(index, why) => tell(cx, &wanted[index], &why),
            Step::Detach(attachment) => {
                let deleted = cx.client.delete::<VolumeAttachment>(&attachment.key(), &DeleteOptions::uid(attachment.uid())).await;
                match unless_gone(deleted) {
                    Err(error) if error.is_conflict() => {}
                    result => drop(result.during(|| format!("delete VolumeAttachment {}", attachment.name()))?),
                }
                cx.unwanted_since.lock().expect(POISON).remove(attachment.name());
            }
            Step::Keep(name) => drop(cx.unwanted_since.lock().expect(POISON).remove(&name)),
            Step::LookAgain(after) => next = Next::After(after),
        }
    }
    let mut waiting = cx.waiting.lock().expect(POISON);
    if waits {
        waiting.insert(key.clone())
    } else {
        waiting.remove(key)
    };
    Ok(next)
}

impl Context {
    /// Since when nobody wants the attachment: from now on, if it was wanted so far.
    fn unwanted_since(&self, attachment: &str) -> Timestamp {
        let mut all = self.unwanted_since.lock().expect(POISON);
        let since = *all.entry(attachment.to_owned()).or_insert_with(|| self.clock.steady());
        // It may have gone since it was looked up, and its deletion have been told already.
        if self.attachments.get(&ObjectKey::cluster(attachment)).is_none() {
            all.remove(attachment);
        }
        since
    }
}

fn tell(cx: &Context, wanted: &Wanted, why: &str) {
    for pod in &wanted.pods {
        cx.recorder.record(&**pod, EventType::Warning, "FailedAttachVolume", why);
    }
}

async fn attach(cx: &Context, node: &str, wanted: &Wanted) -> Result<(), Failure> {
    let name = wanted.attachment_name(node);
    let attachment = VolumeAttachment {
        metadata: ObjectMeta { name: Some(name.clone()), ..Default::default() },
        spec: VolumeAttachmentSpec {
            attacher: wanted.driver.clone(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource { persistent_volume_name: Some(wanted.volume.name().to_owned()), ..Default::default() },
        },
        status: None,
    };
    match cx.client.create(&attachment).await {
        Err(error) if error.is_already_exists() => Ok(()),
        result => result.map(drop).during(|| format!("create VolumeAttachment {name}")),
    }
}

/// Writes what is attached into the node's status.
async fn report(cx: &Context, node: Option<&Node>, reported: &[String]) -> Result<(), Failure> {
    let Some(node) = node else { return Ok(()) };
    let told = node.status.as_ref().and_then(|s| s.volumes_attached.as_ref());
    let is_told = told.map_or(0, Vec::len) == reported.len() && told.into_iter().flatten().all(|v| reported.contains(&v.name));
    if is_told {
        return Ok(());
    }
    let list: Vec<_> = reported.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
    let patch = Patch::Merge(json!({"status": {"volumesAttached": list}}));
    let patched = unless_gone(cx.client.patch_status::<Node>(&node.key(), &patch).await);
    patched.map(drop).during(|| format!("say in Node {} what is attached", node.name()))
}
