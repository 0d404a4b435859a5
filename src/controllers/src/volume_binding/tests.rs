use serde_json::{Value, json};

use super::*;

fn volume(name: &str, spec: Value) -> Arc<PersistentVolume> {
    let mut whole = json!({"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let annotations = whole["annotations"].take();
    let meta = json!({"name": name, "uid": name, "labels": {"name": name}, "annotations": annotations});
    Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": {"phase": "Available"}})).unwrap())
}

fn claim(spec: Value) -> PersistentVolumeClaim {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "2Gi"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let annotations = whole["annotations"].take();
    let meta = json!({"name": "c", "namespace": "ns", "uid": "claim", "annotations": annotations});
    serde_json::from_value(json!({"metadata": meta, "spec": whole})).unwrap()
}

fn class(name: &str, mode: &str, default: bool) -> Arc<StorageClass> {
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": default.to_string()});
    let meta = json!({"name": name, "annotations": annotations});
    Arc::new(serde_json::from_value(json!({"metadata": meta, "provisioner": "example.com/p", "volumeBindingMode": mode})).unwrap())
}

#[track_caller]
fn check(spec: Value, volumes: &[Arc<PersistentVolume>], classes: &[Arc<StorageClass>], expect: &str) {
    let claim = claim(spec);
    let shown = match claim::plan(&claim::View { claim: &claim, volumes, classes, unscheduled: &[] }) {
        claim::Step::Bind(volume) => format!("bind {}", volume.name()),
        claim::Step::AssignClass(class) => format!("class {class}"),
        claim::Step::Provision(by) => format!("provision {by}"),
        claim::Step::Wait(None) => "wait".to_owned(),
        claim::Step::Wait(Some((_, reason, _))) => format!("wait {reason}"),
        claim::Step::Lost(reason, _) => format!("lost {reason}"),
        claim::Step::Retry(_) => "retry".to_owned(),
    };
    assert_eq!(shown, expect);
}

#[test]
fn the_smallest_suitable_volume_is_chosen() {
    let volumes = [
        volume("big", json!({"capacity": {"storage": "9Gi"}})),
        volume("small", json!({"capacity": {"storage": "1Gi"}})),
        volume("fit", json!({})),
        volume("more-modes", json!({"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]})),
        volume("classy", json!({"capacity": {"storage": "2Gi"}, "storageClassName": "slow"})),
        volume("block", json!({"capacity": {"storage": "2Gi"}, "volumeMode": "Block"})),
    ];
    check(json!({}), &volumes, &[], "bind fit");
    check(json!({"accessModes": ["ReadOnlyMany"]}), &volumes, &[], "bind more-modes");
    check(json!({"storageClassName": "slow"}), &volumes, &[], "bind classy");
    check(json!({"selector": {"matchLabels": {"name": "big"}}}), &volumes, &[], "bind big");
    check(json!({"resources": {"requests": {"storage": "10Gi"}}}), &volumes, &[], "wait FailedBinding");
}

#[test]
fn a_reserved_or_named_volume_is_taken_if_it_suits() {
    let reserved = volume("reserved", json!({"claimRef": {"namespace": "ns", "name": "c"}, "capacity": {"storage": "99Gi"}}));
    let others = volume("others", json!({"claimRef": {"namespace": "ns", "name": "d", "uid": "other"}}));
    let volumes = [reserved, others, volume("free", json!({}))];
    check(json!({}), &volumes, &[], "bind reserved");
    check(json!({"volumeName": "free"}), &volumes, &[], "bind free");
    check(json!({"volumeName": "free", "accessModes": ["ReadWriteMany"]}), &volumes, &[], "wait VolumeMismatch");
    check(json!({"volumeName": "others"}), &volumes, &[], "wait FailedBinding");
    check(json!({"volumeName": "missing"}), &volumes, &[], "wait");
    let ours = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
    check(json!({"volumeName": "others", "annotations": ours}), &volumes, &[], "retry");
}

#[test]
fn a_bound_claim_may_lose_its_volume() {
    let done = || json!({"pv.kubernetes.io/bind-completed": "yes"});
    let volumes = [volume("others", json!({"claimRef": {"namespace": "ns", "name": "c", "uid": "other"}})), volume("free", json!({}))];
    check(json!({"annotations": done()}), &volumes, &[], "lost ClaimLost");
    check(json!({"annotations": done(), "volumeName": "missing"}), &volumes, &[], "lost ClaimLost");
    check(json!({"annotations": done(), "volumeName": "others"}), &volumes, &[], "lost ClaimMisbound");
    check(json!({"annotations": done(), "volumeName": "free"}), &volumes, &[], "bind free");
}

#[test]
fn the_class_decides_who_provides_and_when() {
    let classes = [class("now", "Immediate", true), class("later", "WaitForFirstConsumer", false)];
    check(json!({"storageClassName": "now"}), &[], &classes, "provision example.com/p");
    check(json!({"storageClassName": "later"}), &[], &classes, "wait WaitForFirstConsumer");
    let chosen = json!({"volume.kubernetes.io/selected-node": "n"});
    check(json!({"storageClassName": "later", "annotations": chosen}), &[], &classes, "provision example.com/p");
    check(
        json!({"storageClassName": "later"}),
        &[volume("v", json!({"storageClassName": "later"}))],
        &classes,
        "wait WaitForFirstConsumer",
    );
    check(json!({"storageClassName": "none"}), &[], &classes, "wait ProvisioningFailed");
    check(json!({"storageClassName": null}), &[], &classes, "class now");
    check(json!({"storageClassName": ""}), &[], &classes, "wait FailedBinding");
}

#[test]
fn the_phase_of_a_volume_follows_its_claim() {
    let bound = |more: Value| {
        let mut spec = json!({"claimRef": {"namespace": "ns", "name": "c", "uid": "claim"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        volume("v", spec)
    };
    let named = |name: &str| claim(json!({"volumeName": name}));
    assert_eq!(volume::plan(&volume("v", json!({})), None), volume::Step::Phase("Available"));
    assert_eq!(volume::plan(&bound(json!({})), Some(&named("v"))), volume::Step::Phase("Bound"));
    assert_eq!(volume::plan(&bound(json!({})), Some(&named("w"))), volume::Step::Unbind);
    assert_eq!(volume::plan(&bound(json!({})), Some(&claim(json!({})))), volume::Step::WakeClaim);
    assert_eq!(volume::plan(&bound(json!({"volumeMode": "Block"})), Some(&claim(json!({})))), volume::Step::Mismatch);
    assert_eq!(volume::plan(&bound(json!({})), None), volume::Step::Release);
    let policy = |policy: &str| volume::unreclaimable(&volume("v", json!({"persistentVolumeReclaimPolicy": policy}))).map(|(r, _)| r);
    assert_eq!([policy("Retain"), policy("Recycle"), policy("Delete")], [None, Some("VolumeFailedRecycle"), Some("VolumeFailedDelete")]);
}

#[test]
fn a_binding_writes_both_sides_and_is_undone_as_it_was_made() {
    let (free, claim) = (volume("v", json!({})), claim(json!({})));
    let bound = api::volume::bound_volume(&free, &claim).unwrap();
    assert_eq!(claim_ref(&bound).unwrap().uid.as_deref(), Some("claim"));
    assert!(api::volume::bound_volume(&bound, &claim).is_none());
    assert!(claim_ref(&writes::unbound(&bound)).is_none() && writes::unbound(&bound).metadata.annotations.is_none());
    let reserved = volume("r", json!({"claimRef": {"namespace": "ns", "name": "c"}}));
    let taken = api::volume::bound_volume(&reserved, &claim).unwrap();
    assert_eq!(claim_key(claim_ref(&writes::unbound(&taken)).unwrap()).to_string(), "ns/c");
    let named = writes::claim_for(&claim, &bound).unwrap();
    assert_eq!((volume_name(&named), named.annotation(BIND_COMPLETED)), ("v", Some("yes")));
    assert!(writes::claim_for(&named, &bound).is_none());
}
