//! What one container sees as its root: the image's layers and a folder of its own for what it writes.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::layers::remove_tree;
use crate::{Image, Images, StoreError};

/// The parts of an overlay mount; the runtime mounts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Read-only, the topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Images {
    /// Gives the container a fresh writable folder over the image's layers. A second call for the same container gives
    /// the same folder.
    pub fn prepare(&self, container_id: &str, image: &Image) -> Result<Snapshot, StoreError> {
        let directory = self.container_directory(container_id)?;
        let snapshot = Snapshot { lower: image.layers.clone(), upper: directory.join("fs"), work: directory.join("work") };
        if snapshot.upper.is_dir() {
            return Ok(snapshot);
        }
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        // Which layers are in use must be known before the container exists: removal of the image looks here.
        let names: Vec<_> = image.layers.iter().filter_map(|l| l.file_name()?.to_str()).collect();
        let list = directory.join("layers");
        fs::write(&list, names.join("\n")).map_err(StoreError::io("write", &list))?;
        fs::create_dir_all(&snapshot.work).map_err(StoreError::io("create", &snapshot.work))?;
        fs::create_dir(&snapshot.upper).map_err(StoreError::io("create", &snapshot.upper))?;
        // The merged root takes owner and mode from the upper folder.
        if let Some(top) = snapshot.lower.first().and_then(|l| fs::metadata(l).ok()) {
            let set = fs::set_permissions(&snapshot.upper, fs::Permissions::from_mode(top.mode() & 0o7777));
            set.and_then(|()| std::os::unix::fs::chown(&snapshot.upper, Some(top.uid()), Some(top.gid())))
                .map_err(StoreError::io("set owner of", &snapshot.upper))?;
        }
        Ok(snapshot)
    }

    /// Removes what the container wrote.
    pub fn release(&self, container_id: &str) -> Result<(), StoreError> {
        remove_tree(&self.container_directory(container_id)?)
    }

    /// The containers that have a folder here.
    pub fn containers(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.containers_root();
        let entries = fs::read_dir(&directory).map_err(StoreError::io("read", &directory))?;
        Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    fn container_directory(&self, container_id: &str) -> Result<PathBuf, StoreError> {
        let plain = !container_id.is_empty() && container_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if plain { Ok(self.containers_root().join(container_id)) } else { Err(StoreError::NotFound(format!("container {container_id:?}"))) }
    }
}
