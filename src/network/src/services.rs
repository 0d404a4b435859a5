//! Services and host ports as rules of the kernel.
use crate::error::CommitError;
use crate::types::{HostPort, ServiceId, ServiceRule, ServiceTable};
use tokio::sync::{mpsc, oneshot};

/// One change of the rules.
#[derive(Debug)]
pub enum Change {
    Set(ServiceId, ServiceRule),
    Remove(ServiceId),
    /// All host ports of one sandbox; empty removes them.
    HostPorts(String, Vec<HostPort>),
    /// Every Service there is; those not named go.
    Replace(ServiceTable),
}

/// What the writer task is asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub changes: Vec<Change>,
    pub done: oneshot::Sender<Result<(), CommitError>>,
}

/// Hands changes to the one task that owns the table. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceWriter {
    requests: mpsc::Sender<Request>,
}

impl ServiceWriter {
    /// Replaces all Services at once. The first call after a start also replaces what an earlier run left in the kernel,
    /// which serves until then.
    pub async fn replace(&self, table: ServiceTable) -> Result<(), CommitError> {
        self.apply(vec![Change::Replace(table)]).await
    }

    /// Makes all changes in one transaction and returns when the kernel uses them.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), CommitError> {
        let (done, answer) = oneshot::channel();
        let stopped = || CommitError {
            message: "the writer has stopped".to_owned(),
        };
        let request = Request { changes, done };
        self.requests.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    pub async fn set_service(&self, id: ServiceId, rule: ServiceRule) -> Result<(), CommitError> {
        self.apply(vec![Change::Set(id, rule)]).await
    }

    pub async fn remove_service(&self, id: ServiceId) -> Result<(), CommitError> {
        self.apply(vec![Change::Remove(id)]).await
    }
}
