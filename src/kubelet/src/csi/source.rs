//! What is asked of a driver for one volume of a pod. Pure.
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, Pod, SecretReference, Volume};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::message::Map;

/// Folder of these volumes below a pod's.
pub const PLUGIN: &str = "kubernetes.io~csi";

#[derive(Debug, Clone, Default)]
pub struct Source {
    pub driver: String,
    pub handle: String,
    /// Name of the PersistentVolume, or of the pod's own volume.
    pub name: String,
    pub fs_type: String,
    pub attributes: Map,
    pub mount_options: Vec<String>,
    pub modes: Vec<String>,
    pub read_only: bool,
    /// Lives and dies with its pod.
    pub is_ephemeral: bool,
    pub is_block: bool,
    pub stage_secret: Option<SecretReference>,
    pub publish_secret: Option<SecretReference>,
}

/// What has to be known to take a volume away again. Field names are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub driver_name: String,
    pub volume_handle: String,
    #[serde(rename = "specVolID")]
    pub name: String,
    pub volume_lifecycle_mode: String,
    /// Where it is staged, if the driver stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<PathBuf>,
}

impl Record {
    /// The name in the node's status; `None` for volumes that are never attached.
    pub fn unique_name(&self) -> Option<String> {
        (self.volume_lifecycle_mode == "Persistent").then(|| format!("kubernetes.io/csi/{}^{}", self.driver_name, self.volume_handle))
    }
}

impl Source {
    /// The source of a volume, if a driver makes it.
    pub fn of(pod: &Pod, volume: &Volume, persistent: Option<&PersistentVolume>) -> Option<Self> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(csi) = &volume.csi {
            let hash = digest(&SHA256, format!("{uid}{}", volume.name).as_bytes());
            let secret = csi.node_publish_secret_ref.as_ref();
            return Some(Self {
                driver: csi.driver.clone(),
                handle: format!("csi-{}", hex(hash.as_ref())),
                name: volume.name.clone(),
                fs_type: csi.fs_type.clone().unwrap_or_default(),
                attributes: csi.volume_attributes.clone().unwrap_or_default(),
                modes: vec!["ReadWriteOnce".to_owned()],
                read_only: csi.read_only.unwrap_or_default(),
                is_ephemeral: true,
                publish_secret: secret.map(|s| SecretReference { name: Some(s.name.clone()), namespace: pod.metadata.namespace.clone() }),
                ..Self::default()
            });
        }
        let persistent = persistent?;
        let spec = persistent.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let claim = volume.persistent_volume_claim.as_ref();
        Some(Self {
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            name: persistent.metadata.name.clone().unwrap_or_default(),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            attributes: csi.volume_attributes.clone().unwrap_or_default(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            modes: spec.access_modes.clone().unwrap_or_default(),
            read_only: csi.read_only.unwrap_or_default() || claim.and_then(|c| c.read_only).unwrap_or_default(),
            is_ephemeral: false,
            is_block: spec.volume_mode.as_deref() == Some("Block"),
            stage_secret: csi.node_stage_secret_ref.clone(),
            publish_secret: csi.node_publish_secret_ref.clone(),
        })
    }

    /// As upstream's makeDeviceMountPath: the driver's and the handle's names reach no path unchecked.
    pub fn staging_path(&self, root: &Path) -> PathBuf {
        let handle = hex(digest(&SHA256, self.handle.as_bytes()).as_ref());
        root.join("plugins/kubernetes.io/csi").join(&self.driver).join(handle).join("globalmount")
    }

    /// As upstream's getAttachmentName.
    pub fn attachment_name(&self, node: &str) -> String {
        format!("csi-{}", hex(digest(&SHA256, format!("{}{}{node}", self.handle, self.driver).as_bytes()).as_ref()))
    }

    /// Whether the group is set by us, after CSIDriver.spec.fsGroupPolicy.
    pub fn group_is_ours(&self, policy: Option<&str>) -> bool {
        match policy.unwrap_or("ReadWriteOnceWithFSType") {
            "File" => true,
            "None" => false,
            _ => !self.fs_type.is_empty() && self.modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod"),
        }
    }
}

/// What a driver is told of the pod when its CSIDriver says `podInfoOnMount`.
pub fn pod_info(pod: &Pod, is_ephemeral: bool) -> Map {
    let meta = &pod.metadata;
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        ("pod.name", text(&meta.name)),
        ("pod.namespace", text(&meta.namespace)),
        ("pod.uid", text(&meta.uid)),
        ("serviceAccount.name", text(&account)),
        ("ephemeral", is_ephemeral.to_string()),
    ]
    .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value))
    .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_source_comes_from_the_volume_or_from_the_pod() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let own: Volume =
            serde_json::from_value(json!({"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}})).unwrap();
        let source = Source::of(&pod, &own, None).unwrap();
        assert!(source.is_ephemeral && source.handle.starts_with("csi-") && source.handle.len() == 68);
        assert_eq!(source.publish_secret.unwrap().namespace.as_deref(), Some("n"));
        let claim: Volume =
            serde_json::from_value(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}})).unwrap();
        let csi = json!({"driver": "d", "volumeHandle": "../h", "fsType": "ext4"});
        let persistent =
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"], "csi": csi}})).unwrap();
        let source = Source::of(&pod, &claim, Some(&persistent)).unwrap();
        assert!(source.read_only && !source.is_ephemeral);
        let path = source.staging_path(Path::new("/r"));
        assert_eq!(path.components().count(), 8, "{}", path.display());
        assert!(source.group_is_ours(None) && source.group_is_ours(Some("File")) && !source.group_is_ours(Some("None")));
        assert!(Source::of(&pod, &claim, None).is_none());
    }
}
