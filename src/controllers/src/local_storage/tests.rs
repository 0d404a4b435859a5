use serde_json::{Value, json};

use super::*;

fn of<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn claim(spec: Value, node: Option<&str>) -> PersistentVolumeClaim {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}, "volumeMode": "Filesystem"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut annotations = json!({"volume.kubernetes.io/storage-provisioner": LOCAL_PROVISIONER});
    if let Some(node) = node {
        annotations["volume.kubernetes.io/selected-node"] = json!(node);
    }
    of(json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u1", "annotations": annotations}, "spec": whole}))
}

fn class(more: Value) -> StorageClass {
    let mut whole = json!({"metadata": {"name": "local-path"}, "provisioner": LOCAL_PROVISIONER, "reclaimPolicy": "Delete"});
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    of(whole)
}

fn node(storage: &str) -> Node {
    let annotations = if storage.is_empty() { json!({}) } else { json!({"rk.io/local-storage": storage}) };
    of(json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "host-1"}, "annotations": annotations}}))
}

#[test]
fn a_claim_gets_a_folder_on_the_chosen_node() {
    let claim = claim(json!({}), Some("n1"));
    let make::Step::Make(volume) = make::plan(&claim, &class(json!({})), Some(&node("/var/lib/rk/storage"))) else { panic!("no volume") };
    let volume = serde_json::to_value(volume).unwrap();
    assert_eq!(volume["spec"]["local"]["path"], "/var/lib/rk/storage/pvc-u1_shop_data");
    assert_eq!(volume["spec"]["capacity"]["storage"], "2Gi");
    let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(term, &json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-1"]}));
    assert_eq!((&volume["metadata"]["name"], &volume["metadata"]["finalizers"]), (&json!("pvc-u1"), &json!([FINALIZER])));
    let retain = make::plan(&claim, &class(json!({"reclaimPolicy": "Retain"})), Some(&node("/s")));
    let make::Step::Make(kept) = retain else { panic!("no volume") };
    assert_eq!((kept.metadata.finalizers, kept.spec.unwrap().persistent_volume_reclaim_policy.as_deref()), (None, Some("Retain")));
}

#[test]
fn what_no_folder_can_be_is_refused_with_the_reason() {
    let check = |spec: Value, more: Value, chosen: Option<&str>, expect: &str| match make::plan(
        &claim(spec, chosen),
        &class(more),
        Some(&node("/s")),
    ) {
        make::Step::Refuse(why) => assert!(why.contains(expect), "{why}"),
        other => panic!("{other:?}"),
    };
    check(json!({"accessModes": ["ReadWriteMany"]}), json!({}), Some("n1"), "not ReadWriteMany");
    check(json!({"volumeMode": "Block"}), json!({}), Some("n1"), "block volume");
    check(json!({"selector": {}}), json!({}), Some("n1"), "Selector");
    check(json!({}), json!({"parameters": {"nodePath": "/etc"}}), Some("n1"), "nodePath");
    check(json!({}), json!({}), None, "WaitForFirstConsumer");
    for path in ["s", "/", "/a/../b", "/a//b", "/a/", "/a/.", "/a/./b"] {
        assert!(!make::is_clean(path), "{path}");
        assert!(matches!(make::plan(&claim(json!({}), Some("n1")), &class(json!({})), Some(&node(path))), make::Step::Refuse(_)));
    }
    assert_eq!(make::plan(&claim(json!({}), Some("n1")), &class(json!({})), None), make::Step::Reschedule("n1".into()));
    assert_eq!(make::plan(&claim(json!({}), Some("n1")), &class(json!({})), Some(&node(""))), make::Step::Wait);
}

fn volume(phase: &str, policy: &str, path: &str, deleting: bool) -> PersistentVolume {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-1"]}]});
    let spec = json!({"persistentVolumeReclaimPolicy": policy, "local": {"path": path}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}});
    let deleted = deleting.then_some("2026-01-01T00:00:00Z");
    let meta = json!({"name": "pvc-u1", "uid": "v1", "deletionTimestamp": deleted, "annotations": {PROVISIONED: LOCAL_PROVISIONER}});
    of(json!({"metadata": meta, "spec": spec, "status": {"phase": phase}}))
}

const PROVISIONED: &str = "pv.kubernetes.io/provisioned-by";

fn pod_in(phase: &str) -> Pod {
    let mut pod = remover::pod(&volume("Released", "Delete", "/s/pvc-u1_a_b", false), "n1", "/s", "pvc-u1_a_b", "image");
    let ended = json!({"phase": phase, "containerStatuses": [{"name": "remove", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 1, "message": "rk: busy\n"}}}]});
    pod.status = Some(of(ended));
    pod
}

#[test]
fn a_released_volume_is_removed_on_its_node_and_a_kept_one_is_not() {
    use volume::Step;
    let path = "/s/pvc-u1_a_b";
    let plan = |phase: &str, policy: &str, path: &str, deleting: bool, node: Option<&Node>, pod: Option<&Pod>| {
        volume::plan(&self::volume(phase, policy, path, deleting), node, pod)
    };
    let here = node("/s");
    let start = Step::Start { node: "n1".into(), folder: "pvc-u1_a_b".into() };
    assert_eq!(plan("Released", "Delete", path, false, Some(&here), None), start);
    assert_eq!(plan("Released", "Delete", path, true, Some(&here), None), start);
    assert_eq!(plan("Bound", "Delete", path, true, Some(&here), None), Step::Wait);
    assert_eq!(plan("Released", "Retain", path, false, Some(&here), None), Step::Wait);
    assert_eq!(plan("Released", "Retain", path, true, Some(&here), None), Step::Release);
    assert_eq!(plan("Released", "Delete", path, false, Some(&here), Some(&pod_in("Running"))), Step::Wait);
    assert_eq!(plan("Released", "Delete", path, false, Some(&here), Some(&pod_in("Succeeded"))), Step::Finish);
    let again = plan("Released", "Delete", path, false, Some(&here), Some(&pod_in("Failed")));
    assert_eq!(again, Step::Again("/s/pvc-u1_a_b could not be removed: rk: busy".into()));
    // Somebody else's folder is never touched, whatever a volume says.
    for path in ["/etc", "/s/../etc/pvc-1", "/s/other", "/s/pvc-1/deep", "/storage/pvc-1", "/s"] {
        assert!(matches!(plan("Released", "Delete", path, false, Some(&here), None), Step::Tell(_)), "{path}");
    }
    assert!(matches!(plan("Released", "Delete", path, false, None, None), Step::Tell(_)));
    assert_eq!(plan("Released", "Delete", path, true, None, None), Step::Release);
}

#[test]
fn the_pod_that_removes_is_known_again() {
    let pod = pod_in("Running");
    assert_eq!(remover::volume_of(&pod), Some(ObjectKey::cluster("pvc-u1")));
    assert!(remover::is_for(&pod, &volume("Released", "Delete", "/s/pvc-u1_a_b", false)));
    assert_eq!(remover::volume_of(&of(json!({"metadata": {"name": "remove-x", "namespace": "kube-system"}}))), None);
}
