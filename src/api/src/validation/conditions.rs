//! Conditions of the shape that all newer kinds share. Models apimachinery/pkg/apis/meta/v1/validation ValidateConditions.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const REASON_RULE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
                           characters or '_,:', and must end with an alphanumeric character or '_'";
const REASON_REGEX: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";

/// Whether the text is what [`REASON_REGEX`] matches.
fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    let last_fits = bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || bytes.len() > 1 && *b == b'_');
    bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(inner) && last_fits
}

pub(super) fn check(errors: &mut Errors, conditions: &[Tree], path: &Path) {
    let mut seen = Seen::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        let kind = text(condition, "type");
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&path, kind));
        }
        seen.push(kind);
        match kind {
            "" => errors.push(FieldError::required(path.child("type"), "is required")),
            kind => label_name(errors, kind, &path.child("type")),
        }
        let status = text(condition, "status");
        if status.is_empty() {
            errors.push(FieldError::required(path.child("status"), ""));
        } else if !matches!(status, "True" | "False" | "Unknown") {
            errors.push(FieldError::not_supported(path.child("status"), status, &["False", "True", "Unknown"]));
        }
        if let Some(generation) = int(condition, "observedGeneration").filter(|g| *g < 0) {
            errors.push(FieldError::invalid(path.child("observedGeneration"), generation, "must be greater than or equal to zero"));
        }
        if set(condition, "lastTransitionTime").is_none() {
            errors.push(FieldError::required(path.child("lastTransitionTime"), ""));
        }
        let (reason, reason_path) = (text(condition, "reason"), path.child("reason"));
        if reason.is_empty() {
            errors.push(FieldError::required(&reason_path, ""));
        } else {
            if !is_reason(reason) {
                let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
                let detail = names::regex_error(REASON_RULE, REASON_REGEX, &examples);
                errors.push(FieldError::invalid(&reason_path, reason, detail));
            }
            if reason.len() > REASON_BYTES_MAX {
                errors.push(FieldError::too_long(&reason_path, REASON_BYTES_MAX));
            }
        }
        if text(condition, "message").len() > MESSAGE_BYTES_MAX {
            errors.push(FieldError::too_long(path.child("message"), MESSAGE_BYTES_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_odd_is_named() {
        let conditions: Tree = serde_saphyr::from_str(
            "[{type: Ready, status: 'True', reason: As_Expected, lastTransitionTime: x},
              {type: Ready, status: maybe, observedGeneration: -1, reason: 9}, {type: a b, status: 'False', reason: A-, lastTransitionTime: x}]",
        )
        .unwrap();
        let mut errors = Errors::new();
        check(&mut errors, conditions.as_array().unwrap_or_default(), &Path::new("c"));
        let named: Vec<_> = errors.iter().map(|e| e.to_string().split(':').take(2).collect::<String>()).collect();
        let expected = [
            "c[1] Duplicate value",
            "c[1].status Unsupported value",
            "c[1].observedGeneration Invalid value",
            "c[1].lastTransitionTime Required value",
            "c[1].reason Required value",
            "c[2].type Invalid value",
            "c[2].reason Invalid value",
        ];
        assert_eq!(named, expected);
    }
}
