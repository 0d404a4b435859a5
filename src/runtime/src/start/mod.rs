//! Starting a process in a container: the shim's half ([`launch`]) and the child's ([`child`]).
//!
//! The order of steps is the one argued for in each file; between clone3 and execve the child makes system calls only,
//! on memory that was prepared before ([`Prepared`]), and reports the step that failed through a close-on-exec pipe. Its
//! end of file means that execve succeeded.

mod child;
mod devices;
mod mounts;
mod program;
mod report;
mod target;
mod terminal;

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) use mounts::Mounts;
pub(crate) use terminal::Terminal;

use crate::cgroup::Entrance;
use crate::plan::ContainerPlan;
use crate::protocol::{Failure, Step as _};
use crate::sys;
use crate::sys::process::{Cloned, clone3, pidfd_signal, reap};

/// How long a child may take from clone3 to execve. Only a hung network filesystem takes longer.
const START_SECONDS_MAX: i64 = 120;

/// All that a child needs, made before it exists.
pub(crate) struct Prepared<'a> {
    pub plan: &'a ContainerPlan,
    pub argv: &'a [CString],
    pub env: Vec<CString>,
    /// New namespaces for clone3: mount and PID for a start, none for an exec.
    pub clone_flags: u64,
    /// Namespaces to join, in order: (descriptor, CLONE_NEW* or 0).
    pub join: Vec<(&'a OwnedFd, i32)>,
    pub entrance: &'a Entrance,
    /// Make a cgroup namespace, whose root is the group just entered.
    pub new_cgroup_namespace: bool,
    /// A procfs of the host, mounted nowhere.
    pub proc: &'a OwnedFd,
    /// For a start; an exec finds everything mounted.
    pub mounts: Option<Mounts>,
    /// 0, 1, 2.
    pub stdio: [&'a OwnedFd; 3],
    pub terminal: bool,
    /// Capabilities that the running kernel and we have.
    pub capability_limit: u64,
}

pub(crate) struct Launched {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Clones the child, waits until its program runs. A child that failed is reaped before this returns.
pub(crate) fn launch(prepared: &Prepared<'_>) -> Result<Launched, Failure> {
    let programs = program::candidates(prepared.argv, &prepared.env);
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let argv = pointers(prepared.argv);
    let env = pointers(&prepared.env);
    let (errors, errors_end) = sys::pipe().step("make the error pipe")?;
    // SAFETY: the shim has one thread; the child does system calls and ends in execve or _exit.
    let cloned = unsafe { clone3(prepared.clone_flags, prepared.entrance.unified.as_ref()) };
    let (pid, pidfd) = match cloned.map_err(|error| explain_clone(&error))? {
        Cloned::Child => child::run(prepared, &programs, &argv, &env, errors_end.as_raw_fd()),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(errors_end);
    match report::wait(&errors, START_SECONDS_MAX) {
        Ok(None) => Ok(Launched { pid, pidfd }),
        Ok(Some(report)) => {
            let _exited = reap(&pidfd);
            Err(report.explain(prepared))
        }
        Err(error) => {
            let _gone = pidfd_signal(&pidfd, libc::SIGKILL);
            let _exited = reap(&pidfd);
            Err(Failure::new("wait for the program to start", &error))
        }
    }
}

fn explain_clone(error: &io::Error) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EAGAIN) => "clone: the limit of processes is reached (pids limit of the pod or of the host)",
        Some(libc::ENOSPC) => "clone: the limit of namespaces is reached (user.max_*_namespaces)",
        // The namespace's first process is gone.
        Some(libc::ENOMEM) => "clone: container not running, or no memory",
        _ => "clone",
    };
    Failure::new(hint, error)
}
