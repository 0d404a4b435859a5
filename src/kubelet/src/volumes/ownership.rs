//! Whom a volume's files belong to.
//!
//! Models pkg/volume/volume_linux.go, v1.37: with an fsGroup everything gets that group, group rights and, for directories,
//! the set-group-id bit.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Everything below `path`, and itself. Symbolic links are owned, not followed.
pub fn apply(path: &Path, owner: Owner, read_only: bool) -> io::Result<()> {
    if owner == Owner::default() {
        return Ok(());
    }
    let meta = fs::symlink_metadata(path)?;
    lchown(path, owner.user, owner.group)?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            apply(&entry?.path(), owner, read_only)?;
        }
    }
    if owner.group.is_some() {
        let mut mode = meta.permissions().mode() & 0o7777 | if read_only { 0o440 } else { 0o660 };
        if meta.is_dir() {
            mode |= 0o2110;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
