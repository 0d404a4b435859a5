//! Arithmetic, order, size, containment. Models cel-go common/types and common/stdlib.
use std::cmp::Ordering;

use super::{Body, Result, error, no_overload};
use crate::value::{Octets, Text, Value};

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "!_" => not,
        "-_" => negate,
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => modulo,
        "_<_" => |args| compare(args, Ordering::is_lt),
        "_<=_" => |args| compare(args, Ordering::is_le),
        "_>_" => |args| compare(args, Ordering::is_gt),
        "_>=_" => |args| compare(args, Ordering::is_ge),
        "@in" => contained,
        "size" => size,
        "type" => |args| Ok(Value::Type(args[0].type_of())),
        "cel.@mapInsert" => map_insert,
        _ => return None,
    })
}

fn not<'a>(args: &[Value<'a>]) -> Result<'a> {
    args[0].as_bool().map_or_else(no_overload, |b| Ok(Value::Bool(!b)))
}

fn overflow<'a>() -> Result<'a> {
    error("integer overflow")
}

fn int<'a>(result: Option<i64>) -> Result<'a> {
    result.map_or_else(overflow, |i| Ok(Value::Int(i)))
}

fn uint<'a>(result: Option<u64>) -> Result<'a> {
    result.map_or_else(|| error("unsigned integer overflow"), |u| Ok(Value::Uint(u)))
}

fn duration<'a>(result: Option<i64>) -> Result<'a> {
    result.map_or_else(|| error("duration overflow"), |nanos| Ok(Value::Duration(nanos)))
}

fn negate<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Int(i) => int(i.checked_neg()),
        Value::Double(d) => Ok(Value::Double(-d)),
        Value::Duration(nanos) => duration(nanos.checked_neg()),
        _ => no_overload(),
    }
}

pub(crate) fn add<'a>(args: &[Value<'a>]) -> Result<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            let mut text = String::with_capacity(a.len() + b.len());
            text.push_str(a);
            text.push_str(b);
            Ok(Value::String(Text::Shared(text.into())))
        }
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes(Octets::Shared([&**a, &**b].concat().into()))),
        (Value::List(a), Value::List(b)) => Ok(Value::List(a.plus(b)?)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(*b)),
        (Value::Timestamp(at), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(at)) => {
            at.plus(*nanos).map_or_else(|| error("timestamp overflow"), |at| Ok(Value::Timestamp(at)))
        }
        _ => no_overload(),
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Result<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.since(*b).map_or_else(overflow, |nanos| Ok(Value::Duration(nanos))),
        (Value::Timestamp(at), Value::Duration(nanos)) => match nanos.checked_neg().and_then(|nanos| at.plus(nanos)) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => error("timestamp overflow"),
        },
        _ => no_overload(),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Result<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Result<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => error("division by zero"),
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Result<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => error("modulus by zero"),
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

fn compare<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<'a> {
    match args[0].compare(&args[1]) {
        Some(Some(order)) => Ok(Value::Bool(holds(order))),
        Some(None) => error("NaN values cannot be ordered"),
        None => no_overload(),
    }
}

fn contained<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[1] {
        Value::List(list) => list.contains(&args[0]).map(Value::Bool),
        Value::Map(map) => map.contains(&args[0]).map(Value::Bool),
        Value::Lazy(of) => match args[0].as_str() {
            Some(name) => Ok(Value::Bool(of.get(name).is_some())),
            None => no_overload(),
        },
        _ => no_overload(),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        sized @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) => Ok(Value::Int(sized.size().unwrap_or(0) as i64)),
        _ => error("no such overload: size"),
    }
}

/// `accumulated + {key: value}`, where no key may come twice.
fn map_insert<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Value::Map(map) = &args[0] else { return no_overload() };
    let mut made = map.to_entries();
    insert_into(&mut made, &args[1..])?;
    Ok(Value::Map(crate::map::Map::made(made)))
}

/// What `cel.@mapInsert` adds: a key and its value, or all entries of a map.
pub(crate) fn insert_into<'a>(
    made: &mut crate::map::Entries<'a>,
    args: &[Value<'a>],
) -> std::result::Result<(), crate::evaluate::EvaluationError> {
    let mut insert = |key: Value<'a>, value: Value<'a>| {
        if made.contains(&key) {
            return Err(crate::evaluate::EvaluationError::new(format!("insert failed: key {key} already exists")));
        }
        made.set(key, value);
        Ok(())
    };
    match args {
        [key, value] => insert(key.clone(), value.clone()),
        [Value::Map(more)] => more.entries().try_for_each(|(key, value)| insert(key, value)),
        _ => Err(crate::evaluate::EvaluationError::new("no such overload")),
    }
}
