//! Brings a volume to a pod and takes it away: stage and publish, unpublish and unstage.
//!
//! Models pkg/volume/csi/{csi_attacher,csi_mounter,csi_util}.go, v1.37; errors have its texts. Each pod's record says what to undo; the
//! volume is unstaged when no record of this node speaks of it any more.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use client::ObjectKey;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Secret, SecretReference, ServiceAccount};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use serde_json::json;

use super::message::{Capability, Map, Writer, access_mode};
use super::source::{PLUGIN, Record, Source, pod_info};
use super::{Driver, Drivers, POISON, rpc};
use crate::images::chain;
use crate::kubelet::Context;
use crate::volumes::claims::Claimed;
use crate::volumes::{Mounted, Prepared, ownership};

const RECORD: &str = "vol_data.json";

/// Makes all volumes of the pod that drivers make. Does it again without harm.
pub async fn set_up_all(cx: &Context, pod: &Pod, claimed: &Claimed) -> Result<Mounted, String> {
    let mut out = Mounted::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let Some(source) = Source::of(pod, volume, claimed.get(&volume.name).map(|v| &**v)) else { continue };
        let path =
            set_up(cx, pod, &source).await.map_err(|why| format!("MountVolume.SetUp failed for volume {:?} : {why}", source.name))?;
        out.insert(volume.name.clone(), Prepared { path, read_only: source.read_only });
    }
    Ok(out)
}

async fn set_up(cx: &Context, pod: &Pod, source: &Source) -> Result<PathBuf, String> {
    if source.is_block {
        return Err("volumes of drivers with volumeMode Block are not supported by this kubelet".to_owned());
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let folder = folder(&cx.csi.root, &uid, &source.name);
    let target = folder.join("mount");
    let key = (uid, source.name.clone());
    let about: Option<CSIDriver> = match cx.client.get(&ObjectKey::cluster(&source.driver)).await {
        Ok(found) => Some(found),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(format!("failed to get CSIDriver {}: {}", source.driver, chain(&error))),
    };
    let about = about.map(|driver| driver.spec).unwrap_or_default();
    let lock = cx.csi.lock(&source.driver, &source.handle).await;
    let was_published = cx.csi.published.lock().expect(POISON).contains(&key);
    if was_published && about.requires_republish != Some(true) {
        return Ok(target);
    }
    let lifecycle = if source.is_ephemeral { "Ephemeral" } else { "Persistent" };
    let modes = about.volume_lifecycle_modes.clone().filter(|modes| !modes.is_empty()).unwrap_or_else(|| vec!["Persistent".to_owned()]);
    if !modes.iter().any(|mode| mode == lifecycle) {
        return Err(format!("volume mode {lifecycle:?} not supported by driver {} (only supports {modes:?})", source.driver));
    }
    let driver = cx.csi.get(&source.driver).ok_or_else(|| {
        format!(
            "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name {} not found in the list of registered CSI drivers",
            source.driver
        )
    })?;
    let context = match source.is_ephemeral || about.attach_required == Some(false) {
        true => Map::new(),
        false => attachment(cx, source).await?,
    };
    let group = ownership::fs_group(pod);
    let capability = Capability {
        fs_type: source.fs_type.clone(),
        mount_flags: source.mount_options.clone(),
        group: group.filter(|_| driver.capabilities.sets_group).map(|g| g.to_string()).unwrap_or_default(),
        access_mode: access_mode(source.modes.first().map_or("ReadWriteOnce", String::as_str), driver.capabilities),
    };
    let staging = (driver.capabilities.stages && !source.is_ephemeral).then(|| source.staging_path(&cx.csi.root));
    let record = Record {
        driver_name: source.driver.clone(),
        volume_handle: source.handle.clone(),
        name: source.name.clone(),
        volume_lifecycle_mode: lifecycle.to_owned(),
        staging: staging.clone(),
    };
    // Before anything is mounted: a crash must not leave what nobody takes away.
    write_record(&folder, &record).map_err(|e| format!("failed to save volume info data: {e}"))?;
    cx.csi.records.lock().expect(POISON).insert(key.clone(), record);
    if let Some(staging) = &staging {
        stage(cx, &driver, source, &capability, &context, staging).await?;
    }
    let mut attributes = source.attributes.clone();
    if about.pod_info_on_mount == Some(true) {
        attributes.extend(pod_info(pod, source.is_ephemeral));
    }
    let mut secrets = secret(cx, source.publish_secret.as_ref(), "NodePublishSecretRef").await?;
    if let Some(tokens) = tokens(cx, pod, about.token_requests.as_deref().unwrap_or_default()).await? {
        let place = if about.service_account_token_in_secrets == Some(true) { &mut secrets } else { &mut attributes };
        place.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
    }
    let request = Writer::default()
        .text(1, &source.handle)
        .map(2, &context)
        .text(3, &staging.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
        .text(4, &target.to_string_lossy())
        .message(5, capability.write())
        .number(6, u64::from(source.read_only))
        .map(7, &secrets)
        .map(8, &attributes);
    rpc::call(&driver.endpoint, "/csi.v1.Node/NodePublishVolume", &request.done()).await.map_err(|e| e.to_string())?;
    let sets_group =
        !was_published && !source.read_only && !driver.capabilities.sets_group && source.group_is_ours(about.fs_group_policy.as_deref());
    if let Some(group) = group.filter(|group| sets_group && ownership::must_change(pod, &target, *group)) {
        let path = target.clone();
        let owner = ownership::Owner { user: None, group: Some(group) };
        let applied = tokio::task::spawn_blocking(move || ownership::apply(&path, owner, false)).await;
        applied.map_err(|e| e.to_string())?.map_err(|e| format!("applyFSGroup failed for vol {}: {e}", source.handle))?;
    }
    cx.csi.published.lock().expect(POISON).insert(key);
    drop(lock);
    Ok(target)
}

async fn stage(
    cx: &Context,
    driver: &Driver,
    source: &Source,
    capability: &Capability,
    context: &Map,
    staging: &Path,
) -> Result<(), String> {
    make_folder(staging).map_err(|e| format!("attacher.MountDevice failed to create dir {:?}:  {e}", staging.display()))?;
    let secrets = secret(cx, source.stage_secret.as_ref(), "NodeStageSecretRef").await?;
    let request = Writer::default()
        .text(1, &source.handle)
        .map(2, context)
        .text(3, &staging.to_string_lossy())
        .message(4, capability.write())
        .map(5, &secrets)
        .map(6, &source.attributes);
    let staged = rpc::call(&driver.endpoint, "/csi.v1.Node/NodeStageVolume", &request.done()).await;
    staged.map(drop).map_err(|e| e.to_string())
}

/// What the driver's attacher says of the volume here; it must have attached it.
async fn attachment(cx: &Context, source: &Source) -> Result<Map, String> {
    let (handle, name) = (&source.handle, source.attachment_name(&cx.config.node_name));
    let found: VolumeAttachment = cx
        .client
        .get(&ObjectKey::cluster(&name))
        .await
        .map_err(|e| format!("volume {handle} has GET error for volume attachment {name}: {}", chain(&e)))?;
    let status = found.status.unwrap_or_default();
    match status.attached && found.metadata.deletion_timestamp.is_none() {
        true => Ok(status.attachment_metadata.unwrap_or_default()),
        false => Err(format!("volume {handle} is not attached for volume attachment {name}")),
    }
}

async fn secret(cx: &Context, reference: Option<&SecretReference>, what: &str) -> Result<Map, String> {
    let Some(reference) = reference else { return Ok(Map::new()) };
    let key = ObjectKey::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default());
    let found: Secret = cx.client.get(&key).await.map_err(|e| format!("fetching {what} {key} failed: {}", chain(&e)))?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| format!("fetching {what} {key} failed: it holds no text"));
    found.data.unwrap_or_default().into_iter().map(|(name, bytes)| Ok::<_, String>((name, text(bytes.0)?))).collect()
}

/// Tokens of the pod's account for the audiences that the driver asks for, as JSON.
async fn tokens(cx: &Context, pod: &Pod, requests: &[k8s_openapi::api::storage::v1::TokenRequest]) -> Result<Option<String>, String> {
    if requests.is_empty() {
        return Ok(None);
    }
    let account =
        pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
    let key = ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), account);
    let mut out = serde_json::Map::new();
    for wanted in requests {
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let spec = TokenRequestSpec {
            audiences: Some(vec![wanted.audience.clone()]).filter(|a| !a[0].is_empty()),
            expiration_seconds: wanted.expiration_seconds,
            bound_object_ref: Some(bound),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer: TokenRequest = cx
            .client
            .create_subresource::<ServiceAccount, _, _>(&key, "token", &request)
            .await
            .map_err(|e| format!("fetch a token: {}", chain(&e)))?;
        let status = answer.status.ok_or("the server gave no token")?;
        let expires = status.expiration_timestamp.map(|t| t.0.to_string());
        out.insert(wanted.audience.clone(), json!({"token": status.token, "expirationTimestamp": expires}));
    }
    Ok(Some(serde_json::Value::Object(out).to_string()))
}

fn folder(root: &Path, uid: &str, name: &str) -> PathBuf {
    root.join("pods").join(uid).join("volumes").join(PLUGIN).join(name)
}

fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path)
}

fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    make_folder(folder)?;
    let (path, new) = (folder.join(RECORD), folder.join(format!(".{RECORD}")));
    fs::write(&new, serde_json::to_vec(record)?)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(new, path)
}

/// All records on disk, by pod and volume.
pub(super) fn read_records(root: &Path) -> BTreeMap<(String, String), Record> {
    let names = |path: &Path| -> Vec<String> {
        fs::read_dir(path).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    let mut out = BTreeMap::new();
    for uid in names(&root.join("pods")) {
        for name in names(&root.join("pods").join(&uid).join("volumes").join(PLUGIN)) {
            let bytes = fs::read(folder(root, &uid, &name).join(RECORD)).unwrap_or_default();
            if let Ok(record) = serde_json::from_slice(&bytes) {
                out.insert((uid.clone(), name), record);
            }
        }
    }
    out
}

impl Drivers {
    /// Takes all volumes of a pod away; tries every one, and returns the first error.
    pub async fn tear_down(&self, uid: &str) -> Result<(), String> {
        let mine: Vec<(String, Record)> = {
            let records = self.records.lock().expect(POISON);
            records.iter().filter(|((pod, _), _)| pod == uid).map(|((_, name), record)| (name.clone(), record.clone())).collect()
        };
        let mut first = Ok(());
        for (name, record) in mine {
            let done = self
                .take_away(uid, &name, &record)
                .await
                .map_err(|why| format!("UnmountVolume.TearDown failed for volume {name:?} : {why}"));
            first = first.and(done);
        }
        first
    }

    async fn take_away(&self, uid: &str, name: &str, record: &Record) -> Result<(), String> {
        let _lock = self.lock(&record.driver_name, &record.volume_handle).await;
        let driver = self.get(&record.driver_name).ok_or_else(|| {
            format!(
                "kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: driver name {} not found in the list of registered CSI drivers",
                record.driver_name
            )
        })?;
        let folder = folder(&self.root, uid, name);
        let target = folder.join("mount");
        let key = (uid.to_owned(), name.to_owned());
        self.published.lock().expect(POISON).remove(&key);
        let request = Writer::default().text(1, &record.volume_handle).text(2, &target.to_string_lossy());
        ignore_missing(rpc::call(&driver.endpoint, "/csi.v1.Node/NodeUnpublishVolume", &request.done()).await)?;
        // Never what it holds: where the driver has left its mount, that would be the user's data.
        remove_empty(&target)?;
        let is_last = {
            let records = self.records.lock().expect(POISON);
            let same = |other: &Record| other.driver_name == record.driver_name && other.volume_handle == record.volume_handle;
            !records.iter().any(|(other, r)| *other != key && same(r))
        };
        if let (Some(staging), true) = (&record.staging, is_last) {
            let request = Writer::default().text(1, &record.volume_handle).text(2, &staging.to_string_lossy());
            ignore_missing(rpc::call(&driver.endpoint, "/csi.v1.Node/NodeUnstageVolume", &request.done()).await)?;
            remove_empty(staging)?;
            if let Some(parent) = staging.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
        for file in [RECORD, ".vol_data.json"] {
            match fs::remove_file(folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
                _ => {}
            }
        }
        remove_empty(&folder)?;
        self.records.lock().expect(POISON).remove(&key);
        Ok(())
    }

    /// Whether a pod still has volumes here that a driver must take away.
    pub fn has_volumes(&self, uid: &str) -> bool {
        self.records.lock().expect(POISON).keys().any(|(pod, _)| pod == uid)
    }

    /// What must not be detached from this node.
    pub fn in_use(&self) -> Vec<String> {
        let records = self.records.lock().expect(POISON);
        let mut names: Vec<_> = records.values().filter_map(Record::unique_name).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn ignore_missing(result: Result<bytes::Bytes, rpc::CallError>) -> Result<(), String> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn remove_empty(path: &Path) -> Result<(), String> {
    match fs::remove_dir(path) {
        // Some drivers publish a file.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            fs::remove_file(path).map_err(|e| format!("remove {}: {e}", path.display()))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("remove {}: {error}", path.display())),
        _ => Ok(()),
    }
}
