//! Controllers of volumes, claims and attachments.
use serde_json::{Value, json};

use super::scenario::{Act, Scenario, Until, count, delete, gone, looks, merge, post, step};

const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = "/api/v1/namespaces/default/pods/x";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLAIM: &str = "/api/v1/namespaces/default/persistentvolumeclaims/x";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const VOLUME: &str = "/api/v1/persistentvolumes/x";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";

fn claim(more: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": "x"}, "spec": spec})
}

fn volume(source: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain"});
    spec.as_object_mut().unwrap().extend(source.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": "x"}, "spec": spec})
}

fn folder() -> Value {
    volume(json!({"hostPath": {"path": "/x"}}))
}

fn pod(volume: Value) -> Value {
    let containers = json!([{"name": "c", "image": "a"}]);
    let mut volume = volume;
    volume["name"] = json!("v");
    json!({"metadata": {"name": "x"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": containers, "volumes": [volume]}})
}

fn user() -> Value {
    pod(json!({"persistentVolumeClaim": {"claimName": "x"}}))
}

fn phase(path: &'static str, phase: &str) -> Until {
    looks(path, json!({"status": {"phase": phase}}))
}

fn held_by(path: &'static str, finalizer: &str) -> Until {
    looks(path, json!({"metadata": {"finalizers": [finalizer]}}))
}

pub fn binding() -> Scenario {
    Scenario {
        controller: "persistentvolume-binder-controller",
        seen: &["persistentvolumes", "persistentvolumeclaims"],
        makes: &[VOLUMES, CLAIMS],
        steps: vec![
            step([post(CLAIMS, claim(json!({}))), post(VOLUMES, folder())], [phase(CLAIM, "Bound"), phase(VOLUME, "Bound"), looks(CLAIM, json!({"spec": {"volumeName": "x"}}))]),
            step([delete(CLAIM)], [phase(VOLUME, "Released")]),
            step([merge(VOLUME, json!({"spec": {"claimRef": null}}))], [phase(VOLUME, "Available")]),
        ],
        ..Scenario::default()
    }
}

/// A second claim does not get the volume that the first has.
pub fn rivals() -> Scenario {
    let mut other = claim(json!({}));
    other["metadata"]["name"] = json!("y");
    let one_each = Until::Holds(|world| {
        Box::pin(async move {
            let claims = world.list(CLAIMS).await;
            let is = |claim: &Value, phase: &str| claim["status"]["phase"] == phase;
            claims.iter().filter(|c| is(c, "Bound")).count() == 1 && claims.iter().filter(|c| is(c, "Pending")).count() == 1
        })
    });
    Scenario {
        controller: "persistentvolume-binder-controller",
        seen: &["persistentvolumeclaims", "persistentvolumes"],
        steps: vec![step([post(CLAIMS, claim(json!({}))), post(CLAIMS, other), post(VOLUMES, folder())], [one_each, phase(VOLUME, "Bound")])],
        ..Scenario::default()
    }
}

pub fn protection() -> Scenario {
    let [of_claim, of_volume] = ["kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"];
    let runs = phase(POD, "Running");
    Scenario {
        controller: "persistentvolumeclaim-protection-controller",
        seen: &["pods", "persistentvolumeclaims", "persistentvolumes"],
        steps: vec![
            step([post(CLAIMS, claim(json!({}))), post(VOLUMES, folder()), post(PODS, user())], [held_by(CLAIM, of_claim), held_by(VOLUME, of_volume), runs]),
            step([delete(CLAIM), delete(VOLUME)], [held_by(CLAIM, of_claim), gone(VOLUME)]),
            step([delete(POD)], [gone(CLAIM)]),
        ],
        ..Scenario::default()
    }
}

pub fn class_protection() -> Scenario {
    const CLASS: &str = "/apis/storage.k8s.io/v1/volumeattributesclasses/gold";
    const FINALIZER: &str = "kubernetes.io/vac-protection";
    let class = json!({"metadata": {"name": "gold"}, "driverName": "d.io", "parameters": {"a": "b"}});
    Scenario {
        controller: "volumeattributesclass-protection-controller",
        seen: &["volumeattributesclasses", "persistentvolumeclaims"],
        steps: vec![
            step(
                [post("/apis/storage.k8s.io/v1/volumeattributesclasses", class), post(CLAIMS, claim(json!({"volumeAttributesClassName": "gold"})))],
                [held_by(CLASS, FINALIZER)],
            ),
            step([delete(CLASS)], [held_by(CLASS, FINALIZER)]),
            step([delete(CLAIM)], [gone(CLASS)]),
        ],
        ..Scenario::default()
    }
}

pub fn ephemeral() -> Scenario {
    const OWN: &str = "/api/v1/namespaces/default/persistentvolumeclaims/x-v";
    let spec = claim(json!({}))["spec"].clone();
    Scenario {
        controller: "ephemeral-volume-controller",
        seen: &["persistentvolumeclaims", "pods"],
        makes: &[CLAIMS],
        creates: 1,
        missed: Some(Act::Take(OWN)),
        steps: vec![step(
            [post(PODS, pod(json!({"ephemeral": {"volumeClaimTemplate": {"spec": spec}}})))],
            [looks(OWN, json!({"metadata": {"ownerReferences": [{"kind": "Pod", "name": "x"}]}}))],
        )],
        ..Scenario::default()
    }
}

/// From the claim to the folder's end, with the binder.
pub fn local_storage() -> Scenario {
    let node = json!({"metadata": {"annotations": {"rk.io/local-storage": "/storage"}, "labels": {"kubernetes.io/hostname": "n1"}}});
    let class = json!({"metadata": {"name": "local"}, "provisioner": "rk.io/local-path", "volumeBindingMode": "WaitForFirstConsumer"});
    let mut wanted = claim(json!({"storageClassName": "local"}));
    wanted["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "n1"});
    Scenario {
        controller: "local-storage-controller",
        others: &["persistentvolume-binder-controller", "garbage-collector-controller"],
        seen: &["persistentvolumes", "persistentvolumeclaims", "pods"],
        makes: &[VOLUMES, "/api/v1/namespaces/kube-system/pods"],
        // The volume, and the pod that removes its folder.
        creates: 2,
        steps: vec![
            step([merge("/api/v1/nodes/n1", node), post(CLASSES, class), post(CLAIMS, wanted)], [phase(CLAIM, "Bound"), count(VOLUMES, 1)]),
            step([delete(CLAIM)], [count(VOLUMES, 0), count("/api/v1/namespaces/kube-system/pods", 0)]),
        ],
        ..Scenario::default()
    }
}

pub fn attachment() -> Scenario {
    let driver = json!({"metadata": {"name": "d.io"}, "spec": {"attachRequired": true}});
    let attached = Act::Do(|world| {
        Box::pin(async move {
            for attachment in world.list(ATTACHMENTS).await {
                let name = format!("{}/status", attachment["metadata"]["name"].as_str().unwrap_or_default());
                world.patch(ATTACHMENTS, &name, json!({"status": {"attached": true}})).await;
            }
        })
    });
    Scenario {
        controller: "persistentvolume-attach-detach-controller",
        others: &["persistentvolume-binder-controller"],
        seen: &["volumeattachments", "pods", "nodes", "persistentvolumes"],
        makes: &[ATTACHMENTS],
        creates: 1,
        steps: vec![
            step(
                [
                    post("/apis/storage.k8s.io/v1/csidrivers", driver),
                    post(VOLUMES, volume(json!({"csi": {"driver": "d.io", "volumeHandle": "h"}}))),
                    post(CLAIMS, claim(json!({}))),
                    post(PODS, user()),
                ],
                [count(ATTACHMENTS, 1)],
            ),
            step([attached], [looks("/api/v1/nodes/n1", json!({"status": {"volumesAttached": [{"name": "kubernetes.io/csi/d.io^h"}]}}))]),
            step([delete(POD)], [count(ATTACHMENTS, 0), looks("/api/v1/nodes/n1", json!({"status": {"volumesAttached": null}}))]),
        ],
        ..Scenario::default()
    }
}
