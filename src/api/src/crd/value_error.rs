//! What a value check found, as upstream's validator words it.
//!
//! Models kube-openapi/pkg/validation/errors and kubeOpenAPIResultToFieldErrors of apiextensions-apiserver/pkg/apiserver/validation.
use std::fmt;

use super::place::Place;
use crate::field_error::{BadValue, ErrorType, FieldError};
use crate::tree::Tree;

/// Errors, and how many checks went well: the alternative with most of them is the one whose errors are shown.
#[derive(Debug, Default)]
pub struct Outcome {
    pub errors: Vec<FieldError>,
    pub matched: usize,
}

impl Outcome {
    pub fn merge(&mut self, other: Outcome) {
        self.matched += other.matched;
        self.errors.extend(other.errors);
    }

    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    pub fn add(&mut self, error: FieldError) {
        self.errors.push(error);
    }
}

/// `spec.a[0]`: the validator's own paths, which begin with a dot at the root.
fn shown(path: impl fmt::Display) -> String {
    path.to_string().trim_start_matches('.').to_owned()
}

pub fn wrong_type(path: &Place<'_>, expected: &str, found: &str) -> FieldError {
    let text = format!("{path} in body must be of type {expected}: {}", crate::field_error::quote(found));
    FieldError::type_invalid(shown(path), found, text)
}

pub fn invalid(path: &Place<'_>, value: &Tree, text: &str) -> FieldError {
    let value = if value.is_null() { BadValue::Tree("".into()) } else { BadValue::from(value) };
    FieldError { kind: ErrorType::Invalid, path: shown(path), value, detail: format!("{path} in body {text}") }
}

/// The same in words of its own.
pub fn about(path: &Place<'_>, value: &Tree, detail: String) -> FieldError {
    FieldError { kind: ErrorType::Invalid, path: shown(path), value: BadValue::from(value), detail }
}

pub fn required(path: &Place<'_>, key: &str) -> FieldError {
    FieldError::required(shown(format_args!("{path}.{key}")), "")
}

pub fn forbidden_property(path: &Place<'_>, key: &str) -> FieldError {
    FieldError::invalid(shown(path), key, format!("{path}.{key} in body is a forbidden property"))
}

pub fn too_long(path: &Place<'_>, max: i64) -> FieldError {
    FieldError::too_long(shown(path), usize::try_from(max).unwrap_or(0))
}

pub fn too_many(path: &Place<'_>, actual: usize, max: i64) -> FieldError {
    FieldError::too_many(shown(path), actual, usize::try_from(max).unwrap_or(0))
}

pub fn not_in(path: &Place<'_>, value: &Tree, allowed: &[Tree]) -> FieldError {
    let texts: Vec<String> = allowed
        .iter()
        .map(|value| value.as_str().map_or_else(|| String::from_utf8_lossy(&value.to_json()).into_owned(), ToOwned::to_owned))
        .collect();
    FieldError::not_supported(shown(path), value, &texts)
}

/// An error that upstream has no path for.
pub fn general(text: String) -> FieldError {
    FieldError::invalid("<nil>", "", text)
}

/// As Go's `%v` prints a number.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e21 { format!("{value:.0}") } else { format!("{value}") }
}
