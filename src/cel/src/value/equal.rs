//! When values are equal, and which is less. Models cel-go common/types: numbers of different types compare by what they mean.
use std::cmp::Ordering;

use super::Value;
use crate::evaluate::EvaluationError;
use crate::json::{Json, View};
use crate::list::List;
use crate::map::Map;

impl<'a> Value<'a> {
    /// `a == b`; values of different types are not equal, but for lists and maps of declared data, where upstream has no such overload.
    pub(crate) fn equals(&self, other: &Value<'a>) -> Result<bool, EvaluationError> {
        Ok(match (self, other) {
            (Value::Wrong(error), _) | (_, Value::Wrong(error)) => return Err((**error).clone()),
            (Value::Null, other) | (other, Value::Null) => other.is_null() && self.is_null(),
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => **a == **b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
            (Value::List(a), Value::List(b)) => return a.equals(b),
            (Value::Map(a), Value::Map(b)) => return a.equals(b),
            (Value::List(List::Json { typed: true, .. }), _) | (Value::Map(Map::Object { .. } | Map::Json { typed: true, .. }), _) => {
                return Err(EvaluationError::new("no such overload"));
            }
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => return a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Value::Special(a), Value::Special(b)) => return a.equals(b),
            (Value::Lazy(a), Value::Lazy(b)) => std::rc::Rc::ptr_eq(a, b),
            (Value::Authorizer(a), Value::Authorizer(b)) => std::ptr::addr_eq(*a, *b),
            (Value::ResourceCheck(a, x), Value::ResourceCheck(b, y)) => std::ptr::addr_eq(*a, *b) && x == y,
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        })
    }

    fn compare_numbers(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Int(a), Value::Double(b)) => int_with_double(*a, *b),
            (Value::Uint(a), Value::Double(b)) => uint_with_double(*a, *b),
            (Value::Double(a), Value::Int(b)) => int_with_double(*b, *a).map(Ordering::reverse),
            (Value::Double(a), Value::Uint(b)) => uint_with_double(*b, *a).map(Ordering::reverse),
            _ => None,
        }
    }

    /// Which is less; the outer `None` says that the two do not compare, the inner that one is not a number.
    pub(crate) fn compare(&self, other: &Value) -> Option<Option<Ordering>> {
        Some(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some((**a).cmp(&**b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
                self.compare_numbers(other)
            }
            _ => return None,
        })
    }
}

/// As upstream compares: rounded to a double, unless one is beyond the other's range.
fn with_double(a: f64, least: f64, most: f64, b: f64) -> Option<Ordering> {
    match () {
        () if b > most => Some(Ordering::Less),
        () if b < least => Some(Ordering::Greater),
        () => a.partial_cmp(&b),
    }
}

fn int_with_double(a: i64, b: f64) -> Option<Ordering> {
    with_double(a as f64, i64::MIN as f64, i64::MAX as f64, b)
}

fn uint_with_double(a: u64, b: f64) -> Option<Ordering> {
    with_double(a as f64, 0.0, u64::MAX as f64, b)
}

/// Whether two nodes say the same, whatever they were declared to be.
pub(crate) fn same_json(a: &dyn Json, b: &dyn Json) -> bool {
    match (a.view(), b.view()) {
        (View::Array, View::Array) => {
            a.len() == b.len() && (0..a.len()).all(|i| matches!((a.item(i), b.item(i)), (Some(a), Some(b)) if same_json(a, b)))
        }
        (View::Object, View::Object) => {
            a.len() == b.len()
                && (0..a.len()).all(|i| match a.entry(i) {
                    Some((name, value)) => b.field(name).is_some_and(|other| same_json(value, other)),
                    None => false,
                })
        }
        (a, b) => a == b,
    }
}
