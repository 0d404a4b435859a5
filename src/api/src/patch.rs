//! The three ways to change an object by a document: JSON patch, merge patch, strategic merge patch.
mod depth;
mod json;
mod merge;
mod schema;
mod strategic;

pub use json::{JSON_PATCH_OPERATIONS_MAX, check_json_patch, json_patch};
pub use merge::merge_patch;
pub use schema::strategic_merge;
pub use strategic::{MergeField, MergeSchema, strategic_merge_with};

/// Why a patch was not applied. The text is what upstream's API server answers with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is well-formed but does not fit the object: 422 Invalid.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch asks for more than the server does for one request: 413.
    #[error("{0}")]
    TooLarge(String),
    /// Upstream does not classify this one: 500 InternalError.
    #[error("{0}")]
    Internal(String),
}

impl PatchError {
    /// Whether a `test` operation of a JSON patch said no.
    pub fn is_failed_test(&self) -> bool {
        matches!(self, PatchError::Unprocessable(text) if text.ends_with(": test failed"))
    }
}

#[cfg(test)]
mod tests;
