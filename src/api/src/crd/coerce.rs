//! Metadata, at the root and in embedded resources: its types, its unknown fields, its validity.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/objectmeta.
use super::place::Place;
use super::structural::Structural;
use crate::field_error::FieldError;
use crate::names;
use crate::schema;
use crate::tree::{Object, Tree};
use crate::validation::{NameRule, validate_new_meta};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How strict decoding of metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Refused,
    /// Objects stored before their metadata was checked.
    Dropped,
}

/// `metadata` as its type has it, and the paths of fields that the type does not have. The error is Go's text.
pub fn object_meta(metadata: Tree, malformed: Malformed, unknown: &mut Vec<String>, path: &str) -> Result<Tree, String> {
    let schema = schema::of_type(OBJECT_META);
    let result = match malformed {
        Malformed::Refused => schema::decode(schema, metadata),
        Malformed::Dropped => schema::decode(schema, metadata.clone()).or_else(|_| {
            let fits = |key: &str, value: &Tree| {
                let alone: Object = [(key, value.clone())].into_iter().collect();
                schema::decode(schema, alone.into()).is_ok()
            };
            let fields = metadata.as_object().cloned().unwrap_or_default();
            let fields: Object = fields.into_iter().filter(|(key, value)| fits(key, value)).collect();
            schema::decode(schema, fields.into())
        }),
    };
    let decoded = result.map_err(|error| error.to_string())?;
    let prefix = if path.is_empty() { "metadata".to_owned() } else { format!("{path}.metadata") };
    unknown.extend(decoded.unknown.iter().map(|text| {
        let field = text.split_once('"').map_or("", |(_, rest)| rest.trim_end_matches('"'));
        format!("{prefix}.{field}")
    }));
    Ok(decoded.tree)
}

/// Gives embedded resources the metadata of their type. Errors only where malformed metadata is refused.
pub fn embedded(value: &mut Tree, schema: &Structural, malformed: Malformed, unknown: &mut Vec<String>) -> Result<(), FieldError> {
    let mut found = Vec::new();
    walk(value, schema, malformed, &mut found, &Place::Root)?;
    found.sort();
    unknown.append(&mut found);
    Ok(())
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn walk(value: &mut Tree, schema: &Structural, malformed: Malformed, unknown: &mut Vec<String>, path: &Place<'_>) -> Result<(), FieldError> {
    match value {
        Tree::Object(object) => {
            if schema.embedded {
                embedded_here(object, malformed, unknown, &path.to_string())?;
            }
            for (key, value) in object.iter_mut() {
                if let Some(property) = schema.field(key) {
                    walk(value, property, malformed, unknown, &Place::Field(path, key))?;
                }
            }
        }
        Tree::Array(items) => {
            let Some(inner) = &schema.items else { return Ok(()) };
            for (i, item) in items.iter_mut().enumerate() {
                walk(item, inner, malformed, unknown, &Place::Item(path, i))?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn embedded_here(object: &mut Object, malformed: Malformed, unknown: &mut Vec<String>, path: &str) -> Result<(), FieldError> {
    for key in ["apiVersion", "kind"] {
        if let Some(value) = object.get(key).filter(|v| v.as_str().is_none()) {
            if malformed == Malformed::Refused {
                return Err(FieldError::invalid(below(path, key), value, "must be a string"));
            }
            object.remove(key);
        }
    }
    let Some(metadata) = object.get("metadata").cloned() else { return Ok(()) };
    match object_meta(metadata.clone(), malformed, unknown, path) {
        Ok(typed) => {
            object.insert("metadata", typed);
            Ok(())
        }
        Err(_) if malformed == Malformed::Dropped => Ok(()),
        Err(text) => Err(FieldError::invalid(below(path, "metadata"), &metadata, text)),
    }
}

/// Whether embedded resources have a kind, a version and valid metadata.
pub fn check_embedded(errors: &mut Vec<FieldError>, schema: &Structural, object: &Tree) {
    check_at(errors, schema, object, &Place::Root, false);
}

/// The same for a value that counts as a resource itself.
pub fn check_root(errors: &mut Vec<FieldError>, schema: &Structural, object: &Tree, path: &str) {
    check_at(errors, schema, object, &Place::Field(&Place::Root, path), true);
}

fn check_at(errors: &mut Vec<FieldError>, schema: &Structural, value: &Tree, path: &Place<'_>, is_root: bool) {
    match value {
        Tree::Object(object) => {
            if schema.embedded || is_root {
                resource(errors, object, &path.to_string());
            }
            for (key, value) in object.iter() {
                if let Some(property) = schema.properties.get(key) {
                    check_at(errors, property, value, &Place::Field(path, key), false);
                } else if let Some(further) = schema.field(key) {
                    check_at(errors, further, value, &Place::Key(path, key), false);
                }
            }
        }
        Tree::Array(items) => {
            let Some(inner) = &schema.items else { return };
            items.iter().enumerate().for_each(|(i, item)| check_at(errors, inner, item, &Place::Item(path, i), false));
        }
        _ => {}
    }
}

fn resource(errors: &mut Vec<FieldError>, object: &Object, path: &str) {
    for key in ["apiVersion", "kind"] {
        let at = || below(path, key);
        match object.get(key) {
            None => errors.push(FieldError::required(at(), "")),
            Some(Tree::String(text)) if text.is_empty() => errors.push(FieldError::invalid(at(), "", "must not be empty")),
            Some(Tree::String(text)) if key == "kind" => {
                let wrong = names::dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(FieldError::invalid(at(), &**text, detail));
                }
            }
            Some(Tree::String(text)) if text.matches('/').count() > 1 => {
                errors.push(FieldError::invalid(at(), &**text, format!("unexpected GroupVersion string: {text}")));
            }
            Some(Tree::String(_)) => {}
            Some(other) => errors.push(FieldError::invalid(at(), other, "must be a string")),
        }
    }
    let Some(metadata) = object.get("metadata") else { return };
    match object_meta(metadata.clone(), Malformed::Refused, &mut Vec::new(), path) {
        Err(text) => errors.push(FieldError::invalid(below(path, "metadata"), metadata, text)),
        Ok(mut typed) => {
            if typed.str_at(&["name"]).is_empty() {
                typed.set(&["name"], "fakename");
            }
            let is_namespaced = !typed.str_at(&["namespace"]).is_empty();
            let holder: Object = [("metadata", typed)].into_iter().collect();
            let mut found = Vec::new();
            validate_new_meta(&mut found, &holder.into(), is_namespaced, NameRule::PathSegment);
            errors.extend(found.into_iter().map(|error| FieldError { path: below(path, &error.path), ..error }));
        }
    }
}
