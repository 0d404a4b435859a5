//! Volumes whose content is an image's (KEP-4639): its layers, mounted read-only and without the right to execute.
//!
//! Models pkg/kubelet/kuberuntime/kuberuntime_image.go and what a runtime does for `Mount.image`. The image is fetched when the first
//! container that mounts it starts, so that a failure shows in that container's status.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use images::{Image, Images};
use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::mount::MountFlags;

use super::{Prepared, Roots, SetUpError, failed, is_mount};

pub const PLUGIN: &str = "kubernetes.io~image";
/// Tells the images' references of volumes from those of containers.
const REFERENCE: &str = "volume_";
const FLAGS: MountFlags = MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// The image volumes that `container` mounts: the volume's name, and a container that stands for its reference and pull policy.
pub fn wanted(pod: &Pod, container: &Container) -> Vec<(String, Container)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|m| m.name == name);
    let stand_in = |source: &k8s_openapi::api::core::v1::ImageVolumeSource| Container {
        name: container.name.clone(),
        image: source.reference.clone(),
        image_pull_policy: source.pull_policy.clone(),
        ..Container::default()
    };
    volumes.filter(|v| mounted(&v.name)).filter_map(|v| Some((v.name.clone(), stand_in(v.image.as_ref()?)))).collect()
}

/// Mounts the image below the pod's directory; a second call finds it there.
pub fn set_up(roots: &Roots, images: &Images, uid: &str, name: &str, image: &Image) -> Result<Prepared, SetUpError> {
    let path = roots.disk(uid, PLUGIN, name);
    fs::create_dir_all(&path).map_err(failed("create", &path))?;
    if !is_mount(&path) {
        // Its layers are in use from here on.
        let snapshot = images.prepare(&reference(uid, name), image).map_err(|e| failed("use the layers of", &path)(io::Error::other(e)))?;
        mount(&snapshot.lower, &path).map_err(failed("mount the image on", &path))?;
    }
    Ok(Prepared { path, read_only: true })
}

fn mount(layers: &[PathBuf], path: &Path) -> io::Result<()> {
    match layers {
        [] => Err(io::Error::new(io::ErrorKind::NotFound, "the image has no layers")),
        // An overlay without an upper folder needs two layers.
        [only] => {
            rustix::mount::mount_bind(only, path)?;
            Ok(rustix::mount::mount_remount(path, FLAGS | MountFlags::BIND, c"")?)
        }
        layers => {
            let escaped = |path: &PathBuf| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
            let options = format!("lowerdir={}", layers.iter().map(escaped).collect::<Vec<_>>().join(":"));
            let options = CString::new(options)?;
            // mount(2) takes one page of options.
            if options.as_bytes().len() >= 4096 {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("an image of {} layers has too many to be a volume", layers.len())));
            }
            Ok(rustix::mount::mount("overlay", path.as_os_str().as_bytes(), "overlay", FLAGS, Some(options.as_c_str()))?)
        }
    }
}

/// Gives up the layers of all image volumes of a pod; they are unmounted already.
pub fn release(images: &Images, pod: &Pod) {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.image.is_some()) {
        if let Err(error) = images.release(&reference(uid, &volume.name)) {
            tracing::warn!(volume = volume.name, %error, "give up the layers of an image volume");
        }
    }
}

fn reference(uid: &str, name: &str) -> String {
    format!("{REFERENCE}{uid}_{name}")
}

/// The pod whose volume holds this reference to an image's layers.
pub fn pod_of(reference: &str) -> Option<&str> {
    reference.strip_prefix(REFERENCE)?.split_once('_').map(|(uid, _)| uid)
}
