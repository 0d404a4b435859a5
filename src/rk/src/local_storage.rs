//! The folder of a node's local volumes: made at start, and emptied one volume at a time by a pod that runs this program.
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::cli::UsageError;

pub const FOLDER: &str = "storage";

pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

/// The volumes in it are open to every user of their pods; the way to them is not open to the host's users.
pub fn make(data_dir: &Path) -> anyhow::Result<()> {
    let folder = folder(data_dir);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("create {}", folder.display()))
}

/// Removes one volume and all it holds; links in it are removed, never followed. One that is not there is removed.
pub fn remove(folder: &Path, name: &str) -> anyhow::Result<()> {
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name) {
        bail!(UsageError(format!("{name:?} is no name of a volume")));
    }
    let path = folder.join(name);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if !found.is_dir() => bail!("{} is no folder", path.display()),
        _ => {}
    }
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_goes_alone_and_nothing_outside_of_the_folder() {
        let root = std::env::temp_dir().join(format!("rk-local-storage-{}", std::process::id()));
        make(&root).unwrap();
        let storage = folder(&root);
        assert_eq!(fs::metadata(&storage).unwrap().permissions().mode() & 0o777, 0o700);
        for path in ["pvc-1/deep", "pvc-2", "../kept"] {
            fs::create_dir_all(storage.join(path)).unwrap();
        }
        fs::write(storage.join("../kept/file"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("kept"), storage.join("pvc-1/deep/link")).unwrap();
        std::os::unix::fs::symlink(root.join("kept"), storage.join("pvc-3")).unwrap();
        for name in ["", ".", "..", "../kept", "/etc", "pvc-2/", "pvc-1/deep", "pvc-3"] {
            assert!(remove(&storage, name).is_err(), "{name:?}");
        }
        remove(&storage, "pvc-1").unwrap();
        remove(&storage, "pvc-1").unwrap();
        let left = |path: &str| storage.join(path).exists();
        assert!(!left("pvc-1") && left("pvc-2") && left("../kept/file"));
        fs::remove_dir_all(&root).unwrap();
    }
}
