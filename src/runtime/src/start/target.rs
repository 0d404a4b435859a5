//! Mount targets: places inside a container's root, found and made through descriptors only.
//!
//! Called by the child: no allocation. Every lookup starts at the root's descriptor and is confined to it
//! (`openat2`, RESOLVE_IN_ROOT), so that a link in an image or a rename by another container leads nowhere else.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::sys::mount::{resolve_in_root, resolve_strict};

const PATH_BYTES_MAX: usize = 4096;

/// The existing or new place at `path` (relative, clean) for a mount of a directory or of a file.
pub(super) fn ensure(root: &OwnedFd, path: &CStr, directory: bool) -> io::Result<OwnedFd> {
    if path.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EBUSY)); // the root itself
    }
    match resolve_in_root(root, path, OFlags::empty()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => make(root, path.to_bytes(), directory),
        result => result,
    }
}

fn make(root: &OwnedFd, path: &[u8], directory: bool) -> io::Result<OwnedFd> {
    let mut buffer = [0u8; PATH_BYTES_MAX];
    if path.len() >= buffer.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    buffer[..path.len()].copy_from_slice(path);
    let mut parent: Option<OwnedFd> = None;
    let mut start = 0;
    while start < path.len() {
        let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| start + at);
        let last = end == path.len();
        buffer[end] = 0;
        let prefix = c_str(&buffer[..=end])?;
        let here = match resolve_in_root(root, prefix, OFlags::empty()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let name = c_str(&buffer[start..=end])?;
                let parent = parent.as_ref().unwrap_or(root);
                create(parent, name, directory || !last)?;
                // Only what was just made, in the directory that was found: not through a link put there meanwhile.
                resolve_strict(parent, name, OFlags::NOFOLLOW)?
            }
            result => result?,
        };
        if last {
            return Ok(here);
        }
        parent = Some(here);
        buffer[end] = b'/';
        start = end + 1;
    }
    Err(io::Error::from_raw_os_error(libc::ENOENT))
}

fn create(parent: impl AsFd, name: &CStr, directory: bool) -> io::Result<()> {
    let result = if directory {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match result {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// A directory right below the root that must be one: an image whose /proc is a link is refused.
pub(super) fn ensure_real_directory(root: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(root.as_fd(), name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        // A read-only root that has it already is fine; one that has not shows in the next line.
        Err(rustix::io::Errno::ROFS) => {}
        Err(error) => return Err(error.into()),
    }
    resolve_strict(root, name, OFlags::DIRECTORY | OFlags::NOFOLLOW)
}

fn c_str(raw: &[u8]) -> io::Result<&CStr> {
    CStr::from_bytes_with_nul(raw).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
