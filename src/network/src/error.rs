//! What can go wrong, one small type per operation.
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

#[derive(Debug, thiserror::Error)]
#[error("invalid link name {name:?}: 1 to 15 letters, digits, dashes or underscores are allowed")]
pub struct InvalidIfName {
    pub name: String,
}

/// One step of a longer operation that did not work.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct StepError {
    pub step: String,
    #[source]
    pub source: io::Error,
}

impl StepError {
    pub(crate) fn new(step: impl Into<String>) -> impl FnOnce(io::Error) -> StepError {
        let step = step.into();
        move |source| StepError { step, source }
    }
}

/// Nothing of the node's network can be used; try again after the cause is gone.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("pod CIDR {cidr} is too small: at least 4 addresses are needed")]
    PodCidrTooSmall { cidr: Ipv4Net },
    #[error("set up the node's network")]
    Step(#[from] StepError),
    #[error("load the Service rules")]
    Rules(#[from] CommitError),
}

/// Some pods of other nodes may not be reached; everything that worked stands. Try again.
#[derive(Debug, thiserror::Error)]
#[error("set up the way to other nodes: {}", list(.steps))]
pub struct MeshError {
    pub steps: Vec<StepError>,
}

impl MeshError {
    pub(crate) fn of(step: StepError) -> MeshError {
        MeshError { steps: vec![step] }
    }
}

/// The pod has no network and must not be started. Try again later; addresses already recorded are used again.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("no free address in {cidr}: all {in_use} are in use")]
    AddressesExhausted { cidr: Ipv4Net, in_use: usize },
    #[error("record address {address} in {}", path.display())]
    Record {
        address: Ipv4Addr,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("connect sandbox {sandbox_id} with address {address}")]
    Step {
        sandbox_id: String,
        address: Ipv4Addr,
        #[source]
        source: StepError,
    },
    #[error("sandbox id {sandbox_id:?} is not usable: 1 to 128 printable characters without spaces are allowed")]
    InvalidSandboxId { sandbox_id: String },
}

/// Something of the sandbox is left; calling again continues.
#[derive(Debug, thiserror::Error)]
#[error("disconnect sandbox {sandbox_id}")]
pub struct DetachError {
    pub sandbox_id: String,
    #[source]
    pub source: StepError,
}

/// The kernel did not take a change of the Service rules; it holds what it held before. The writer tries a full load
/// before it gives up, so this is a lasting condition.
#[derive(Clone, Debug, thiserror::Error)]
#[error("write Service rules: {message}")]
pub struct CommitError {
    pub message: String,
}

/// The steps of a teardown that did not work; all others were done.
#[derive(Debug, thiserror::Error)]
#[error("remove the node's network: {}", list(.steps))]
pub struct TeardownError {
    pub steps: Vec<StepError>,
}

fn list(steps: &[StepError]) -> String {
    let all: Vec<String> = steps.iter().map(|s| format!("{}: {}", s.step, s.source)).collect();
    all.join("; ")
}
