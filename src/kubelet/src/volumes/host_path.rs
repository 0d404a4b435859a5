//! hostPath volumes: the type is checked, and made where it says "OrCreate".
//!
//! Models pkg/volume/hostpath/host_path.go, v1.37.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    Type { path: String, wanted: &'static str },
    #[error("hostPath {path} could not be made")]
    Make { path: String, #[source] source: std::io::Error },
    #[error("{0} is an invalid volume type")]
    Unknown(String),
}

pub fn check(source: &HostPathVolumeSource) -> Result<PathBuf, HostPathError> {
    let path = Path::new(&source.path);
    let make = |source_error| HostPathError::Make { path: source.path.clone(), source: source_error };
    let is = |wanted: &'static str, test: fn(&fs::Metadata) -> bool| match fs::metadata(path) {
        Ok(meta) if test(&meta) => Ok(()),
        _ => Err(HostPathError::Type { path: source.path.clone(), wanted }),
    };
    let directory = || fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    match source.type_.as_deref().unwrap_or_default() {
        // Container runtimes make what is missing as a directory.
        "" if !path.exists() => directory().map_err(make)?,
        "" => {}
        "DirectoryOrCreate" => {
            if !path.exists() {
                directory().map_err(make)?;
            }
            is("directory", |m| m.is_dir())?;
        }
        "Directory" => is("directory", |m| m.is_dir())?,
        "FileOrCreate" => {
            if !path.exists() {
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map_err(make)?;
            }
            is("file", |m| m.is_file())?;
        }
        "File" => is("file", |m| m.is_file())?,
        "Socket" => is("socket file", |m| m.file_type().is_socket())?,
        "CharDevice" => is("character device", |m| m.file_type().is_char_device())?,
        "BlockDevice" => is("block device", |m| m.file_type().is_block_device())?,
        other => return Err(HostPathError::Unknown(other.to_owned())),
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made_where_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let check = |name: &str, type_: &str| {
            let path = dir.path().join(name).to_string_lossy().into_owned();
            super::check(&HostPathVolumeSource { path, type_: Some(type_.into()) }).map(|_| ()).map_err(|e| e.to_string())
        };
        assert!(check("none", "Directory").expect_err("refused").ends_with("none is not a directory"));
        assert_eq!(check("d", "DirectoryOrCreate"), Ok(()));
        assert_eq!(check("d", "Directory"), Ok(()));
        assert!(check("d", "File").is_err());
        assert_eq!(check("f", "FileOrCreate"), Ok(()));
        assert!(check("f", "Socket").is_err());
        assert!(check("f", "Nonsense").is_err());
    }
}
