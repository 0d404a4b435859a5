//! Taking away what a sandbox made on the host. Every step is tried; every error comes back.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::cgroup::Cgroups;
use crate::paths::SandboxPaths;
use crate::sys::mount;

/// How long a cgroup may stay busy after its last process was killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills what is left in the pod's cgroup, unmounts, removes cgroups and the run directory. Blocking.
pub(super) fn host_side(paths: &SandboxPaths, cgroup: Option<&str>, cgroups: &Cgroups) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut note = |step: String, result: io::Result<()>| {
        if let Err(source) = result
            && source.kind() != io::ErrorKind::NotFound
        {
            errors.push(Error::System { step, source });
        }
    };
    if let Some(cgroup) = cgroup {
        note(format!("kill {cgroup}"), cgroups.kill(cgroup));
    }
    for path in [paths.netns(), paths.shm(), paths.root()] {
        note(format!("unmount {}", path.display()), unmount(&path));
    }
    if let Some(cgroup) = cgroup {
        note(format!("remove the cgroup {cgroup}"), cgroups.remove(cgroup, PATIENCE));
    }
    note(format!("remove {}", paths.run.display()), fs::remove_dir_all(&paths.run));
    errors
}

/// Whatever is mounted there, however often.
fn unmount(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    for _ in 0..8 {
        match mount::detach(&path) {
            Ok(()) => {}
            // Not, or no longer, a mount point.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The records too.
pub(super) fn records(paths: &SandboxPaths) -> io::Result<()> {
    match fs::remove_dir_all(&paths.state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// One error for a caller that takes one: the first, with the others in its words.
pub(super) fn first(errors: Vec<Error>) -> Result<(), Error> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    for other in errors {
        tracing::warn!(error = %other, "teardown");
    }
    Err(first)
}
