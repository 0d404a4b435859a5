//! What can go wrong, for callers.

use std::io;

use crate::protocol::Failure;

/// Every operation's error. Worth another try are [`Error::Lost`] (with a new sandbox) and [`Error::System`].
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
    /// The shim of this sandbox is gone, or it was stopped.
    #[error("sandbox {id:?} is lost: its shim is gone")]
    Lost { id: String },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("command timed out after {seconds} s")]
    Timeout { seconds: u64 },
    /// A system call failed.
    #[error("{step}")]
    System {
        step: String,
        #[source]
        source: io::Error,
    },
}

/// Why a container or exec did not start. `to_string` is what other runtimes say:
/// `exec: "foo": executable file not found in $PATH`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    pub message: String,
    /// The step of the start path that failed, e.g. `mount /data`; `exec` when it was the program itself.
    pub step: String,
    pub errno: i32,
}

impl StartError {
    /// What a shell would answer, when the program itself is at fault (absent: 127, not executable: 126) and not the
    /// machinery.
    pub fn exit_code(&self) -> Option<i32> {
        if self.step != "exec" {
            return None;
        }
        Some(if matches!(self.errno, libc::ENOENT | libc::ENOTDIR) { 127 } else { 126 })
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        StartError { message: failure.message, step: failure.step, errno: failure.errno }
    }
}

impl Error {
    pub(super) fn system(step: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { step: step.into(), source: source.into() }
    }

    pub(super) fn of(failure: Failure) -> Error {
        Error::System { step: failure.step, source: io::Error::from_raw_os_error(failure.errno) }
    }

    pub(super) fn no_container(id: &str) -> Error {
        Error::NotFound { kind: "container", id: id.to_owned() }
    }

    pub(super) fn no_sandbox(id: &str) -> Error {
        Error::NotFound { kind: "sandbox", id: id.to_owned() }
    }
}
