//! The pod that removes a volume's folder: it sees the node's storage and nothing else, and has no credentials.
use client::k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use client::{Named, ObjectKey};
use jiff::Timestamp;
use serde_json::json;

const NAMESPACE: &str = "kube-system";
const PREFIX: &str = "remove-";
const LABEL: &str = "rk.io/removes-volume";

pub(super) fn key(volume: &PersistentVolume) -> ObjectKey {
    ObjectKey::new(NAMESPACE, format!("{PREFIX}{}", volume.name()))
}

/// The volume that the pod removes, if it is such a pod.
pub(super) fn volume_of(pod: &Pod) -> Option<ObjectKey> {
    let labels = pod.metadata.labels.as_ref()?;
    let name = pod.name().strip_prefix(PREFIX).filter(|_| pod.namespace() == NAMESPACE && labels.contains_key(LABEL))?;
    Some(ObjectKey::cluster(name))
}

pub(super) fn is_for(pod: &Pod, volume: &PersistentVolume) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL)).is_some_and(|uid| uid == volume.uid())
}

/// Why it failed, in its own words where it has said something.
pub(super) fn failure(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let ended = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.terminated.as_ref());
    let said = ended.and_then(|t| t.message.clone()).filter(|m| !m.is_empty());
    said.or(status.message).or(status.reason).unwrap_or_else(|| "the pod failed".to_owned()).trim().to_owned()
}

pub(super) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let ended = pod.status.as_ref()?.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.terminated.clone());
    ended.and_then(|t| t.finished_at).or_else(|| pod.metadata.creation_timestamp.clone()).map(|t| t.0)
}

pub(super) fn pod(volume: &PersistentVolume, node: &str, storage: &str, folder: &str, image: &str) -> Pod {
    let key = key(volume);
    let object = json!({
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {LABEL: volume.uid()},
            "ownerReferences": [{"apiVersion": "v1", "kind": "PersistentVolume", "name": volume.name(), "uid": volume.uid()}],
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "priorityClassName": "system-node-critical",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            // A node that is drained or full still gives its disk back.
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "storage", "hostPath": {"path": storage, "type": "Directory"}}],
            "containers": [{
                "name": "remove",
                "image": image,
                "imagePullPolicy": "Never",
                "args": ["remove-volume", "--", folder],
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": "storage", "mountPath": "/storage"}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    // Files are their pods' users', some in folders that only these may enter.
                    "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "FOWNER"]},
                },
            }],
        },
    });
    serde_json::from_value(object).expect("a pod of literal fields")
}
