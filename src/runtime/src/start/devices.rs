//! A container's /dev, filled before the container exists.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Dev, FileType, Mode, OFlags};

use crate::sys::mount::{NOSUID, new_filesystem};

const NODES: [(&std::ffi::CStr, u32, u32); 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 6] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"core", c"/proc/kcore"),
    (c"ptmx", c"pts/ptmx"),
];

/// A detached tmpfs with the customary nodes; with `host` also every node of the host's /dev.
pub(super) fn filled(host: bool, console: bool) -> io::Result<OwnedFd> {
    let options = [(c"size", c"65536k"), (c"mode", c"755")];
    let dev = new_filesystem(c"tmpfs", &options, NOSUID)?;
    for (name, major, minor) in NODES {
        node(&dev, name, FileType::CharacterDevice, 0o666, rustix::fs::makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    for name in [c"pts", c"shm", c"mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    if console {
        rustix::fs::openat(&dev, c"console", OFlags::CREATE | OFlags::CLOEXEC | OFlags::WRONLY, Mode::from_raw_mode(0o620))?;
    }
    if host {
        copy_nodes(Path::new("/dev"), &dev, 0)?;
    }
    Ok(dev)
}

fn node(dev: impl AsFd, name: &std::ffi::CStr, kind: FileType, mode: u32, number: Dev) -> io::Result<()> {
    rustix::fs::mknodat(dev.as_fd(), name, kind, Mode::from_raw_mode(mode), number)?;
    // mknod is subject to the umask.
    Ok(rustix::fs::chmodat(dev.as_fd(), name, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())?)
}

/// Models containerd's HostDevices: skips what a container has of its own. Links are not copied.
fn copy_nodes(from: &Path, to: &OwnedFd, depth: u32) -> io::Result<()> {
    const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"];
    for entry in std::fs::read_dir(from)?.flatten() {
        let (Ok(kind), Ok(name)) = (entry.file_type(), CString::new(entry.file_name().as_bytes())) else { continue };
        if OWN.contains(&entry.file_name().to_string_lossy().as_ref()) {
            continue;
        }
        if kind.is_dir() && depth < 4 {
            match rustix::fs::mkdirat(to, name.as_c_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let below = rustix::fs::openat(to, name.as_c_str(), flags, Mode::empty())?;
            copy_nodes(&entry.path(), &below, depth + 1)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            // A device may be unplugged between the two looks.
            let Ok(status) = entry.metadata() else { continue };
            let kind = if kind.is_char_device() { FileType::CharacterDevice } else { FileType::BlockDevice };
            match node(to, &name, kind, status.mode() & 0o777, status.rdev()) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
    }
    Ok(())
}
