//! Allocated and actuated sizes of one pod on disk, in the pod's directory: they go when it goes.
//!
//! Not forced to the disk: they must outlive this process, and a machine that crashes takes all containers with it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Sizes;
use crate::resources::Limits;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub allocated: Sizes,
    pub actuated: Sizes,
    /// What the pod's own cgroup was told.
    pub cgroup: Limits,
}

fn directory(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// A file that cannot be understood counts as none: the pod then has what its spec says.
pub fn read(root: &Path, uid: &str) -> Option<Checkpoint> {
    let path = directory(root, uid).join("resources.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(path = %path.display(), %error, "read what a pod has been allocated");
            return None;
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| warn!(path = %path.display(), %error, "read what a pod has been allocated")).ok()
}

pub fn write(root: &Path, uid: &str, kept: &Checkpoint) -> io::Result<()> {
    let directory = directory(root, uid);
    fs::DirBuilder::new().recursive(true).mode(0o750).create(&directory)?;
    let (new, path) = (directory.join("resources.json.new"), directory.join("resources.json"));
    fs::write(&new, serde_json::to_vec(kept)?)?;
    fs::rename(&new, &path)
}
