//! Volumes of a pod: made before its containers start, kept up to date, removed after it.
//!
//! Models pkg/volume/{configmap,secret,projected,downwardapi,emptydir,hostpath}, v1.37. What follows API objects is written by
//! [`atomic`]; its content is made by [`payload`], which is pure. Drivers outside of the tree make theirs first ([`crate::csi`]). Left out:
//! every kind that needed a driver in the tree; such a pod waits with an event that names the kind.

pub mod atomic;
pub mod bundles;
pub mod certificates;
pub mod claims;
pub mod credentials;
pub mod host_path;
pub mod image;
pub mod ownership;
pub mod payload;
pub mod sources;
pub mod token;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};

use self::payload::{Given, Payload, PayloadError};
use self::sources::PodSources;
use crate::fields::NodeFacts;
use crate::resources;

/// Where a volume is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub path: PathBuf,
    /// The volume itself is read-only, whatever a mount says.
    pub read_only: bool,
}

pub type Mounted = BTreeMap<String, Prepared>;

#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
pub struct VolumeError {
    pub volume: String,
    #[source]
    pub reason: SetUpError,
}

#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error(transparent)]
    HostPath(#[from] host_path::HostPathError),
    #[error("volumes of type {0} are not supported by this kubelet")]
    Unsupported(&'static str),
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, #[source] source: io::Error },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetUpError {
    let path = path.to_owned();
    move |source| SetUpError::Io { what, path, source }
}

/// The two roots below which volumes live.
#[derive(Debug, Clone)]
pub struct Roots {
    /// On disk: emptyDir.
    pub disk: PathBuf,
    /// In memory where the host has a tmpfs there: secrets, tokens, config maps.
    pub memory: PathBuf,
}

impl Roots {
    fn disk(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.disk.join("pods").join(uid).join("volumes").join(plugin).join(name)
    }

    fn memory(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.memory.join("pods").join(uid).join("volumes").join(plugin).join(name)
    }

    /// Unmounts and removes all volumes of a pod; tries every step, and returns the first error.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        let mut first = Ok(());
        for root in [&self.disk, &self.memory] {
            let pod = root.join("pods").join(uid);
            let volumes = pod.join("volumes");
            // A driver's volume is the driver's to take away: below its mount is the user's data.
            let driven = volumes.join("kubernetes.io~csi");
            if fs::read_dir(&driven).is_ok_and(|mut entries| entries.next().is_some()) {
                first = first.and(Err(io::Error::other(format!("volumes of storage drivers are still in {}", driven.display()))));
                continue;
            }
            let mounts = ["kubernetes.io~empty-dir", image::PLUGIN].map(|plugin| fs::read_dir(volumes.join(plugin)));
            for entry in mounts.into_iter().flatten().flatten().flatten() {
                // EINVAL: not a mount point, an ordinary directory.
                let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW);
            }
            if let Err(error) = fs::remove_dir_all(&pod)
                && error.kind() != io::ErrorKind::NotFound
            {
                first = first.and(Err(error));
            }
        }
        first
    }

    /// The pods that have a directory here.
    pub fn pods(&self) -> Vec<String> {
        let mut out: Vec<String> = [&self.disk, &self.memory]
            .into_iter()
            .filter_map(|root| fs::read_dir(root.join("pods")).ok())
            .flat_map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()))
            .collect();
        out.sort();
        out.dedup();
        out
    }
}

/// Everything that setting up a pod's volumes reads.
pub struct Request<'a> {
    pub pod: &'a Pod,
    pub roots: &'a Roots,
    pub sources: &'a PodSources,
    /// Tokens and certificates, fetched before.
    pub credentials: &'a credentials::Credentials,
    pub facts: &'a NodeFacts,
    /// Volumes of claims, fetched before.
    pub claimed: &'a claims::Claimed,
    /// Volumes that drivers have made already.
    pub driven: &'a Mounted,
    /// The folder of the node's local volumes.
    pub storage: &'a Path,
}

/// Makes every volume, or says which one cannot be made. Does it again without harm.
pub fn prepare(request: &Request<'_>) -> Result<Mounted, VolumeError> {
    let mut out = Mounted::new();
    for volume in request.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        // Mounted with the first container that wants it.
        if volume.image.is_some() {
            continue;
        }
        if let Some(prepared) = request.driven.get(&volume.name) {
            out.insert(volume.name.clone(), prepared.clone());
            continue;
        }
        let prepared = set_up(request, volume).map_err(|reason| VolumeError { volume: volume.name.clone(), reason })?;
        out.insert(volume.name.clone(), prepared);
    }
    Ok(out)
}

fn set_up(request: &Request<'_>, volume: &Volume) -> Result<Prepared, SetUpError> {
    let uid = request.pod.metadata.uid.as_deref().unwrap_or_default();
    let fs_group = ownership::fs_group(request.pod);
    let name = &volume.name;
    let follow = |plugin: &str, payload: Payload, owner: Option<u32>| -> Result<Prepared, SetUpError> {
        let path = request.roots.memory(uid, plugin, name);
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed("set mode of", &path))?;
        atomic::write(&path, &payload, ownership::Owner { user: owner, group: fs_group }).map_err(failed("write", &path))?;
        Ok(Prepared { path, read_only: true })
    };
    if let Some(source) = &volume.config_map {
        return follow("kubernetes.io~configmap", payload::config_map_volume(source, request.sources)?, None);
    }
    if let Some(source) = &volume.secret {
        return follow("kubernetes.io~secret", payload::secret_volume(source, request.sources)?, None);
    }
    if let Some(source) = &volume.downward_api {
        return follow("kubernetes.io~downward-api", payload::downward_volume(source, request.pod, request.facts)?, None);
    }
    if let Some(source) = &volume.projected {
        let owner = token::owner(request.pod);
        let given = Given {
            pod: request.pod,
            sources: request.sources,
            credentials: request.credentials,
            facts: request.facts,
            owned: owner.is_some() || fs_group.is_some(),
        };
        let payload = payload::projected_volume(name, source, &given)?;
        return follow("kubernetes.io~projected", payload, owner);
    }
    if let Some(source) = &volume.empty_dir {
        let path = request.roots.disk(uid, "kubernetes.io~empty-dir", name);
        empty_dir(request.pod, &path, source, fs_group)?;
        return Ok(Prepared { path, read_only: false });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Prepared { path: host_path::check(source)?, read_only: false });
    }
    if let Some(persistent) = request.claimed.get(name) {
        let marker = request.roots.disk(uid, "kubernetes.io~local-volume", name);
        return claims::set_up(request.pod, volume, persistent, &marker, request.storage);
    }
    Err(SetUpError::Unsupported(kind(volume)))
}

fn empty_dir(pod: &Pod, path: &Path, source: &EmptyDirVolumeSource, fs_group: Option<u32>) -> Result<(), SetUpError> {
    let new = !path.exists();
    fs::create_dir_all(path).map_err(failed("create", path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            if !is_mount(path) {
                let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.value()).filter(|v| *v > 0);
                let limit = limit.or_else(|| resources::pod_limits(pod).memory_limit_bytes.and_then(|b| i64::try_from(b).ok()));
                let options = limit.map(|l| format!("size={l}")).unwrap_or_default();
                let options = std::ffi::CString::new(options).expect("digits hold no NUL");
                let flags = rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOSUID;
                rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options.as_c_str())).map_err(|e| failed("mount tmpfs on", path)(e.into()))?;
            }
        }
        _ => return Err(SetUpError::Unsupported("emptyDir with huge pages")),
    }
    if new {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(failed("set mode of", path))?;
        if let Some(group) = fs_group {
            ownership::apply(path, ownership::Owner { user: None, group: Some(group) }, false).map_err(failed("set owner of", path))?;
        }
    }
    Ok(())
}

fn is_mount(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = fs::metadata(path).map(|m| m.dev());
    let parent = path.parent().and_then(|p| fs::metadata(p).ok()).map(|m| m.dev());
    matches!((own, parent), (Ok(a), Some(b)) if a != b)
}

/// The name of a volume's kind, for those that are refused.
fn kind(volume: &Volume) -> &'static str {
    macro_rules! first {
        ($($field:ident => $name:literal),* $(,)?) => { $(if volume.$field.is_some() { return $name; })* };
    }
    first! {
        persistent_volume_claim => "persistentVolumeClaim", csi => "csi", nfs => "nfs", iscsi => "iscsi", ephemeral => "ephemeral",
        fc => "fc", rbd => "rbd", cephfs => "cephfs", glusterfs => "glusterfs", cinder => "cinder",
        aws_elastic_block_store => "awsElasticBlockStore", azure_disk => "azureDisk", azure_file => "azureFile",
        gce_persistent_disk => "gcePersistentDisk", flex_volume => "flexVolume", flocker => "flocker", git_repo => "gitRepo",
        photon_persistent_disk => "photonPersistentDisk", portworx_volume => "portworxVolume", quobyte => "quobyte",
        scale_io => "scaleIO", storageos => "storageos", vsphere_volume => "vsphereVolume",
    }
    "unknown"
}
