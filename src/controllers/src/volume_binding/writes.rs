//! The writes of a binding: volume, its phase, claim, its status. Each is left out where there is nothing to change.
//!
//! Models bind, updateClaimStatus, updateVolumePhase, unbindVolume and setClaimProvisioner of pv_controller.go, v1.37.
use api::volume::{BIND_COMPLETED, BOUND_BY_CONTROLLER, bound_volume};
use client::Named;
use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{Context, volume_name};
use crate::failure::{During, Failure};

/// Both names of the annotation by which a provisioner knows its claims.
const PROVISIONER: [&str; 2] = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];

/// Makes volume and claim each other's.
pub(super) async fn bind(cx: &Context, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
    let volume = match bound_volume(volume, claim) {
        Some(update) => {
            let step = || format!("bind PersistentVolume {} to {}", volume.name(), claim.key());
            cx.client.update(&update).await.during(step)?
        }
        None => volume.clone(),
    };
    let volume = volume_phase(cx, &volume, "Bound", "").await?;
    let claim = match claim_for(claim, &volume) {
        Some(update) => {
            let step = || format!("bind PersistentVolumeClaim {} to {}", claim.key(), volume.name());
            cx.client.update(&update).await.during(step)?
        }
        None => claim.clone(),
    };
    claim_phase(cx, &claim, "Bound", Some(&volume)).await
}

/// The claim with the name of its volume; `None` if it has it.
pub(super) fn claim_for(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let mut update = claim.clone();
    let annotations = update.metadata.annotations.get_or_insert_default();
    if volume_name(claim) != volume.name() {
        annotations.entry(BOUND_BY_CONTROLLER.to_owned()).or_insert_with(|| "yes".to_owned());
        update.spec.get_or_insert_default().volume_name = Some(volume.name().to_owned());
    }
    let annotations = update.metadata.annotations.get_or_insert_default();
    annotations.entry(BIND_COMPLETED.to_owned()).or_insert_with(|| "yes".to_owned());
    let changed = update.spec != claim.spec || Some(&*annotations) != claim.metadata.annotations.as_ref();
    changed.then_some(update)
}

pub(super) async fn volume_phase(cx: &Context, volume: &PersistentVolume, phase: &str, message: &str) -> Result<PersistentVolume, Failure> {
    if volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase) {
        return Ok(volume.clone());
    }
    let mut update = volume.clone();
    let status = update.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = Some(message.to_owned()).filter(|m| !m.is_empty());
    cx.client.update_status(&update).await.during(|| format!("set the phase of PersistentVolume {} to {phase}", volume.name()))
}

pub(super) async fn claim_phase(
    cx: &Context,
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Result<(), Failure> {
    let mut update = claim.clone();
    let status = update.status.get_or_insert_default();
    let was = status.phase.replace(phase.to_owned());
    match volume {
        None => {
            status.access_modes = None;
            status.capacity = None;
            status.current_volume_attributes_class_name = None;
        }
        Some(volume) => {
            let spec = volume.spec.clone().unwrap_or_default();
            status.access_modes = spec.access_modes.clone();
            if was.as_deref() != Some(phase) {
                status.capacity = spec.capacity.clone();
            }
            if was.as_deref() == Some("Pending") {
                status.current_volume_attributes_class_name = spec.volume_attributes_class_name.clone();
            }
        }
    }
    if update.status == claim.status {
        return Ok(());
    }
    let step = || format!("set the phase of PersistentVolumeClaim {} to {phase}", claim.key());
    cx.client.update_status(&update).await.map(|_| ()).during(step)
}

/// Frees the volume: all of the binding where it was the controller's, else its uid only, so that it stays reserved.
pub(super) async fn unbind(cx: &Context, volume: &PersistentVolume) -> Result<(), Failure> {
    let update = unbound(volume);
    let stored = cx.client.update(&update).await.during(|| format!("unbind PersistentVolume {}", volume.name()))?;
    volume_phase(cx, &stored, "Available", "").await.map(|_| ())
}

pub(super) fn unbound(volume: &PersistentVolume) -> PersistentVolume {
    let mut update = volume.clone();
    let spec = update.spec.get_or_insert_default();
    if volume.annotation(BOUND_BY_CONTROLLER).is_some() {
        spec.claim_ref = None;
        let annotations = update.metadata.annotations.take().unwrap_or_default();
        let left: std::collections::BTreeMap<_, _> = annotations.into_iter().filter(|(k, _)| k != BOUND_BY_CONTROLLER).collect();
        update.metadata.annotations = (!left.is_empty()).then_some(left);
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    update
}

/// Tells the provisioner by annotation that the claim is its.
pub(super) async fn ask_provisioner(cx: &Context, claim: &PersistentVolumeClaim, provisioner: &str) -> Result<(), Failure> {
    if claim.annotation(PROVISIONER[0]) == Some(provisioner) {
        return Ok(());
    }
    let mut update = claim.clone();
    let annotations = update.metadata.annotations.get_or_insert_default();
    for key in PROVISIONER {
        annotations.insert(key.to_owned(), provisioner.to_owned());
    }
    cx.client.update(&update).await.map(|_| ()).during(|| format!("ask {provisioner} for PersistentVolumeClaim {}", claim.key()))
}
