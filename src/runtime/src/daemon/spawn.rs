//! Shims as processes: their program, their birth, and how one is recognised again.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::io::unix::AsyncFd;

use super::{Error, ShimProgram};
use crate::paths::{SOCKET, SandboxPaths, write_record};
use crate::plan::{from_file, to_file};
use crate::shim::PROGRAM;
use crate::sys::{self, process};
use crate::wire::wire_struct;

/// What is executed for a new shim.
pub(super) struct Program {
    path: PathBuf,
    /// Keeps the memfd of `path` open.
    _image: Option<OwnedFd>,
}

impl Program {
    pub(super) fn prepare(program: &ShimProgram) -> Result<Program, Error> {
        Ok(match program {
            ShimProgram::Image(image) => {
                let fd = sealed(image).map_err(|source| Error::system("make the shim's image", source))?;
                // Of ourselves: /proc/self would be the child's own table, in which the descriptor is closed on exec.
                let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
                Program { path, _image: Some(fd) }
            }
            ShimProgram::SelfExe => Program { path: PathBuf::from("/proc/self/exe"), _image: None },
            ShimProgram::Path(path) => Program { path: path.clone(), _image: None },
        })
    }
}

/// One inode for all shims, so that they share its text; sealed, so that nothing can write into it.
fn sealed(image: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    const ALLOW_SEALING: u32 = 2;
    const CLOEXEC: u32 = 1;
    const EXEC: u32 = 0x10;
    let create = |flags: u32| {
        // SAFETY: a NUL-terminated name and plain flags.
        sys::owned(unsafe { libc::syscall(libc::SYS_memfd_create, c"rk-shim".as_ptr(), flags) })
    };
    // MFD_EXEC is of 6.3; before it every memfd could be executed.
    let fd = create(CLOEXEC | ALLOW_SEALING | EXEC).or_else(|_| create(CLOEXEC | ALLOW_SEALING))?;
    let mut file = fs::File::from(fd);
    file.write_all(image)?;
    let fd = OwnedFd::from(file);
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: plain integers.
    sys::check(unsafe { libc::syscall(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    // Executing needs a descriptor that is not open for writing.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(OwnedFd::from(fs::File::open(path)?))
}

/// A shim's identity on disk. A pid alone may be somebody else's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShimRecord {
    pub pid: i32,
    pub start_ticks: u64,
}
wire_struct!(ShimRecord { pid, start_ticks });

/// A live shim.
pub(super) struct ShimProcess {
    pub pidfd: OwnedFd,
}

/// Starts a shim, records it, and gives its connection. Blocking.
pub(super) fn spawn(program: &Program, paths: &SandboxPaths) -> Result<(ShimProcess, UnixStream), Error> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |source: io::Error| Error::System { step, source }
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let stderr = fs::File::create(paths.stderr()).map_err(failed("open the shim's stderr"))?;
    // No pre_exec: this process has threads, and only a plain exec is safe then.
    let child = Command::new(&program.path)
        .arg0(PROGRAM)
        .args([&paths.state, &paths.run])
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(failed("start a shim"))?;
    let pid = child.id() as i32;
    // Our own child, not yet reaped: the pid is surely its.
    let pidfd = process::pidfd_open(pid).map_err(failed("open the shim's pidfd"))?;
    let start_ticks = start_ticks(pid).unwrap_or(0);
    write_record(&paths.shim(), &to_file(&ShimRecord { pid, start_ticks }), false).map_err(failed("record the shim"))?;
    Ok((ShimProcess { pidfd }, ours))
}

/// The recorded shim, if that very process still lives.
pub(super) fn find(paths: &SandboxPaths) -> Option<ShimProcess> {
    let record: ShimRecord = from_file(&fs::read(paths.shim()).ok()?).ok()?;
    let pidfd = process::pidfd_open(record.pid).ok()?;
    // Looked at after the pidfd was opened: from here on the pid cannot change hands unnoticed.
    (start_ticks(record.pid) == Some(record.start_ticks)).then_some(ShimProcess { pidfd })
}

/// Connects to a shim's control socket, by a path short enough for an address.
pub(super) fn connect(paths: &SandboxPaths) -> io::Result<UnixStream> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&paths.run, flags, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

/// Field 22 of /proc/<pid>/stat. A zombie has ended.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, and may hold anything.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    if rest.next()? == "Z" {
        return None;
    }
    rest.nth(18)?.parse().ok()
}

impl ShimProcess {
    /// Waits until the process has ended (and reaps it when it is ours); false after `limit`.
    pub(super) async fn ended(&self, limit: std::time::Duration) -> bool {
        let Ok(copy) = sys::duplicate(&self.pidfd) else { return false };
        // SAFETY: an OwnedFd stands for one and the same open descriptor as long as it lives.
        let registered = unsafe { AsyncFd::register_with_interest(copy, tokio::io::Interest::READABLE) };
        let Ok(watched) = registered else { return false };
        let ended = tokio::time::timeout(limit, watched.readable()).await.is_ok();
        if ended {
            let _not_our_child_after_a_restart = process::try_reap(&self.pidfd);
        }
        ended
    }

    /// Blocking, and bounded: for a shim that nothing needs any more.
    pub(super) fn kill(&self) {
        let _ended = process::pidfd_signal(&self.pidfd, libc::SIGKILL);
        let mut poll = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        let _bounded = rustix::event::poll(&mut poll, Some(&limit));
        let _not_our_child_after_a_restart = process::try_reap(&self.pidfd);
    }
}

/// Holds a lock file for as long as it lives: two runtimes on one directory would tear down each other's sandboxes.
pub(super) fn lock(path: &std::path::Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(OwnedFd::from(file))
}
