//! Which volumes the pods of a node need there.
use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use client::k8s_openapi::api::storage::v1::CSIDriver;
use client::{Informer, Named, ObjectKey};
use ring::digest::{SHA256, digest};

use super::Context;
use crate::pods;
use crate::volume_binding::claim_names;

/// A volume that must be attached, and for whom.
pub(super) struct Wanted {
    pub volume: Arc<PersistentVolume>,
    pub driver: String,
    pub handle: String,
    pub pods: Vec<Arc<Pod>>,
}

impl Wanted {
    /// As upstream's getAttachmentName.
    pub fn attachment_name(&self, node: &str) -> String {
        let hash = digest(&SHA256, format!("{}{}{node}", self.handle, self.driver).as_bytes());
        format!("csi-{}", hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver, self.handle)
    }

    /// Several nodes may have it at once.
    pub fn is_shared(&self) -> bool {
        let modes = self.volume.spec.as_ref().and_then(|s| s.access_modes.clone()).unwrap_or_default();
        modes.is_empty() || modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    }
}

/// The name of a volume in a node's status.
pub(super) fn unique_name(volume: &PersistentVolume) -> Option<String> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some(format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle))
}

/// A driver that says nothing wants its volumes attached.
fn attaches(drivers: &Informer<CSIDriver>, name: &str) -> bool {
    let driver = drivers.get(&ObjectKey::cluster(name));
    driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
}

pub(super) fn wanted(cx: &Context, pods: &[Arc<Pod>]) -> Vec<Wanted> {
    let mut found: BTreeMap<String, Wanted> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pods::is_terminated(pod)) {
        for name in claim_names(pod) {
            let claim = cx.claims.get(&ObjectKey::new(pod.namespace(), name));
            let volume = claim.and_then(|claim| {
                let is_bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
                let volume = claim.spec.as_ref()?.volume_name.clone().filter(|_| is_bound)?;
                let volume = cx.volumes.get(&ObjectKey::cluster(volume))?;
                let is_its = volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref() == Some(claim.uid());
                is_its.then_some(volume)
            });
            let Some(volume) = volume else { continue };
            let Some(csi) = volume.spec.as_ref().and_then(|s| s.csi.clone()) else { continue };
            if !attaches(&cx.drivers, &csi.driver) {
                continue;
            }
            let entry = found.entry(volume.name().to_owned());
            let wanted =
                entry.or_insert_with(|| Wanted { volume: volume.clone(), driver: csi.driver, handle: csi.volume_handle, pods: Vec::new() });
            wanted.pods.push(pod.clone());
        }
    }
    found.into_values().collect()
}
