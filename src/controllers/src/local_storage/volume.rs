//! A local volume whose claim is gone: its folder is removed on its node, then it goes itself.
use std::time::Duration;

use api::volume::{LOCAL_PROVISIONER, LOCAL_STORAGE, PROVISIONED_BY};
use client::k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use client::{DeleteOptions, EventType, Named, Next, ObjectKey};

use super::make::is_clean;
use super::{Context, FINALIZER, remover};
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

/// How long a pod that failed is looked at before another one tries.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Wait,
    /// Nothing here keeps the volume (any more).
    Release,
    /// A pod on this node removes this folder of the node's storage.
    Start {
        node: String,
        folder: String,
    },
    /// The folder is gone.
    Finish,
    /// The pod could not: it is removed, and another one tries later.
    Again(String),
    Tell(String),
}

pub(super) fn is_ours(volume: &PersistentVolume) -> bool {
    volume.annotation(PROVISIONED_BY) == Some(LOCAL_PROVISIONER)
}

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(volume) = cx.volumes.get(key).filter(|volume| is_ours(volume)) else { return Ok(Next::Wait) };
    let nodes = cx.nodes.list();
    let node = nodes.iter().find(|node| hostname_of(&volume).is_some_and(|wanted| hostname(node) == wanted));
    let pod_key = remover::key(&volume);
    let pod = cx.pods.get(&pod_key);
    match plan(&volume, node.map(|n| &**n), pod.as_deref()) {
        Step::Wait => {}
        Step::Release => release(cx, &volume).await?,
        Step::Start { node, folder } => {
            // A volume that has just gone may still be in the cache, and its pod not any more.
            let step = || format!("check PersistentVolume {key} before its folder is removed");
            let found = unless_gone(cx.client.get::<PersistentVolume>(key).await).during(step)?;
            if found.is_none_or(|found| found.uid() != volume.uid()) {
                return Ok(Next::Wait);
            }
            let pod = remover::pod(&volume, &node, node_storage(&nodes, &node), &folder, &cx.image);
            match cx.client.create(&pod).await {
                Err(error) if error.is_already_exists() => {}
                result => drop(result.during(|| format!("start a pod that removes PersistentVolume {key}"))?),
            }
        }
        Step::Finish => {
            let deleted = unless_gone(cx.client.delete::<PersistentVolume>(key, &DeleteOptions::uid(volume.uid())).await);
            deleted.during(|| format!("delete PersistentVolume {key}"))?;
            release(cx, &volume).await?;
            remove_pod(cx, &pod_key, pod.as_deref()).await?;
        }
        Step::Again(why) => {
            // Stays for a while, for whoever looks at its log.
            let again = pod.as_deref().and_then(remover::ended_at).and_then(|end| end.checked_add(AGAIN_AFTER).ok());
            let left = again.map(|at| pods::until(at, cx.clock.now())).unwrap_or_default();
            if !left.is_zero() {
                cx.recorder.record(&*volume, EventType::Warning, "VolumeFailedDelete", why);
                return Ok(Next::After(left));
            }
            remove_pod(cx, &pod_key, pod.as_deref()).await?;
        }
        Step::Tell(why) => cx.recorder.record(&*volume, EventType::Warning, "VolumeFailedDelete", why),
    }
    Ok(Next::Wait)
}

async fn remove_pod(cx: &Context, key: &ObjectKey, pod: Option<&Pod>) -> Result<(), Failure> {
    let Some(pod) = pod else { return Ok(()) };
    let deleted = unless_gone(cx.client.delete::<Pod>(key, &DeleteOptions::uid(pod.uid())).await);
    deleted.map(drop).during(|| format!("delete pod {key}"))
}

/// Takes the finalizer off.
async fn release(cx: &Context, volume: &PersistentVolume) -> Result<(), Failure> {
    let key = volume.key();
    let step = || format!("let PersistentVolume {key} go");
    // Fresh: a deletion has just changed it.
    let found = unless_gone(cx.client.get::<PersistentVolume>(&key).await).during(step)?;
    let Some(mut update) = found.filter(|found| found.uid() == volume.uid()) else { return Ok(()) };
    let finalizers = update.metadata.finalizers.take().unwrap_or_default();
    let left: Vec<_> = finalizers.iter().filter(|f| *f != FINALIZER).cloned().collect();
    if left.len() == finalizers.len() {
        return Ok(());
    }
    update.metadata.finalizers = Some(left);
    unless_gone(cx.client.update(&update).await).map(drop).during(step)
}

fn hostname(node: &Node) -> &str {
    node.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/hostname")).map_or_else(|| node.name(), String::as_str)
}

/// The host name of the one node that has the volume.
fn hostname_of(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let [only] = term.match_expressions.as_deref()? else { return None };
    let [value] = only.values.as_deref()? else { return None };
    (only.key == "kubernetes.io/hostname" && only.operator == "In").then_some(value)
}

fn node_storage<'a>(nodes: &'a [std::sync::Arc<Node>], name: &str) -> &'a str {
    nodes.iter().find(|node| node.name() == name).and_then(|node| node.annotation(LOCAL_STORAGE)).unwrap_or_default()
}

/// Decides what to do; does nothing. `node` is the volume's, if there is such a node; `pod` the one that removes the folder.
pub(super) fn plan(volume: &PersistentVolume, node: Option<&Node>, pod: Option<&Pod>) -> Step {
    let spec = volume.spec.clone().unwrap_or_default();
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete") {
        return if volume.is_deleting() { Step::Release } else { Step::Wait };
    }
    if phase != "Released" && phase != "Failed" {
        return Step::Wait;
    }
    let path = spec.local.map(|local| local.path).unwrap_or_default();
    let Some(node) = node else {
        let host = hostname_of(volume).unwrap_or("?");
        // Whoever deletes the volume knows that nothing can be removed there.
        return match volume.is_deleting() {
            true => Step::Release,
            false => {
                Step::Tell(format!("node {host:?} is not in the cluster: {path} cannot be removed there; delete the volume to forget it"))
            }
        };
    };
    let storage = node.annotation(LOCAL_STORAGE).filter(|storage| is_clean(storage));
    let folder = storage.and_then(|storage| path.strip_prefix(storage)?.strip_prefix('/'));
    let Some(folder) = folder.filter(|name| name.starts_with("pvc-") && !name.contains('/')) else {
        return match volume.is_deleting() {
            true => Step::Release,
            false => Step::Tell(format!(
                "{path} is not in the storage of node {:?}: it is not removed; delete the volume to forget it",
                node.name()
            )),
        };
    };
    match pod {
        Some(pod) if pod.is_deleting() || !remover::is_for(pod, volume) => Step::Wait,
        Some(pod) => match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
            Some("Succeeded") => Step::Finish,
            Some("Failed") => Step::Again(format!("{path} could not be removed: {}", remover::failure(pod))),
            _ => Step::Wait,
        },
        None => Step::Start { node: node.name().to_owned(), folder: folder.to_owned() },
    }
}
