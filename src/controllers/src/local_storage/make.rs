//! A claim that asks for a local volume: the volume, on the node that the scheduler has chosen.
use std::collections::BTreeMap;
use std::path::{Component, Path};

use api::volume::{LOCAL_PROVISIONER, LOCAL_STORAGE, PROVISIONED_BY, SELECTED_NODE, class_of_claim};
use client::k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, VolumeNodeAffinity,
};
use client::k8s_openapi::api::storage::v1::StorageClass;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{EventType, Named, Next, ObjectKey, Patch, object_reference};
use serde_json::json;

use super::{Context, FINALIZER};
use crate::failure::{During, Failure, unless_gone};

const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Longest name of a file on Linux' file systems.
const FILE_NAME_MAX: usize = 255;

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Make(Box<PersistentVolume>),
    /// Will not become possible before the class or the claim changes.
    Refuse(String),
    /// The node is gone: the scheduler has to choose another.
    Reschedule(String),
    /// The node has not said yet where its volumes are.
    Wait,
}

/// Whether the binder has asked this provisioner for the claim's volume.
pub(super) fn is_asked(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_some_and(|name| !name.is_empty());
    claim.annotation(PROVISIONER) == Some(LOCAL_PROVISIONER) && !named && !claim.is_deleting()
}

pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid())
}

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(claim) = cx.claims.get(key).filter(|claim| is_asked(claim)) else { return Ok(Next::Wait) };
    let name = ObjectKey::cluster(volume_name(&claim));
    let Some(class) = cx.classes.get(&ObjectKey::cluster(class_of_claim(&claim))) else { return Ok(Next::Wait) };
    if class.provisioner != LOCAL_PROVISIONER || cx.volumes.get(&name).is_some() {
        return Ok(Next::Wait);
    }
    let node = claim.annotation(SELECTED_NODE).and_then(|node| cx.nodes.get(&ObjectKey::cluster(node)));
    match plan(&claim, &class, node.as_deref()) {
        Step::Make(volume) => make(cx, &claim, &volume).await?,
        Step::Refuse(why) => {
            let text = format!("failed to provision volume with StorageClass {:?}: {why}", class.name());
            cx.recorder.record(&*claim, EventType::Warning, "ProvisioningFailed", text);
        }
        Step::Reschedule(node) => {
            let text = format!("failed to get target node: node {node:?} not found");
            cx.recorder.record(&*claim, EventType::Warning, "ProvisioningFailed", text);
            let meta =
                json!({"uid": claim.uid(), "resourceVersion": claim.metadata.resource_version, "annotations": {SELECTED_NODE: null}});
            let patched = cx.client.patch::<PersistentVolumeClaim>(key, &Patch::Merge(json!({"metadata": meta}))).await;
            unless_gone(patched).during(|| format!("have another node chosen for PersistentVolumeClaim {key}"))?;
        }
        Step::Wait => {}
    }
    Ok(Next::Wait)
}

async fn make(cx: &Context, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Failure> {
    let text = format!("External provisioner is provisioning volume for claim {:?}", claim.key().to_string());
    cx.recorder.record(claim, EventType::Normal, "Provisioning", text);
    match cx.client.create(volume).await {
        // Its name holds the claim's uid: it was made before, and the cache does not show it yet.
        Err(error) if error.is_already_exists() => return Ok(()),
        result => result.during(|| format!("create PersistentVolume {}", volume.name()))?,
    };
    cx.recorder.record(claim, EventType::Normal, "ProvisioningSucceeded", format!("Successfully provisioned volume {}", volume.name()));
    Ok(())
}

/// Decides what to do; does nothing. `node` is the chosen one, if there is such a node.
pub(super) fn plan(claim: &PersistentVolumeClaim, class: &StorageClass, node: Option<&Node>) -> Step {
    if let Some(why) = refusal(claim, class) {
        return Step::Refuse(why);
    }
    let Some(selected) = claim.annotation(SELECTED_NODE) else {
        return Step::Refuse("configuration error, no node was specified: its volumeBindingMode must be WaitForFirstConsumer".to_owned());
    };
    let Some(node) = node else { return Step::Reschedule(selected.to_owned()) };
    let Some(storage) = node.annotation(LOCAL_STORAGE) else { return Step::Wait };
    if !is_clean(storage) {
        return Step::Refuse(format!("node {selected:?} says that its volumes are in {storage:?}, which is no absolute path"));
    }
    let hostname = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME)).cloned();
    Step::Make(Box::new(volume(claim, class, storage, hostname.unwrap_or_else(|| selected.to_owned()))))
}

/// What no folder on a node can be.
fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(key) = class.parameters.iter().flatten().map(|(key, _)| key).next() {
        return Some(format!("{LOCAL_PROVISIONER} takes no parameters, but the class has {key:?}"));
    }
    if class.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return Some(format!("{LOCAL_PROVISIONER} takes no mountOptions"));
    }
    if spec.selector.is_some() {
        return Some("claim Selector is not supported".to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Some("a local volume cannot be filled from a data source".to_owned());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some(format!("{LOCAL_PROVISIONER} does not support block volume provisioning"));
    }
    let one_node = ["ReadWriteOnce", "ReadWriteOncePod"];
    let other = spec.access_modes.iter().flatten().find(|mode| !one_node.contains(&mode.as_str()));
    other.map(|mode| format!("a local volume can be ReadWriteOnce or ReadWriteOncePod, not {mode}"))
}

/// An absolute path without detours.
pub(super) fn is_clean(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    path.len() > 1
        && parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !path.contains("//")
        && !path.contains("/./")
        && !path.ends_with(['/', '.'])
}

/// Tells an administrator who looks at the disk whose data it is.
fn folder_name(claim: &PersistentVolumeClaim) -> String {
    let mut name = format!("{}_{}_{}", volume_name(claim), claim.namespace(), claim.name());
    name.truncate(FILE_NAME_MAX); // names in the API are ASCII
    name
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, storage: &str, hostname: String) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
    let requested = spec.resources.and_then(|r| r.requests).and_then(|r| r.get("storage").cloned());
    let on_node = NodeSelectorRequirement { key: HOSTNAME.to_owned(), operator: "In".to_owned(), values: Some(vec![hostname]) };
    let term = NodeSelectorTerm { match_expressions: Some(vec![on_node]), match_fields: None };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(claim)),
            annotations: Some([(PROVISIONED_BY.to_owned(), LOCAL_PROVISIONER.to_owned())].into()),
            finalizers: (policy == "Delete").then(|| vec![FINALIZER.to_owned()]),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: requested.map(|size| BTreeMap::from([("storage".to_owned(), size)])),
            claim_ref: Some(object_reference(claim)),
            local: Some(LocalVolumeSource { path: format!("{storage}/{}", folder_name(claim)), fs_type: None }),
            node_affinity: Some(VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }),
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: Some(class.name().to_owned()),
            volume_mode: spec.volume_mode,
            ..Default::default()
        }),
        status: None,
    }
}
