//! What makes an object invalid: upstream's validation, v1.37, with its exact texts.
//!
//! Models pkg/apis/*/validation and apimachinery/pkg/api/validation.
use crate::field_error::FieldError;
use crate::tree::Tree;

/// Everything wrong with `new`; `old` is the stored object when this is an update.
pub fn validate_kind(group: &str, kind: &str, new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let _ = (group, kind, new, old);
    Vec::new()
}

/// Everything wrong with an update of the `status` subresource.
pub fn validate_status_kind(group: &str, kind: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
    let _ = (group, kind, new, old);
    Vec::new()
}
