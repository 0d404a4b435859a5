//! Pseudo-terminals from a container's own devpts, by descriptor only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;

/// `slave` becomes the program's stdio and goes away in the shim; `master` is kept or handed on.
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Terminal {
    /// `devpts` is the root of its mount, in whatever namespace that is.
    pub(crate) fn open(devpts: &OwnedFd, uid: u32) -> io::Result<Terminal> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let master = rustix::fs::openat(devpts.as_fd(), c"ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        // TIOCGPTPEER opens the other end without a path that the container could have replaced.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        let _stays_with_root = rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None);
        Ok(Terminal { master, slave })
    }
}
