//! A volume: its phase follows its claim; without one it is kept, or given back.
//!
//! Models syncVolume, unbindVolume and reclaimVolume of pv_controller.go, v1.37.
use api::volume::{PROVISIONED_BY, modes_differ};
use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use client::{EventType, Named, Next, ObjectKey, WorkQueue};

use super::{Context, claim_key, claim_ref, volume_name, writes};
use crate::failure::{During, Failure, unless_gone};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Phase(&'static str),
    /// The claim is gone: released, then reclaimed.
    Release,
    /// The claim has to find it.
    WakeClaim,
    Mismatch,
    /// The claim has another volume.
    Unbind,
}

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey, claims: &WorkQueue<ObjectKey>) -> Result<Next, Failure> {
    let Some(volume) = cx.volumes.get(key) else { return Ok(Next::Wait) };
    let claim = match claim_ref(&volume).filter(|r| r.uid.as_ref().is_some_and(|uid| !uid.is_empty())) {
        None => None,
        Some(reference) => current_claim(cx, &claim_key(reference), reference.uid.as_deref().unwrap_or_default()).await?,
    };
    match plan(&volume, claim.as_ref()) {
        Step::Phase(phase) => {
            writes::volume_phase(cx, &volume, phase, "").await?;
        }
        Step::Release => release(cx, &volume).await?,
        Step::WakeClaim => claim.iter().for_each(|claim| claims.add(claim.key())),
        Step::Unbind => writes::unbind(cx, &volume).await?,
        Step::Mismatch => {
            let Some(claim) = claim else { return Ok(Next::Wait) };
            let why = "due to incompatible volumeMode.";
            let text = format!("Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} {why}", claim.name());
            cx.recorder.record(&*volume, EventType::Warning, "VolumeMismatch", text);
            let text = format!("Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim {why}", volume.name());
            cx.recorder.record(&claim, EventType::Warning, "VolumeMismatch", text);
        }
    }
    Ok(Next::Wait)
}

/// The claim with this uid: as the cache has it, or, where that may be behind, the server.
async fn current_claim(cx: &Context, key: &ObjectKey, uid: &str) -> Result<Option<PersistentVolumeClaim>, Failure> {
    if let Some(claim) = cx.claims.get(key).filter(|c| c.uid() == uid) {
        return Ok(Some((*claim).clone()));
    }
    let result = unless_gone(cx.client.get::<PersistentVolumeClaim>(key).await);
    let found = result.during(|| format!("look for PersistentVolumeClaim {key}"))?;
    Ok(found.filter(|c| c.uid() == uid))
}

/// Decides what to do; does nothing.
pub(super) fn plan(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    let reference = claim_ref(volume);
    if reference.is_none_or(|r| r.uid.as_deref().unwrap_or_default().is_empty()) {
        return Step::Phase("Available");
    }
    let Some(claim) = claim else { return Step::Release };
    match volume_name(claim) {
        "" if modes_differ(claim, volume) => Step::Mismatch,
        "" => Step::WakeClaim,
        name if name == volume.name() => Step::Phase("Bound"),
        // It was made for the claim, which has another one: nobody will want it.
        _ if volume.annotation(PROVISIONED_BY).is_some() && reclaim_policy(volume) == "Delete" => Step::Release,
        _ => Step::Unbind,
    }
}

fn reclaim_policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

async fn release(cx: &Context, volume: &PersistentVolume) -> Result<(), Failure> {
    let mut volume = volume.clone();
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    if !matches!(phase, Some("Released" | "Failed")) {
        volume = writes::volume_phase(cx, &volume, "Released", "").await?;
    }
    let Some((reason, text)) = unreclaimable(&volume) else { return Ok(()) };
    if volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed") {
        return Ok(());
    }
    writes::volume_phase(cx, &volume, "Failed", &text).await?;
    cx.recorder.record(&volume, EventType::Warning, reason, text);
    Ok(())
}

/// Why the volume cannot be given back as its policy says; `None` where nothing is to be done here.
pub(super) fn unreclaimable(volume: &PersistentVolume) -> Option<(&'static str, String)> {
    match reclaim_policy(volume) {
        "Retain" => None,
        "Recycle" => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned())),
        "Delete" => {
            let external = volume.annotation(PROVISIONED_BY).is_some_and(|by| !by.starts_with("kubernetes.io/"));
            let why = format!("error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched", volume.name());
            (!external && volume.spec.as_ref().is_none_or(|s| s.csi.is_none())).then_some(("VolumeFailedDelete", why))
        }
        _ => Some(("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned())),
    }
}
