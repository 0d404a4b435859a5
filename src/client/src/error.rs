//! What can go wrong in a call, and when it is worth another try.
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// When a failed piece of work should be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// With the queue's exponential back-off.
    Backoff,
    /// After this time, whatever the number of failures.
    After(Duration),
    /// Only when something that the work reads has changed.
    OnChange,
    /// Never: trying again cannot help.
    Never,
}

/// An error that states when to try again. A controller's error type implements this.
pub trait RetryPolicy {
    fn retry(&self) -> Retry;
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered with a failure.
    #[error("{}", .0.message.as_deref().unwrap_or("the server gave no reason"))]
    Status(Box<Status>, Option<Duration>),
    #[error("{method} {path}: no answer from the API server")]
    Transport { method: String, path: String, #[source] source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{method} {path}: the answer is not what was asked for")]
    Decode { method: String, path: String, #[source] source: serde_json::Error },
    #[error("encode the body of {method} {path}")]
    Encode { method: String, path: String, #[source] source: serde_json::Error },
}

impl ApiError {
    /// The HTTP status code, where the server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status, _) => status.code.and_then(|c| u16::try_from(c).ok()),
            _ => None,
        }
    }

    /// The machine-readable reason (`NotFound`, `AlreadyExists` ...), empty where there is none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Status(status, _) => status.reason.as_deref().unwrap_or_default(),
            _ => "",
        }
    }

    fn is(&self, reason: &str, code: u16) -> bool {
        // As apierrors.ReasonAndCodeForError: an unknown reason falls back to the code.
        let known = self.reason();
        known == reason || (known.is_empty() || known == "Unknown") && self.code() == Some(code)
    }

    pub fn is_not_found(&self) -> bool {
        self.is("NotFound", 404)
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }
    pub fn is_conflict(&self) -> bool {
        self.is("Conflict", 409)
    }
    pub fn is_forbidden(&self) -> bool {
        self.is("Forbidden", 403)
    }
    pub fn is_invalid(&self) -> bool {
        self.is("Invalid", 422)
    }
    pub fn is_gone(&self) -> bool {
        self.reason() == "Expired" || self.is("Gone", 410)
    }
    pub fn is_too_many_requests(&self) -> bool {
        self.is("TooManyRequests", 429)
    }

    /// Whether a cause of this type is among the details (`NamespaceTerminating` ...).
    pub fn has_cause(&self, reason: &str) -> bool {
        let Self::Status(status, _) = self else { return false };
        let causes = status.details.as_ref().and_then(|d| d.causes.as_deref()).unwrap_or_default();
        causes.iter().any(|c| c.reason.as_deref() == Some(reason))
    }

    pub fn is_namespace_terminating(&self) -> bool {
        self.is_forbidden() && self.has_cause("NamespaceTerminating")
    }
}

impl RetryPolicy for ApiError {
    fn retry(&self) -> Retry {
        match self {
            Self::Status(_, Some(after)) => Retry::After(*after),
            // Everything else may pass: a conflict by reading again, a refusal by a changed role or quota.
            Self::Status(..) | Self::Transport { .. } => Retry::Backoff,
            Self::Decode { .. } | Self::Encode { .. } => Retry::Backoff,
        }
    }
}
