//! `subresources.scale`: where a custom object keeps its replicas.
//!
//! Models apiextensions-apiserver/pkg/registry/customresource/etcd.go (scaleFromCustomResource) and validator.go.
use crate::field_error::FieldError;
use crate::tree::Tree;

/// Paths in dot notation, as the definition has them: `.spec.replicas`.
#[derive(Clone, Debug)]
pub struct Scale {
    pub spec_replicas: Box<str>,
    pub status_replicas: Box<str>,
    pub selector: Option<Box<str>>,
}

fn parts(path: &str) -> Vec<&str> {
    path.strip_prefix('.').unwrap_or(path).split('.').collect()
}

impl Scale {
    pub fn compile(scale: &Tree) -> Self {
        let text = |key: &str| Box::<str>::from(scale.str_at(&[key]));
        Self {
            spec_replicas: text("specReplicasPath"),
            status_replicas: text("statusReplicasPath"),
            selector: Some(text("labelSelectorPath")).filter(|path| !path.is_empty()),
        }
    }

    /// The way to the replicas.
    pub fn wanted_path(&self) -> Vec<&str> {
        parts(&self.spec_replicas)
    }

    /// `None`: the object does not say.
    pub fn wanted(&self, object: &Tree) -> Option<i64> {
        object.at(&parts(&self.spec_replicas)).and_then(Tree::as_i64)
    }

    pub fn current(&self, object: &Tree) -> i64 {
        object.at(&parts(&self.status_replicas)).and_then(Tree::as_i64).unwrap_or(0)
    }

    pub fn selector<'t>(&self, object: &'t Tree) -> &'t str {
        self.selector.as_ref().map_or("", |path| object.str_at(&parts(path)))
    }

    pub fn set_wanted(&self, object: &mut Tree, replicas: i64) {
        object.set(&parts(&self.spec_replicas), replicas);
    }

    pub fn check_spec(&self, errors: &mut Vec<FieldError>, object: &Tree) {
        replicas(errors, object, &self.spec_replicas);
    }

    pub fn check_status(&self, errors: &mut Vec<FieldError>, object: &Tree) {
        replicas(errors, object, &self.status_replicas);
        if let Some(path) = &self.selector
            && let Some(found) = object.at(&parts(path)).filter(|found| found.as_str().is_none())
        {
            errors.push(FieldError::invalid(path, "", accessor_error(path, found, "string")));
        }
    }
}

fn accessor_error(path: &str, found: &Tree, wanted: &str) -> String {
    let go = match found {
        Tree::Null => "<nil>",
        Tree::Bool(_) => "bool",
        Tree::Integer(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::String(_) => "string",
        Tree::Array(_) => "[]interface {}",
        Tree::Object(_) => "map[string]interface {}",
    };
    let shown = found.as_str().map_or_else(|| String::from_utf8_lossy(&found.to_json()).into_owned(), ToOwned::to_owned);
    format!("{path} accessor error: {shown} is of the type {go}, expected {wanted}")
}

fn replicas(errors: &mut Vec<FieldError>, object: &Tree, path: &str) {
    match object.at(&parts(path)) {
        None => {}
        Some(Tree::Integer(count)) if *count < 0 => errors.push(FieldError::invalid(path, *count, "should be a non-negative integer")),
        Some(Tree::Integer(count)) if *count > i64::from(i32::MAX) => {
            errors.push(FieldError::invalid(path, *count, format!("should be less than or equal to {}", i32::MAX)));
        }
        Some(Tree::Integer(_)) => {}
        Some(other) => errors.push(FieldError::invalid(path, 0i64, accessor_error(path, other, "int64"))),
    }
}
