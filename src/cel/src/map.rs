//! Maps and objects: of the caller's data, of the program's text, or made.
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::constant::Constant;
use crate::evaluate::EvaluationError;
use crate::json::{Json, View};
use crate::value::Value;
use crate::{Declared, ObjectType};

#[derive(Clone)]
pub enum Map<'a> {
    #[non_exhaustive]
    Json { json: &'a dyn Json, value: &'a Declared, typed: bool },
    /// An object with declared fields; a field that is null is absent.
    #[non_exhaustive]
    Object { json: &'a dyn Json, of: &'a ObjectType },
    #[non_exhaustive]
    Constant(&'a [(Constant, Constant)]),
    #[non_exhaustive]
    Made(Rc<Entries<'a>>),
    /// Made by `Name{...}`.
    #[non_exhaustive]
    Struct(Rc<Struct<'a>>),
}

/// An object that an expression made.
pub struct Struct<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<(Arc<str>, Value<'a>)>,
}

/// The entries of a map that was made, in the order in which they came.
#[derive(Clone, Default)]
pub struct Entries<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    /// Only of large maps.
    index: Option<HashMap<Key, usize>>,
    /// What selecting a key gives that is not there.
    otherwise: Option<Rc<Value<'a>>>,
}

/// What keys are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Bool(bool),
    /// Numbers of all types, where they are whole.
    Whole(i128),
    Double(u64),
    String(Box<str>),
    Other(Box<str>),
}

impl Key {
    pub fn of(value: &Value) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(i) => Key::Whole(i128::from(*i)),
            Value::Uint(u) => Key::Whole(i128::from(*u)),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 2f64.powi(64) => Key::Whole(*d as i128),
            Value::Double(d) => Key::Double(d.to_bits()),
            Value::String(text) => Key::String((**text).into()),
            Value::Duration(_) | Value::Timestamp(_) | Value::Null => Key::Other(format!("{} {value}", value.type_of()).into()),
            Value::Bytes(bytes) => Key::Other(format!("{:?}", &**bytes).into()),
            _ => return None,
        })
    }
}

const INDEXED_FROM: usize = 12;

impl<'a> Entries<'a> {
    fn place(&self, key: &Value<'a>) -> Option<usize> {
        if let Some(index) = &self.index {
            return index.get(&Key::of(key)?).copied();
        }
        self.entries.iter().position(|(known, _)| known.equals(key).unwrap_or(false))
    }

    pub(crate) fn get(&self, key: &Value<'a>) -> Option<&Value<'a>> {
        self.place(key).map(|i| &self.entries[i].1).or(self.otherwise.as_deref())
    }

    pub(crate) fn with_otherwise(mut self, value: Value<'a>) -> Self {
        self.otherwise = Some(Rc::new(value));
        self
    }

    /// Sets an entry; of two equal keys the later value stands.
    pub(crate) fn set(&mut self, key: Value<'a>, value: Value<'a>) {
        if let Some(i) = self.place(&key) {
            self.entries[i] = (key, value);
            return;
        }
        if let (Some(index), Some(known)) = (&mut self.index, Key::of(&key)) {
            index.insert(known, self.entries.len());
        }
        self.entries.push((key, value));
        if self.index.is_none() && self.entries.len() == INDEXED_FROM {
            let keys = self.entries.iter().enumerate().map(|(i, (key, _))| Some((Key::of(key)?, i)));
            self.index = keys.collect();
        }
    }

    pub(crate) fn remove(&mut self, key: &Value<'a>) {
        if let Some(i) = self.place(key) {
            self.entries.remove(i);
            self.index = None;
        }
    }

    pub(crate) fn contains(&self, key: &Value<'a>) -> bool {
        self.place(key).is_some()
    }
}

impl<'a> Map<'a> {
    pub(crate) fn made(entries: Entries<'a>) -> Self {
        Map::Made(Rc::new(entries))
    }

    pub fn len(&self) -> usize {
        match self {
            Map::Json { json, .. } | Map::Object { json, .. } => json.len(),
            Map::Constant(entries) => entries.len(),
            Map::Made(made) => made.entries.len(),
            Map::Struct(made) => made.fields.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a key that is a string.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Json { json, value, .. } => json.field(name).map(|node| Value::read(node, value)),
            Map::Object { json, of } => {
                let field = of.field(name)?;
                json.field(&field.json).filter(|node| node.view() != View::Null).map(|node| Value::read(node, &field.of))
            }
            Map::Constant(entries) => {
                entries.iter().rev().find(|(key, _)| matches!(key, Constant::String(known) if **known == *name)).map(|(_, v)| v.value())
            }
            Map::Made(made) => {
                let place = match &made.index {
                    Some(index) => index.get(&Key::String(name.into())).copied(),
                    None => made.entries.iter().position(|(key, _)| key.as_str() == Some(name)),
                };
                place.map(|i| &made.entries[i].1).or(made.otherwise.as_deref()).cloned()
            }
            Map::Struct(made) => made.fields.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.clone()),
        }
    }

    /// The value at any key; an error if no such map has keys of this type.
    pub(crate) fn find(&self, key: &Value<'a>) -> Result<Option<Value<'a>>, EvaluationError> {
        match (self, key) {
            (_, Value::String(name)) => Ok(self.field(name)),
            (Map::Json { typed: true, .. } | Map::Object { .. } | Map::Struct(_), _) => Err(EvaluationError::new("no such overload")),
            (Map::Json { .. }, _) => Ok(None),
            (Map::Constant(entries), _) => {
                for (known, value) in entries.iter().rev() {
                    if known.value().equals(key)? {
                        return Ok(Some(value.value()));
                    }
                }
                Ok(None)
            }
            (Map::Made(made), _) => Ok(made.get(key).cloned()),
        }
    }

    /// Whether the key itself is there, whatever selecting it would give.
    pub(crate) fn contains(&self, key: &Value<'a>) -> Result<bool, EvaluationError> {
        match self {
            Map::Made(made) => Ok(made.contains(key)),
            other => other.find(key).map(|found| found.is_some()),
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + '_ {
        let object = matches!(self, Map::Object { .. });
        (0..self.len()).filter_map(move |i| match self {
            Map::Json { json, value, .. } => json.entry(i).map(|(key, node)| (Value::str(key), Value::read(node, value))),
            Map::Object { json, of } => {
                let (name, _) = json.entry(i)?;
                let field = of.fields().iter().find(|field| object && *field.json == *name)?;
                Some((Value::str(&field.name), self.field(&field.name)?))
            }
            Map::Constant(entries) => Some((entries[i].0.value(), entries[i].1.value())),
            Map::Made(made) => made.entries.get(i).cloned(),
            Map::Struct(made) => made.fields.get(i).map(|(name, value)| (Value::from(name.to_string()), value.clone())),
        })
    }

    pub(crate) fn equals(&self, other: &Map<'a>) -> Result<bool, EvaluationError> {
        if self.len() != other.len() {
            return Ok(false);
        }
        if let (Map::Struct(a), Map::Struct(b)) = (self, other)
            && a.name != b.name
        {
            return Ok(false);
        }
        for (key, value) in self.entries() {
            match other.find(&key)? {
                Some(theirs) if value.equals(&theirs)? => {}
                _ => return Ok(false),
            }
        }
        // Fields that no expression can name compare as they stand.
        if let (Map::Object { json, of }, Map::Object { json: theirs, .. }) = (self, other) {
            for i in 0..json.len() {
                let Some((name, node)) = json.entry(i) else { continue };
                if of.fields().iter().any(|field| *field.json == *name) {
                    continue;
                }
                if theirs.field(name).is_some_and(|other| !crate::value::same_json(node, other)) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// A copy that can take more entries.
    pub(crate) fn to_entries(&self) -> Entries<'a> {
        match self {
            Map::Made(made) => (**made).clone(),
            other => {
                let mut made = Entries::default();
                other.entries().for_each(|(key, value)| made.set(key, value));
                made
            }
        }
    }
}
