//! The new mount API, and paths resolved beneath a descriptor.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::{check, cwd};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

pub(crate) const RDONLY: u64 = 0x1;
pub(crate) const NOSUID: u64 = 0x2;
pub(crate) const NODEV: u64 = 0x4;
pub(crate) const NOEXEC: u64 = 0x8;

/// Changes the mount that `fd` is the root of, with all below it when `recursive`.
pub(crate) fn set_attributes(fd: impl AsFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { set, propagation, ..MountAttr::default() };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: an empty NUL-terminated path and a mount_attr of the given size.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attr, size_of::<MountAttr>())
    })
    .map(drop)
}

/// A new filesystem, mounted nowhere. `flags` are the `NOSUID` and so on above.
pub(crate) fn new_filesystem(kind: &CStr, options: &[(&CStr, &CStr)], flags: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    finish(&context, flags)
}

/// The detached mount of a context whose filesystem was created.
pub(crate) fn finish(context: impl AsFd, flags: u64) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::from_bits_retain(flags as u32);
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached copy of the mount at `path` below `at` (an empty path: of what `at` is).
pub(crate) fn clone_tree(at: impl AsFd, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(at.as_fd(), path, flags)?)
}

/// Attaches the detached mount `from` on what `to` is.
pub(crate) fn attach(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(from.as_fd(), c"", to.as_fd(), c"", flags)?)
}

/// Attaches the detached mount `from` on an absolute path of the host.
pub(crate) fn attach_at(from: impl AsFd, path: &CStr) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(from.as_fd(), c"", cwd(), path, flags)?)
}

/// Everything in this mount namespace becomes private.
pub(crate) fn make_private() -> io::Result<()> {
    // SAFETY: NUL-terminated strings and null pointers where mount(2) ignores them.
    check(unsafe {
        let none = std::ptr::null::<u8>();
        libc::syscall(libc::SYS_mount, none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none)
    })
    .map(drop)
}

/// The working directory becomes the root; the old tree goes away.
pub(crate) fn pivot_into_cwd() -> io::Result<()> {
    // SAFETY: NUL-terminated strings.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::syscall(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH))?;
    }
    Ok(rustix::process::chdir(c"/")?)
}

/// Takes the mount at `path` away, with all below it, at once for names, later for who still uses it.
pub(crate) fn detach(path: &CStr) -> io::Result<()> {
    let flags = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    // SAFETY: a NUL-terminated string.
    check(unsafe { libc::syscall(libc::SYS_umount2, path.as_ptr(), flags) }).map(drop)
}

/// Opens for use as a place, resolved as if `root` were `/`: neither symbolic links nor `..` lead out, links of procfs are
/// refused. EAGAIN (somebody renames meanwhile) is tried again a bounded number of times, then refused.
pub(crate) fn resolve_in_root(root: impl AsFd, path: &CStr, extra: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, OFlags::PATH | extra, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The same beneath `root`, and not through any symbolic link.
pub(crate) fn resolve_strict(root: impl AsFd, path: &CStr, extra: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, OFlags::PATH | extra, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Beneath `root`; symbolic links that stay beneath are followed.
pub(crate) fn resolve_beneath(root: impl AsFd, path: &CStr, extra: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, OFlags::PATH | extra, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn resolve(root: impl AsFd, path: &CStr, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(rustix::io::Errno::AGAIN) if attempts < 128 => attempts += 1,
            result => return Ok(result?),
        }
    }
}

pub(crate) fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let status = rustix::fs::statat(fd.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir())
}

/// Is this on a filesystem of that magic number?
pub(crate) fn is_filesystem(fd: impl AsFd, magic: i64) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64 == magic)
}

pub(crate) const PROC_MAGIC: i64 = 0x9fa0;
