//! NodeVolumeLimits: a CSI driver says how many of its volumes a node can hold.
//!
//! Models pkg/scheduler/framework/plugins/nodevolumelimits/csi.go, v1.37. Left out: in-tree volumes that are served by CSI drivers, and
//! drivers that must be on the node (VolumeLimitScaling is off by default).
use std::collections::BTreeMap;

use api::volume::class_of_claim;
use client::{Named, ObjectKey, controller_of};
use k8s_openapi::api::storage::v1::CSINode;

use super::{Filter, Prepared, Refusal, World, check};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::PodInfo;
use crate::volumes::VolumeView;

pub struct NodeVolumeLimits;

fn limits(node: &CSINode) -> BTreeMap<&str, i64> {
    let drivers = node.spec.drivers.iter();
    drivers.filter_map(|d| Some((d.name.as_str(), i64::from(d.allocatable.as_ref()?.count?)))).collect()
}

/// Volumes of the pod by their name in the driver, with the driver.
fn volumes_of(pod: &PodInfo, volumes: &dyn VolumeView, into: &mut BTreeMap<String, String>) -> Result<(), String> {
    for used in &pod.claims {
        let key = ObjectKey::new(pod.key.namespace.clone(), used.name.clone());
        let Some(claim) = volumes.claim(&key) else {
            return Err(format!("looking up PVC {key}: persistentvolumeclaim {:?} not found", used.name));
        };
        if used.own && controller_of(&claim.metadata).is_none_or(|owner| owner.uid != pod.uid) {
            return Err(format!("PVC {key} was not created for pod {} (pod is not owner)", pod.key));
        }
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let (driver, handle) = match volumes.volume(name) {
            Some(volume) => match volume.spec.as_ref().and_then(|s| s.csi.as_ref()) {
                Some(csi) => (csi.driver.clone(), csi.volume_handle.clone()),
                None => continue,
            },
            None => match volumes.class(class_of_claim(&claim)) {
                // It will be one volume more, whatever its name.
                Some(class) => (class.provisioner.clone(), format!("unbound-{key}")),
                None => continue,
            },
        };
        into.insert(format!("{driver}/{handle}"), driver);
    }
    Ok(())
}

impl Filter for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }
    fn events(&self) -> u32 {
        bits::CSI_NODE_ADD | bits::CSI_NODE_UPDATE | bits::POD_DELETE | bits::CLAIM_ADD | bits::ATTACHMENT_DELETE
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::CsiNode { old: Some(old), new } => {
                let before = limits(old);
                limits(new).iter().any(|(driver, limit)| *limit > before.get(driver).copied().unwrap_or_default())
            }
            Change::Pod { old: Some(old), .. } => !old.claims.is_empty(),
            Change::Claim { new, .. } => new.namespace() == pod.key.namespace && pod.claims.iter().any(|c| c.name == new.name()),
            Change::Attachment { .. } => pod.claims.iter().any(|c| !c.own),
            _ => true,
        }
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        if pod.claims.is_empty() {
            return Prepared::Skip;
        }
        let volumes = world.volumes;
        Prepared::Check(check(move |node| {
            let mut new = BTreeMap::new();
            volumes_of(pod, volumes, &mut new).map_err(Refusal::unresolvable)?;
            let csi_node = volumes.csi_node(&node.name);
            let limits = csi_node.as_deref().map(limits).unwrap_or_default();
            if new.is_empty() || limits.is_empty() {
                return Ok(());
            }
            let mut there = BTreeMap::new();
            for other in &node.pods {
                // A claim that has gone away counts for nothing.
                let _ = volumes_of(other, volumes, &mut there);
            }
            for attachment in volumes.attachments(&node.name) {
                let volume = attachment.spec.source.persistent_volume_name.as_deref().and_then(|name| volumes.volume(name));
                if let Some(csi) = volume.as_ref().and_then(|v| v.spec.as_ref()?.csi.as_ref()) {
                    let driver = &attachment.spec.attacher;
                    there.insert(format!("{driver}/{}", csi.volume_handle), driver.clone());
                }
            }
            new.retain(|name, _| !there.contains_key(name));
            let of = |all: &BTreeMap<String, String>, driver: &str| all.values().filter(|d| *d == driver).count() as i64;
            let over = |driver: &String| limits.get(driver.as_str()).is_some_and(|limit| of(&there, driver) + of(&new, driver) > *limit);
            match new.values().any(over) {
                true => Err(Refusal::resolvable("node(s) exceed max volume count")),
                false => Ok(()),
            }
        }))
    }
}
