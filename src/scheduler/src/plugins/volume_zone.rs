//! VolumeZone: the zone and region labels of bound volumes must be those of the node.
//!
//! Models pkg/scheduler/framework/plugins/volumezone/volume_zone.go, v1.37.
use api::volume::class_of_claim;
use client::{Named, ObjectKey};
use k8s_openapi::api::core::v1::PersistentVolume;

use super::{Filter, Prepared, Refusal, World, check};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::PodInfo;

pub struct VolumeZone;

const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// A label (and its present name) with the values that a node may have.
type Zones = Vec<(&'static str, &'static str, Vec<String>)>;

fn zones(volume: &PersistentVolume) -> Zones {
    let found = LABELS.iter().filter_map(|(label, current)| {
        let values: Vec<String> = volume.label(label)?.split("__").map(|v| v.trim().to_owned()).collect();
        // As LabelZonesToSet, which takes no label with an empty part.
        values.iter().all(|v| !v.is_empty()).then_some((*label, *current, values))
    });
    found.collect()
}

fn of_pod(pod: &PodInfo, world: &World) -> Result<Zones, String> {
    let mut all = Zones::new();
    for used in pod.claims.iter().filter(|c| !c.own) {
        let name = &used.name;
        let claim = world.volumes.claim(&ObjectKey::new(pod.key.namespace.clone(), name.clone()));
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        if volume.is_empty() {
            let class_name = class_of_claim(&claim);
            if class_name.is_empty() {
                return Err("PersistentVolumeClaim had no pv name and storageClass name".to_owned());
            }
            let class = world.volumes.class(class_name);
            let class = class.ok_or_else(|| format!("storageclass.storage.k8s.io {class_name:?} not found"))?;
            match class.volume_binding_mode.as_deref() {
                None => return Err(format!("VolumeBindingMode not set for StorageClass {class_name:?}")),
                Some("WaitForFirstConsumer") => continue,
                Some(_) => return Err("PersistentVolume had no name".to_owned()),
            }
        }
        let found = world.volumes.volume(volume).ok_or_else(|| format!("persistentvolume {volume:?} not found"))?;
        all.extend(zones(&found));
    }
    Ok(all)
}

impl Filter for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }
    fn events(&self) -> u32 {
        bits::CLASS_ADD | bits::NODE_ADD | bits::NODE_LABEL | bits::CLAIM_ADD | bits::CLAIM_UPDATE | bits::VOLUME_ADD | bits::VOLUME_UPDATE
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Class { new, .. } => new.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            Change::Claim { new, .. } => new.namespace() == pod.key.namespace && pod.claims.iter().any(|c| !c.own && c.name == new.name()),
            Change::Volume { old, new } => old.is_none_or(|old| zones(old) != zones(new)),
            _ => true,
        }
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        if pod.claims.is_empty() {
            return Prepared::Skip;
        }
        let zones = match of_pod(pod, world) {
            Ok(zones) if zones.is_empty() => return Prepared::Skip,
            Ok(zones) => std::sync::Arc::new(zones),
            Err(why) => return Prepared::Refused(Refusal::unresolvable(why)),
        };
        Prepared::Check(check(move |node| {
            if !LABELS.iter().any(|(label, _)| node.labels.contains_key(*label)) {
                return Ok(()); // a cluster of one zone
            }
            let fits = |(label, current, values): &(&str, &str, Vec<String>)| {
                let value = node.labels.get(*label).or_else(|| node.labels.get(*current));
                value.is_some_and(|v| values.contains(v))
            };
            match zones.iter().all(fits) {
                true => Ok(()),
                false => Err(Refusal::unresolvable("node(s) had no available volume zone")),
            }
        }))
    }
}
