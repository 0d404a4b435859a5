//! Pruning, nulls and defaults by a structural schema.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}.
use super::structural::{Additional, Structural};
use crate::tree::{Object, Tree};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not name. The root's type and metadata stay. Paths of what went are added to `unknown`, sorted.
pub fn prune(object: &mut Tree, schema: &Structural, is_root: bool, unknown: Option<&mut Vec<String>>) {
    let mut pruner = Pruner { path: String::new(), found: Vec::new(), tracks: unknown.is_some() };
    pruner.value(object, Some(schema), is_root);
    pruner.found.sort();
    if let Some(unknown) = unknown {
        unknown.append(&mut pruner.found);
    }
}

struct Pruner {
    path: String,
    found: Vec<String>,
    tracks: bool,
}

impl Pruner {
    /// `is_root`: counts as an embedded resource whatever the schema says.
    fn value(&mut self, value: &mut Tree, schema: Option<&Structural>, is_root: bool) {
        let keeps = schema.is_some_and(|s| s.preserve);
        let before = self.path.len();
        match value {
            Tree::Object(object) => object.retain(|key, value| {
                let is_kept = self.field(key, value, schema, is_root, keeps);
                self.path.truncate(before);
                is_kept
            }),
            Tree::Array(items) => {
                let inner = schema.and_then(|s| s.items.as_deref());
                for (i, item) in items.iter_mut().enumerate() {
                    if self.tracks {
                        self.path.push_str(&format!("[{i}]"));
                    }
                    // Below a list of unknown shape that is preserved, everything is.
                    if !keeps || inner.is_some() {
                        self.item(item, inner, keeps);
                    }
                    self.path.truncate(before);
                }
            }
            _ => {}
        }
    }

    fn item(&mut self, item: &mut Tree, schema: Option<&Structural>, keeps: bool) {
        match schema {
            Some(schema) if keeps && !schema.preserve => self.kept(item, schema),
            schema => self.value(item, schema, false),
        }
    }

    /// As `value`, for a place whose unknown fields stay although its own schema does not say so.
    fn kept(&mut self, value: &mut Tree, schema: &Structural) {
        let before = self.path.len();
        match value {
            Tree::Object(object) => {
                for (key, value) in object.iter_mut() {
                    if !(schema.embedded && META.contains(&key)) {
                        self.below(key, value, schema);
                        self.path.truncate(before);
                    }
                }
            }
            Tree::Array(items) => {
                let Some(inner) = &schema.items else { return };
                items.iter_mut().for_each(|item| self.kept(item, inner));
            }
            _ => {}
        }
    }

    fn push(&mut self, key: &str) {
        if self.tracks {
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(key);
        }
    }

    fn below(&mut self, key: &str, value: &mut Tree, schema: &Structural) {
        self.push(key);
        match (schema.properties.get(key), &schema.additional) {
            (Some(property), _) => self.value(value, Some(property), false),
            (None, Some(Additional::Schema(further))) => self.value(value, Some(further), false),
            (None, Some(Additional::Allowed(_))) => self.value(value, None, false),
            (None, None) => {}
        }
    }

    /// Whether the field stays.
    fn field(&mut self, key: &str, value: &mut Tree, schema: Option<&Structural>, is_root: bool, keeps: bool) -> bool {
        let is_meta = META.contains(&key);
        let Some(schema) = schema else {
            self.record(key);
            return false;
        };
        if is_meta && (schema.embedded || is_root) {
            return true;
        }
        if keeps || schema.properties.contains_key(key) || schema.additional.is_some() {
            self.below(key, value, schema);
            return true;
        }
        if !is_meta || !self.path.is_empty() {
            self.record(key);
        }
        false
    }

    fn record(&mut self, key: &str) {
        if self.tracks {
            let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
            self.found.push(path);
        }
    }
}

/// Removes nulls from places that are neither nullable nor have a default.
pub fn prune_nulls(value: &mut Tree, schema: Option<&Structural>) {
    match value {
        Tree::Object(object) => object.retain(|key, value| {
            let schema = schema.and_then(|s| s.field(key));
            if value.is_null() && schema.is_some_and(|s| !s.nullable && s.default.is_none()) {
                return false;
            }
            prune_nulls(value, schema);
            true
        }),
        Tree::Array(items) => {
            let inner = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| prune_nulls(item, inner));
        }
        _ => {}
    }
}

fn is_bad_null(value: &Tree, schema: &Structural) -> bool {
    value.is_null() && !schema.nullable
}

/// Fills in what is absent.
pub fn apply(value: &mut Tree, schema: &Structural) {
    match value {
        Tree::Object(object) => fields(object, schema),
        Tree::Array(list) => {
            let Some(inner) = &schema.items else { return };
            for item in list {
                if is_bad_null(item, inner) {
                    *item = inner.default.clone().unwrap_or_default();
                }
                apply(item, inner);
            }
        }
        _ => {}
    }
}

fn fields(object: &mut Object, schema: &Structural) {
    for (name, property) in &schema.properties {
        if let Some(default) = &property.default
            && object.get(name).is_none_or(|value| is_bad_null(value, property))
        {
            object.insert(name.clone(), default.clone());
        }
    }
    for (key, value) in object.iter_mut() {
        if let Some(property) = schema.properties.get(key) {
            apply(value, property);
        } else if let Some(Additional::Schema(further)) = &schema.additional {
            if is_bad_null(value, further) {
                *value = further.default.clone().unwrap_or_default();
            }
            apply(value, further);
        }
    }
}
