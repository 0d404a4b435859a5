//! Values that a program holds: literals, and what was computed of literals beforehand.
use std::sync::Arc;

use crate::ast::Literal;
use crate::list::List;
use crate::map::Map;
use crate::time::Timestamp;
use crate::types::Type;
use crate::value::{Octets, Value};

#[derive(Clone, Debug)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Duration(i64),
    Timestamp(Timestamp),
    Type(Type),
    List(Vec<Constant>),
    /// Each key once.
    Map(Vec<(Constant, Constant)>),
}

impl Constant {
    pub(crate) fn literal(literal: &Literal) -> Self {
        match literal {
            Literal::Null => Constant::Null,
            Literal::Bool(b) => Constant::Bool(*b),
            Literal::Int(i) => Constant::Int(*i),
            Literal::Uint(u) => Constant::Uint(*u),
            Literal::Double(d) => Constant::Double(*d),
            Literal::String(text) => Constant::String(text.clone()),
            Literal::Bytes(bytes) => Constant::Bytes(bytes.clone()),
        }
    }

    /// Of a value that conversions make; others stay what they are at run time.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Constant::Null,
            Value::Bool(b) => Constant::Bool(*b),
            Value::Int(i) => Constant::Int(*i),
            Value::Uint(u) => Constant::Uint(*u),
            Value::Double(d) => Constant::Double(*d),
            Value::String(text) => Constant::String((**text).into()),
            Value::Bytes(bytes) => Constant::Bytes((**bytes).into()),
            Value::Duration(nanos) => Constant::Duration(*nanos),
            Value::Timestamp(at) => Constant::Timestamp(*at),
            Value::Type(of) => Constant::Type(of.clone()),
            Value::List(list) => Constant::List(list.iter().map(|item| Constant::of(&item)).collect::<Option<_>>()?),
            Value::Map(map) => {
                let entry = |(key, value): (Value, Value)| Some((Constant::of(&key)?, Constant::of(&value)?));
                Constant::Map(map.entries().map(entry).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Constant::Null => Value::Null,
            Constant::Bool(b) => Value::Bool(*b),
            Constant::Int(i) => Value::Int(*i),
            Constant::Uint(u) => Value::Uint(*u),
            Constant::Double(d) => Value::Double(*d),
            Constant::String(text) => Value::str(text),
            Constant::Bytes(bytes) => Value::Bytes(Octets::Borrowed(bytes)),
            Constant::Duration(nanos) => Value::Duration(*nanos),
            Constant::Timestamp(at) => Value::Timestamp(*at),
            Constant::Type(of) => Value::Type(of.clone()),
            Constant::List(items) => Value::List(List::Constant(items)),
            Constant::Map(entries) => Value::Map(Map::Constant(entries)),
        }
    }
}
