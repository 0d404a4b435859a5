//! What can go wrong, for callers.

use std::io;

/// Every operation's error. `retry`-worthy are [`Error::Lost`] (start the sandbox anew) and [`Error::System`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{kind} {id:?} does not exist")]
    NotFound { kind: &'static str, id: String },
    #[error("{kind} {id:?} exists already")]
    Exists { kind: &'static str, id: String },
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("container {id:?} is not running")]
    NotRunning { id: String },
    /// The shim of this sandbox is gone.
    #[error("sandbox {id:?} is lost: its shim is gone")]
    Lost { id: String },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("command timed out after {seconds} s")]
    Timeout { seconds: u64 },
    /// A system call failed.
    #[error("{step}")]
    System { step: String, #[source] source: io::Error },
}

/// Why a container or exec did not start. `to_string` is what other runtimes say:
/// `exec: "foo": executable file not found in $PATH`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    pub message: String,
    /// The step of the start path that failed, e.g. `mount /data`.
    pub step: String,
    pub errno: i32,
}

impl StartError {
    /// The program itself is at fault (absent, not executable), not the machinery: upstream's exit codes 127 and 126.
    pub fn exit_code(&self) -> Option<i32> {
        if self.step != "exec" {
            return None;
        }
        Some(if matches!(self.errno, libc::ENOENT | libc::ENOTDIR) { 127 } else { 126 })
    }
}

impl Error {
    pub(crate) fn pending() -> Error {
        Error::System { step: "runtime".into(), source: io::Error::from_raw_os_error(libc::ENOSYS) }
    }
}
