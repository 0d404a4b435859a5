//! The volumes behind a pod's claims, asked of the server when the pod's volumes are made.
//!
//! Models pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go createVolumeSpec, v1.37; errors have its texts.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::volume::{LOCAL_PROVISIONER, PROVISIONED_BY};
use client::{Client, ObjectKey, controller_of};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::{Prepared, SetUpError, failed, host_path, ownership};

/// By the name that the pod gives the volume.
pub type Claimed = BTreeMap<String, Arc<PersistentVolume>>;

/// Finds the volume of each claim, or says why the pod has to wait.
pub async fn find(client: &Client, pod: &Pod) -> Result<Claimed, String> {
    let mut found = Claimed::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let Some(name) = claim_name(pod, volume) else { continue };
        let key = ObjectKey::new(pod.metadata.namespace.as_deref().unwrap_or_default(), name);
        let persistent = volume_of(client, pod, volume, &key).await.map_err(|why| format!("error processing PVC {key}: {why}"))?;
        found.insert(volume.name.clone(), Arc::new(persistent));
    }
    Ok(found)
}

/// The claim of a volume, where it has one.
fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)),
        (None, None) => None,
    }
}

async fn volume_of(client: &Client, pod: &Pod, volume: &Volume, key: &ObjectKey) -> Result<PersistentVolume, String> {
    let claim: PersistentVolumeClaim = client.get(key).await.map_err(|e| format!("failed to fetch PVC from API server: {e}"))?;
    let name = bound_to(&claim, pod, volume)?;
    let fetched = client.get(&ObjectKey::cluster(name)).await;
    let persistent: PersistentVolume = fetched.map_err(|e| format!("failed to fetch PV {name} from API server: {e}"))?;
    check_reference(&persistent, &claim, name)?;
    Ok(persistent)
}

/// The name of the claim's volume.
fn bound_to<'a>(claim: &'a PersistentVolumeClaim, pod: &Pod, volume: &Volume) -> Result<&'a str, String> {
    let own = volume.ephemeral.is_some();
    if own && controller_of(&claim.metadata).is_none_or(|owner| Some(&owner.uid) != pod.metadata.uid.as_ref()) {
        return Err("PVC was not created for the pod (pod is not owner)".to_owned());
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    let is_bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if is_bound && !name.is_empty() { Ok(name) } else { Err("PVC is not bound".to_owned()) }
}

fn check_reference(volume: &PersistentVolume, claim: &PersistentVolumeClaim, name: &str) -> Result<(), String> {
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return Err(format!("found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"));
    };
    let (found, wanted) = (reference.uid.as_deref().unwrap_or_default(), claim.metadata.uid.as_deref().unwrap_or_default());
    if found == wanted {
        return Ok(());
    }
    Err(format!("found PV object {name} but its pv.Spec.ClaimRef.UID {found} does not point to claim.UID {wanted}"))
}

/// The path of a persistent volume that needs no driver: a hostPath or a local directory.
/// `marker` says that this pod has set its group already: a changed Secret makes its volumes again, and this one may be large.
/// `storage` is the folder of this node's own local volumes.
pub(super) fn set_up(
    pod: &Pod,
    volume: &Volume,
    persistent: &PersistentVolume,
    marker: &Path,
    storage: &Path,
) -> Result<Prepared, SetUpError> {
    let spec = persistent.spec.clone().unwrap_or_default();
    let read_only = volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(SetUpError::Unsupported("persistentVolumeClaim with volumeMode Block"));
    }
    if let Some(source) = &spec.host_path {
        return Ok(Prepared { path: host_path::check(source)?, read_only });
    }
    if let Some(source) = &spec.local {
        make_if_ours(persistent, Path::new(&source.path), storage)?;
        // What a link leads to: owners are set on the directory itself.
        let path = PathBuf::from(&source.path);
        let path = fs::canonicalize(&path).map_err(failed("find the local volume", &path))?;
        if let (Some(group), false, false) = (ownership::fs_group(pod), read_only, marker.exists()) {
            if ownership::must_change(pod, &path, group) {
                let owner = ownership::Owner { user: None, group: Some(group) };
                ownership::apply(&path, owner, false).map_err(failed("set owner of", &path))?;
            }
            fs::create_dir_all(marker).map_err(failed("create", marker))?;
        }
        return Ok(Prepared { path, read_only });
    }
    Err(SetUpError::Unsupported("persistentVolumeClaim whose volume needs a driver"))
}

/// Makes the folder of a volume of the class `local-path`: it belongs in this node's storage, directly, and nowhere else.
fn make_if_ours(persistent: &PersistentVolume, path: &Path, storage: &Path) -> Result<(), SetUpError> {
    let by = persistent.metadata.annotations.as_ref().and_then(|a| a.get(PROVISIONED_BY));
    let is_plain = path.file_name().is_some_and(|name| storage.join(name) == path);
    if by.is_none_or(|by| by != LOCAL_PROVISIONER) || !is_plain {
        return Ok(());
    }
    match fs::create_dir(path) {
        // Not through the umask: whatever user the pod runs as may write.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(failed("set mode of", path)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("create", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(claim: Value, volume: Value, expect: Result<&str, &str>) {
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "pod"}})).unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        assert_eq!(bound_to(&claim, &pod, &volume), expect.map_err(str::to_owned));
    }

    #[test]
    fn a_pod_waits_until_its_claim_is_bound() {
        let named = || json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        let own = || json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        let bound = |meta: Value| json!({"metadata": meta, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        check(bound(json!({})), named(), Ok("pv"));
        check(json!({"spec": {"volumeName": "pv"}, "status": {"phase": "Pending"}}), named(), Err("PVC is not bound"));
        check(bound(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), named(), Err("PVC is being deleted"));
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod", "controller": true}]);
        check(bound(json!({"ownerReferences": owner})), own(), Ok("pv"));
        check(bound(json!({})), own(), Err("PVC was not created for the pod (pod is not owner)"));
    }
    #[test]
    fn a_folder_is_made_in_the_storage_only() {
        let root = tempfile::tempdir().unwrap();
        let storage = root.path().join("storage");
        fs::create_dir(&storage).unwrap();
        let made = |by: &str, path: PathBuf| {
            let meta = json!({"name": "pv", "annotations": {"pv.kubernetes.io/provisioned-by": by}});
            let persistent = serde_json::from_value(json!({"metadata": meta})).unwrap();
            make_if_ours(&persistent, &path, &storage).unwrap();
            path.is_dir()
        };
        assert!(made(LOCAL_PROVISIONER, storage.join("pvc-1")) && made(LOCAL_PROVISIONER, storage.join("pvc-1")));
        assert_eq!(fs::metadata(storage.join("pvc-1")).unwrap().permissions().mode() & 0o777, 0o777);
        assert!(!made("example.com/other", storage.join("pvc-2")));
        assert!(!made(LOCAL_PROVISIONER, root.path().join("pvc-2")) && !made(LOCAL_PROVISIONER, storage.join("deep/pvc-2")));
        assert!(!made(LOCAL_PROVISIONER, storage.join("../pvc-2")));
    }
}
