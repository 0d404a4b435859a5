//! Why a reconcile did not finish.
use client::{ApiError, Behind, Retry, RetryPolicy};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{step}")]
    Api { step: String, #[source] source: ApiError },
    /// The object cannot be worked on until it is changed.
    #[error("{0}")]
    Unusable(String),
    /// What the caches show is not what the server has; they will catch up.
    #[error("{0}")]
    Stale(String),
}

/// The caches catch up by themselves.
impl From<Behind> for Failure {
    fn from(behind: Behind) -> Self {
        Self::Stale(behind.to_string())
    }
}

impl RetryPolicy for Failure {
    fn retry(&self) -> Retry {
        match self {
            Self::Api { source, .. } => source.retry(),
            Self::Unusable(_) => Retry::OnChange,
            Self::Stale(_) => Retry::Backoff,
        }
    }
}

impl Failure {
    /// Why, for events and conditions: the server's words where it refused something.
    pub fn reason(&self) -> String {
        self.api().map_or_else(|| self.to_string(), ToString::to_string)
    }

    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Says what was being done when a call failed.
pub(crate) trait During<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, ApiError> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure::Api { step: step(), source })
    }
}

/// Whether it succeeded; an object that is not there (any more) is as good as done.
pub(crate) fn unless_gone<T>(result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
