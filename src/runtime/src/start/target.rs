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

/// Links to places that do not exist yet (an image's /var/run, whose /run is absent) are followed this often.
const LINKS_MAX: u32 = 8;

/// The existing or new place at `path` (relative, clean) for a mount of a directory or of a file.
pub(super) fn ensure(root: &OwnedFd, path: &CStr, directory: bool) -> io::Result<OwnedFd> {
    if path.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EBUSY)); // the root itself
    }
    ensure_at(root, path, directory, LINKS_MAX)
}

fn ensure_at(root: &OwnedFd, path: &CStr, directory: bool, links: u32) -> io::Result<OwnedFd> {
    match resolve_in_root(root, path, OFlags::empty()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => make(root, path.to_bytes(), directory, links),
        result => result,
    }
}

/// Component by component, each looked up from the root anew.
fn make(root: &OwnedFd, path: &[u8], directory: bool, links: u32) -> io::Result<OwnedFd> {
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
        let here = match resolve_in_root(root, c_str(&buffer[..=end])?, OFlags::empty()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let name = c_str(&buffer[start..=end])?;
                let parent = parent.as_ref().unwrap_or(root);
                let directory = directory || !last;
                if create(parent, name, directory)? {
                    // Only what was just made, in the directory that was found: not through a link put there meanwhile.
                    resolve_strict(parent, name, OFlags::NOFOLLOW)?
                } else {
                    make_behind_link(root, parent, &path[..start], name, directory, links)?
                }
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

/// `name` in `parent` (whose path is `prefix`, with its slash) is a link to what does not exist: that is made, inside the
/// root, and the link then leads to it.
fn make_behind_link(
    root: &OwnedFd,
    parent: &OwnedFd,
    prefix: &[u8],
    name: &CStr,
    directory: bool,
    links: u32,
) -> io::Result<OwnedFd> {
    let Some(links) = links.checked_sub(1) else { return Err(io::Error::from_raw_os_error(libc::ELOOP)) };
    let mut buffer = [0u8; PATH_BYTES_MAX];
    let mut target = [std::mem::MaybeUninit::uninit(); PATH_BYTES_MAX / 2];
    let (target, _) = rustix::fs::readlinkat_raw(parent, name, &mut target)?;
    let prefix = if target.first() == Some(&b'/') { &[][..] } else { prefix };
    let rest = &target[target.iter().take_while(|byte| **byte == b'/').count()..];
    let length = prefix.len() + rest.len();
    if rest.is_empty() || length >= buffer.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    buffer[..prefix.len()].copy_from_slice(prefix);
    buffer[prefix.len()..length].copy_from_slice(rest);
    ensure_at(root, c_str(&buffer[..=length])?, directory, links)
}

/// False when something of that name is there.
fn create(parent: impl AsFd, name: &CStr, directory: bool) -> io::Result<bool> {
    let result = if directory {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match result {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
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
