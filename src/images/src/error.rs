//! What can go wrong with images, in words that end up in a pod's events.
use std::path::PathBuf;

use crate::Digest;

/// The folder of images failed us: disk, permissions, a damaged index.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, #[source] source: std::io::Error },
    #[error("image index {path} is damaged: {source}")]
    Index { path: PathBuf, source: serde_json::Error },
    #[error("image {0} not found")]
    NotFound(String),
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// An image could not be brought from its registry.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("failed to resolve reference {reference:?}: {reference}: not found")]
    NotFound { reference: String },
    #[error("failed to authorize: pull access denied for {reference}, repository does not exist or may require authorization: {detail}")]
    Unauthorized { reference: String, detail: String },
    #[error("no image for this machine ({wanted}) in {reference}; it has {found}")]
    Platform { reference: String, wanted: String, found: String },
    #[error("failed to reach registry {host}: {detail}")]
    Unreachable { host: String, detail: String },
    #[error("registry {host} answered {status} to {what}: {detail}")]
    Status { host: String, status: u16, what: String, detail: String },
    #[error("corrupt image: expected {expected}, got {got}")]
    Digest { expected: Digest, got: Digest },
    #[error("corrupt image: layer {digest}: {detail}")]
    Layer { digest: Digest, detail: String },
    #[error("corrupt image: {what}: {detail}")]
    Malformed { what: String, detail: String },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The error and everything under it on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
