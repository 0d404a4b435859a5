//! Values, as the evaluator has them: they borrow from the caller's data where they can.
use std::rc::Rc;

use crate::authorize::{Authorize, ResourceCheck};
use crate::evaluate::{EvaluationError, Lazy};
use crate::{Declared, Json};

/// A value. Cloning is cheap. Compare, index and print values by expressions; this type only lets them in and out.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    /// A node of the caller's data that is no scalar, read as what it was declared.
    Json(&'a dyn Json, &'a Declared),
    /// Made on demand by the caller.
    Lazy(Rc<dyn Lazy<'a> + 'a>),
    Authorizer(&'a dyn Authorize),
    ResourceCheck(&'a dyn Authorize, Rc<ResourceCheck>),
}

/// A string of the caller's, or one that was made.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

/// An owned result: what JSON can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    List(Vec<Plain>),
    /// Sorted by keys.
    Object(Vec<(String, Plain)>),
}

impl<'a> Value<'a> {
    /// Reads a node as what it was declared to be; nothing is copied, and lists and objects are looked into on demand.
    /// A node that is not what it was declared to be is an error value, which the expression that reads it reports.
    pub fn read(json: &'a dyn Json, declared: &'a Declared) -> Self {
        Value::Json(json, declared)
    }

    pub fn str(text: &'a str) -> Self {
        Value::String(Text::Borrowed(text))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(Text::Borrowed(text)) => Some(text),
            Value::String(Text::Shared(text)) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// As JSON would have it: bytes in base64, durations and times as their strings; an optional without value, a type or an opaque
    /// value is an error.
    pub fn to_plain(&self) -> Result<Plain, EvaluationError> {
        Err(EvaluationError::new("values are not converted yet"))
    }
}
