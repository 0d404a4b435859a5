//! Lists of type `set` and `map` hold each item or key once.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go.
use std::collections::HashMap;

use super::place::Place;
use super::structural::{Additional, Structural};
use crate::field_error::FieldError;
use crate::tree::{Object, Tree};

pub fn check(errors: &mut Vec<FieldError>, schema: &Structural, object: &Tree) {
    value(errors, schema, object, &Place::Root);
}

fn value(errors: &mut Vec<FieldError>, schema: &Structural, found: &Tree, path: &Place<'_>) {
    match found {
        Tree::Array(items) => list(errors, schema, items, path),
        Tree::Object(fields) => {
            for (key, found) in fields.iter() {
                if let Some(property) = schema.properties.get(key) {
                    value(errors, property, found, &Place::Field(path, key));
                }
                if let Some(Additional::Schema(further)) = &schema.additional {
                    value(errors, further, found, &Place::Key(path, key));
                }
            }
        }
        _ => {}
    }
}

fn list(errors: &mut Vec<FieldError>, schema: &Structural, items: &[Tree], path: &Place<'_>) {
    match &*schema.list_type {
        "set" => {
            let repeated = repeated(items.iter().map(printed));
            errors.extend(repeated.into_iter().map(|i| FieldError::duplicate(format!("{path}[{i}]"), &items[i])));
        }
        "map" => map(errors, schema, items, path),
        _ => {}
    }
    if let Some(inner) = &schema.items {
        items.iter().enumerate().for_each(|(i, item)| value(errors, inner, item, &Place::Item(path, i)));
    }
}

fn map(errors: &mut Vec<FieldError>, schema: &Structural, items: &[Tree], path: &Place<'_>) {
    let stranger = items.iter().position(|item| !item.is_null() && item.as_object().is_none());
    if let Some(i) = stranger {
        errors.push(FieldError::invalid(format!("{path}[{i}]"), &items[i], "must be an object for an array of list-type map"));
        return;
    }
    if items.len() < 2 {
        return;
    }
    let keys: Vec<Tree> = items.iter().map(|item| keys_of(&schema.list_map_keys, item)).collect();
    let repeated = repeated(keys.iter().map(printed));
    errors.extend(repeated.into_iter().map(|i| FieldError::duplicate(format!("{path}[{i}]"), &keys[i])));
}

/// What tells an item from the others.
fn keys_of(keys: &[Box<str>], item: &Tree) -> Tree {
    Tree::Object(keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect::<Object>())
}

/// What equal values have in common. Most are short.
fn printed(value: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    value.write_json(&mut out);
    out
}

/// The items of a list of type map by their keys: lists of strangers are long, and an update looks up each item.
pub struct ByKeys<'t> {
    keys: &'t [Box<str>],
    items: HashMap<Vec<u8>, &'t Tree>,
}

impl<'t> ByKeys<'t> {
    /// Of items with equal keys the first counts.
    pub fn of(keys: &'t [Box<str>], items: &'t [Tree]) -> Self {
        let mut by_keys = HashMap::with_capacity(items.len());
        for item in items {
            by_keys.entry(printed(&keys_of(keys, item))).or_insert(item);
        }
        Self { keys, items: by_keys }
    }

    pub fn get(&self, item: &Tree) -> Option<&'t Tree> {
        self.items.get(&printed(&keys_of(self.keys, item))).copied()
    }
}

/// The place of each value's first repetition.
fn repeated(values: impl Iterator<Item = Vec<u8>>) -> Vec<usize> {
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut places = Vec::new();
    for (i, value) in values.enumerate() {
        let times = seen.entry(value).or_default();
        *times += 1;
        if *times == 2 {
            places.push(i);
        }
    }
    places
}
