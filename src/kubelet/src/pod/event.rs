//! Everything that a pod's worker can be told. One closed list: nothing else wakes it but its own timers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use runtime::Exit;

use super::start::{StartFailure, StartOutcome};
use crate::probe::ProbeKind;
use crate::probe::state::Verdict;
use crate::resources::Limits;
use crate::volumes::Mounted;

#[derive(Debug)]
pub enum Event {
    /// The API's newest word.
    Spec(Arc<Pod>),
    /// The pod is gone from the API.
    Removed,
    SandboxMade(Result<SandboxMade, String>),
    VolumesMade(Result<Mounted, String>),
    /// The program runs; its postStart hook may still be under way.
    ContainerStarted { name: String, outcome: StartOutcome },
    /// The start task died; how far it came is not known.
    StartDied { name: String, attempt: u32 },
    /// The task that stopped the container died.
    StopDied { id: String },
    StartFailed { name: String, attempt: u32, failure: StartFailure },
    /// The postStart hook has ended; with a message when it failed.
    Hooked { name: String, id: String, failure: Option<String> },
    ContainerExited { id: String, exit: Exit },
    /// Nobody knows how it ended; it does not run.
    ContainerLost { id: String },
    SandboxLost { id: String },
    Probed { container: String, id: String, kind: ProbeKind, verdict: Option<Verdict>, message: Option<(bool, String)> },
    /// Cgroups hold what was allocated when the task began, or why they do not.
    Resized(Result<(), String>),
    /// Namespaces, network, mounts and volumes are gone.
    TornDown(Result<(), String>),
    StatusWritten(Result<Arc<Pod>, StatusFailure>),
    /// The answer to the final delete.
    Deleted(Result<(), StatusFailure>),
}

/// What a task is taken to have said that died.
pub const DIED: &str = "internal error: the task has died";

#[derive(Debug)]
pub struct SandboxMade {
    pub id: String,
    pub pod_ips: Vec<String>,
    /// What its cgroup was told.
    pub limits: Limits,
}

#[derive(Debug)]
pub struct StatusFailure {
    pub gone: bool,
    pub message: String,
}

impl StatusFailure {
    pub fn died() -> Self {
        Self { gone: false, message: DIED.into() }
    }
}
