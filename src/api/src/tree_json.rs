//! Expressions read trees in place.
use cel::{Json, View};

use crate::tree::Tree;

impl Json for Tree {
    fn view(&self) -> View<'_> {
        match self {
            Tree::Null => View::Null,
            Tree::Bool(b) => View::Bool(*b),
            Tree::Integer(i) => View::Int(*i),
            Tree::Float(f) => View::Double(*f),
            Tree::String(text) => View::String(text),
            Tree::Array(_) => View::Array,
            Tree::Object(_) => View::Object,
        }
    }

    fn len(&self) -> usize {
        match self {
            Tree::Array(items) => items.len(),
            Tree::Object(fields) => fields.len(),
            _ => 0,
        }
    }

    fn item(&self, index: usize) -> Option<&dyn Json> {
        self.as_array()?.get(index).map(|item| item as &dyn Json)
    }

    fn field(&self, name: &str) -> Option<&dyn Json> {
        self.get(name).map(|field| field as &dyn Json)
    }

    fn entry(&self, index: usize) -> Option<(&str, &dyn Json)> {
        self.as_object()?.entry_at(index).map(|(name, field)| (name, field as &dyn Json))
    }
}
