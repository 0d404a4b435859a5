//! Values that leave as JSON.
use base64::Engine;

use super::Value;
use crate::evaluate::EvaluationError;
use crate::map::Map;

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

/// What a value of any depth may be turned into; expressions cannot nest deeper, data can.
const DEPTH_MAX: usize = 500;

impl Value<'_> {
    /// As JSON would have it: bytes in base64, durations and times as their strings. Types and what only functions look into cannot leave.
    pub fn to_plain(&self) -> Result<Plain, EvaluationError> {
        self.plain(DEPTH_MAX)
    }

    fn plain(&self, depth: usize) -> Result<Plain, EvaluationError> {
        let Some(below) = depth.checked_sub(1) else { return Err(EvaluationError::new("value is nested too deep")) };
        Ok(match self {
            Value::Null => Plain::Null,
            Value::Bool(b) => Plain::Bool(*b),
            Value::Int(i) => Plain::Int(*i),
            Value::Uint(u) => Plain::Uint(*u),
            Value::Double(d) => Plain::Double(*d),
            Value::String(text) => Plain::String(text.to_string()),
            Value::Bytes(bytes) => Plain::String(base64::engine::general_purpose::STANDARD.encode(&**bytes)),
            Value::Duration(nanos) => Plain::String(crate::time::print_duration(*nanos)),
            Value::Timestamp(at) => Plain::String(at.print()),
            Value::Optional(Some(value)) => value.plain(below)?,
            Value::Optional(None) => Plain::Null,
            Value::List(list) => Plain::List(list.iter().map(|item| item.plain(below)).collect::<Result<_, _>>()?),
            Value::Map(map) => {
                let keyed = !matches!(map, Map::Object { .. });
                let entry = |(key, value): (Value, Value)| {
                    let Value::String(key) = &key else {
                        return Err(EvaluationError::new(format!("map key {key} is of type {}, not string", key.type_of())));
                    };
                    let key = if keyed { key.to_string() } else { crate::unescape(key).unwrap_or_else(|| key.to_string()) };
                    Ok((key, value.plain(below)?))
                };
                let mut entries = map.entries().map(entry).collect::<Result<Vec<_>, _>>()?;
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Plain::Object(entries)
            }
            Value::Wrong(error) => return Err((**error).clone()),
            other => return Err(EvaluationError::new(format!("type conversion error from '{}' to JSON", other.type_of().runtime_name()))),
        })
    }
}
