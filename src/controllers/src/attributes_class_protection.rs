//! Keeps a VolumeAttributesClass that claims or volumes refer to from being deleted.
//!
//! Models pkg/controller/volume/vacprotection/vac_protection_controller.go, v1.37.
//! Reads VolumeAttributesClass, PersistentVolumeClaim, PersistentVolume. Writes the class's finalizer. Wakes on all of them.
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use client::k8s_openapi::api::storage::v1::VolumeAttributesClass;
use client::{Client, Controller, Informer, Named, Next, ObjectKey};

use crate::context::ControllerContext;
use crate::failure::Failure;
use crate::volume_protection::{add, remove};

const NAME: &str = "volumeattributesclass-protection-controller";
const FINALIZER: &str = "kubernetes.io/vac-protection";
/// Claims and volumes by the classes that they refer to.
const BY_CLASS: &str = "attributes-class";

struct Context {
    client: Client,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx =
        Arc::new(Context { client: cx.client(NAME), classes: cx.informers.get(), claims: cx.informers.get(), volumes: cx.informers.get() });
    let (classes, claims, volumes) = (cx.classes.clone(), cx.claims.clone(), cx.volumes.clone());
    claims.add_index(BY_CLASS, classes_of_claim);
    volumes.add_index(BY_CLASS, |volume: &PersistentVolume| class_of_volume(volume).into_iter().collect());
    let keys = |names: Vec<String>| names.into_iter().map(ObjectKey::cluster).collect::<Vec<_>>();
    Controller::new(NAME, cx)
        .reconciles(&classes)
        .watches(&claims, move |_, event| keys(event.states().flat_map(|claim| classes_of_claim(claim)).collect()))
        .watches(&volumes, move |_, event| keys(event.states().filter_map(|volume| class_of_volume(volume)).collect()))
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(class) = cx.classes.get(key) else { return Ok(Next::Wait) };
    let is_used = || !cx.claims.by_index(BY_CLASS, &key.name).is_empty() || !cx.volumes.by_index(BY_CLASS, &key.name).is_empty();
    if !class.is_deleting() {
        add(&cx.client, &*class, FINALIZER).await?;
    } else if !is_used() {
        remove(&cx.client, &*class, FINALIZER).await?;
    }
    Ok(Next::Wait)
}

/// Those that the claim wants, has, and is on the way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let current = status.and_then(|s| s.current_volume_attributes_class_name.clone());
    let target = status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.clone());
    let mut names: Vec<_> = [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}

fn class_of_volume(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.volume_attributes_class_name.clone().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_holds_what_it_has_and_what_it_will_have() {
        let status = json!({"currentVolumeAttributesClassName": "silver",
            "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "gold"}});
        let claim = serde_json::from_value(json!({"spec": {"volumeAttributesClassName": "gold"}, "status": status})).unwrap();
        assert_eq!(classes_of_claim(&claim), ["gold", "silver"]);
        assert!(classes_of_claim(&PersistentVolumeClaim::default()).is_empty());
    }
}
