//! Whom a volume's files belong to.
//!
//! Models pkg/volume/volume_linux.go, v1.37: with an fsGroup everything gets that group, group rights and, for directories,
//! the set-group-id bit.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Whether the group must be given the volume, after the pod's fsGroupChangePolicy.
///
/// Models pkg/volume/volume_linux.go requiresPermissionChange.
pub fn must_change(pod: &Pod, path: &Path, group: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let policy = context.and_then(|c| c.fs_group_change_policy.as_deref());
    let fits = |found: fs::Metadata| found.gid() == group && found.mode() & 0o2770 == 0o2770;
    policy != Some("OnRootMismatch") || !fs::metadata(path).is_ok_and(fits)
}

/// No volume that anybody uses is nested deeper; beyond it a descriptor per level would be too many.
const DEPTH_MAX: usize = 1000;

/// Everything below `path`, and itself. Symbolic links are owned, not followed: a pod may write to the volume meanwhile, so each file
/// is changed by the descriptor that was looked at, never by a path that could lead elsewhere by then.
pub fn apply(path: &Path, owner: Owner, read_only: bool) -> io::Result<()> {
    if owner == Owner::default() {
        return Ok(());
    }
    let root = rfs::openat(rfs::CWD, path, LOOK, Mode::empty())?;
    apply_at(&root, owner, read_only, 0)
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn apply_at(at: &OwnedFd, owner: Owner, read_only: bool, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("directories are nested too deep"));
    }
    let mode = rfs::fstat(at)?.st_mode;
    let kind = FileType::from_raw_mode(mode);
    let (user, group) = (owner.user.map(Uid::from_raw), owner.group.map(Gid::from_raw));
    rfs::chownat(at, "", user, group, AtFlags::EMPTY_PATH)?;
    if kind == FileType::Symlink {
        return Ok(());
    }
    if kind == FileType::Directory {
        for name in names(at)? {
            match rfs::openat(at, &name, LOOK, Mode::empty()) {
                Ok(child) => apply_at(&child, owner, read_only, depth + 1)?,
                // Gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if owner.group.is_some() {
        let mut mode = mode & 0o7777 | if read_only { 0o440 } else { 0o660 };
        if kind == FileType::Directory {
            mode |= 0o2110;
        }
        // The kernel has no fchmod for such a descriptor; this name leads to the very file that it holds.
        fs::set_permissions(format!("/proc/self/fd/{}", at.as_raw_fd()), fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn names(at: &OwnedFd) -> io::Result<Vec<CString>> {
    let directory = rfs::openat(at, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rfs::Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_volume_that_fits_is_left_alone_where_the_pod_says_so() {
        let root = std::env::temp_dir().join(format!("rk-must-change-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let gid = fs::metadata(&root).unwrap().gid();
        let pod = |policy: &str| -> Pod {
            serde_json::from_value(serde_json::json!({"spec": {"containers": [], "securityContext": {"fsGroupChangePolicy": policy}}})).unwrap()
        };
        let set = |mode: u32| fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
        set(0o755);
        assert!(must_change(&pod("Always"), &root, gid) && must_change(&pod("OnRootMismatch"), &root, gid));
        set(0o2775);
        assert!(must_change(&pod("Always"), &root, gid) && !must_change(&pod("OnRootMismatch"), &root, gid));
        assert!(must_change(&pod("OnRootMismatch"), &root, gid + 1));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_group_gets_all_files_and_no_target_of_a_link() {
        let root = std::env::temp_dir().join(format!("rk-ownership-{}", std::process::id()));
        fs::create_dir_all(root.join("volume/deep")).unwrap();
        for file in ["outside", "volume/deep/file"] {
            fs::write(root.join(file), "x").unwrap();
            fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(root.join("outside"), root.join("volume/link")).unwrap();
        let own = fs::metadata(&root).unwrap().gid();
        apply(&root.join("volume"), Owner { user: None, group: Some(own) }, false).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("volume") & 0o2060, mode("volume/deep/file"), mode("outside")), (0o2060, 0o660, 0o600));
        fs::remove_dir_all(&root).unwrap();
    }
}
