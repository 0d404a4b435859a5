//! StorageVersionMigrations. Models pkg/apis/storagemigration/validation.
use super::check::*;
use super::conditions;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

pub(super) fn check(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let resource = at(at(new, "spec"), "resource");
    let path = SPEC.child("resource");
    match text(resource, "resource") {
        "" => errors.push(FieldError::required(path.child("resource"), "resource is required to be set")),
        name => joined(errors, &path.child("resource"), name, names::dns1035_label(name)),
    }
    let group = text(resource, "group");
    if !group.is_empty() {
        joined(errors, &path.child("group"), group, names::dns1123_subdomain(group));
    }
    if let Some(old) = old {
        immutable(errors, at(new, "spec"), at(old, "spec"), &SPEC);
    }
}

/// All that is wrong with one text, as one error.
fn joined(errors: &mut Errors, path: &Path, value: &str, texts: Vec<String>) {
    if !texts.is_empty() {
        errors.push(FieldError::invalid(path, value, texts.join(",")));
    }
}

fn is_true(status: &Tree, kind: &str) -> bool {
    list(status, "conditions").iter().any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

pub(super) fn status(errors: &mut Errors, new: &Tree, old: &Tree) {
    let (new, old) = (at(new, "status"), at(old, "status"));
    let (version, before) = (text(new, "resourceVersion"), text(old, "resourceVersion"));
    let path = STATUS.child("resourceVersion");
    if !version.is_empty() && (version.starts_with('0') || !version.bytes().all(|b| b.is_ascii_digit())) {
        errors.push(FieldError::invalid(&path, version, format!("resource version is not well formed: {version}")));
    }
    let list = list(new, "conditions");
    conditions::check(errors, list, &STATUS.child("conditions"));
    if !before.is_empty() && before != version {
        errors.push(FieldError::invalid(&path, version, "field is immutable"));
    }
    let path = STATUS.child("conditions");
    let shown = at(new, "conditions");
    if is_true(new, "Succeeded") && is_true(new, "Failed") {
        errors.push(FieldError::invalid(&path, shown, "Both success and failed conditions cannot be true at the same time"));
    }
    for (kind, name) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is_true(old, kind) && !is_true(new, kind) {
            errors.push(FieldError::invalid(&path, shown, format!("{name} condition cannot be set to false once it is true")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_ended_stays_ended() {
        let tree = |json: &str| Tree::from_json(json.as_bytes()).expect("JSON");
        let ended = tree(r#"{"status":{"resourceVersion":"7","conditions":[{"type":"Succeeded","status":"True","reason":"A","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#);
        let texts = |new: &Tree| {
            let mut errors = Errors::new();
            status(&mut errors, new, &ended);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(texts(&ended).is_empty());
        let found = texts(&tree(r#"{"status":{"resourceVersion":"07"}}"#));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[1].contains("field is immutable") && found[2].contains("Success condition cannot be set to false"), "{found:?}");
    }
}
