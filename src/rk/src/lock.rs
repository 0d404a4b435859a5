//! One server or agent for a run folder: whoever holds the lock file, which names its process.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("server.lock")
}

/// Held for the life of the server or agent; the kernel lets go of it with the process.
pub struct Lock(#[expect(dead_code, reason = "held, never read")] File);

pub fn acquire(run_dir: &Path) -> anyhow::Result<Lock> {
    fs::create_dir_all(run_dir).with_context(|| format!("create {}", run_dir.display()))?;
    let path = path(run_dir);
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.with_context(|| format!("open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).ok();
        bail!("rk already runs here as process {}; stop it first (its containers run on)", pid.trim());
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).with_context(|| format!("write {}", path.display()))?;
    Ok(Lock(file))
}

/// Asks the running server to stop and waits until it did; `false` where none runs.
pub fn stop_server(run_dir: &Path) -> anyhow::Result<bool> {
    let Ok(mut file) = File::open(path(run_dir)) else { return Ok(false) };
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(false); // nobody holds it
    }
    let mut text = String::new();
    file.read_to_string(&mut text).context("read the server's lock")?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw).context("the server's lock names no process")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("open the server's process")?;
    pidfd_send_signal(&process, Signal::TERM).context("stop the server")?;
    let mut ready = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    if rustix::event::poll(&mut ready, Some(&limit)).context("wait for the server")? == 0 {
        tracing::warn!("the server did not stop in a minute; it is killed");
        pidfd_send_signal(&process, Signal::KILL).context("kill the server")?;
        rustix::event::poll(&mut ready, None).context("wait for the server")?;
    }
    Ok(true)
}
