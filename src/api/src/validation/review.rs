//! Requests that look like objects: access reviews and tokens.
//!
//! Models pkg/apis/authorization/validation and pkg/apis/authentication/validation.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");

pub(super) fn check(errors: &mut Errors, kind: &str, review: &Tree) {
    let spec = at(review, "spec");
    match kind {
        "SubjectAccessReview" | "LocalSubjectAccessReview" | "SelfSubjectAccessReview" => {
            access(errors, spec, kind != "SelfSubjectAccessReview");
            if kind == "LocalSubjectAccessReview" {
                let namespace = review.str_at(&["metadata", "namespace"]);
                let attributes = SPEC.child("resourceAttributes");
                if let Some(asked) = set(spec, "resourceAttributes").filter(|a| text(a, "namespace") != namespace) {
                    let detail = "must match metadata.namespace";
                    errors.push(FieldError::invalid(attributes.child("namespace"), text(asked, "namespace"), detail));
                }
                if set(spec, "nonResourceAttributes").is_some() {
                    let path = SPEC.child("nonResourceAttributes");
                    let detail = "disallowed on this kind of request";
                    errors.push(FieldError::invalid(path, at(spec, "nonResourceAttributes"), detail));
                }
            }
        }
        "TokenRequest" => {
            let path = SPEC.child("expirationSeconds");
            let seconds = int(spec, "expirationSeconds").unwrap_or(3600);
            if seconds < 600 {
                errors.push(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
            }
            if seconds > 1 << 32 {
                errors.push(FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"));
            }
        }
        _ => {}
    }
}

fn access(errors: &mut Errors, spec: &Tree, names_subject: bool) {
    match (set(spec, "resourceAttributes"), set(spec, "nonResourceAttributes")) {
        (Some(_), Some(other)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(SPEC.child("nonResourceAttributes"), other, detail));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid(SPEC.child("resourceAttributes"), &Tree::Null, detail));
        }
        _ => {}
    }
    if names_subject && text(spec, "user").is_empty() && list(spec, "groups").is_empty() {
        errors.push(FieldError::invalid(SPEC.child("user"), "", "at least one of user or group must be specified"));
    }
}
