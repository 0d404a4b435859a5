//! Optional values. Models cel-go cel/library.go and common/types/optional.go; `or` and `orValue` are the evaluator's.
use super::{Body, Result, error, no_overload};
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "optional.of" => |args| Ok(Value::optional(Some(args[0].clone()))),
        "optional.ofNonZeroValue" => |args| Ok(Value::optional((!is_zero(&args[0])).then(|| args[0].clone()))),
        "optional.none" => |_| Ok(Value::optional(None)),
        "value" => value,
        "hasValue" => |args| match &args[0] {
            Value::Optional(of) => Ok(Value::Bool(of.is_some())),
            _ => no_overload(),
        },
        "first" => |args| end(args, |len| len.checked_sub(1).map(|_| 0)),
        "last" => |args| end(args, |len| len.checked_sub(1)),
        "optional.unwrap" | "unwrapOpt" => unwrap,
        _ => return None,
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) | Value::Optional(None) => true,
        Value::Double(d) => *d == 0.0,
        Value::Optional(Some(of)) => is_zero(of),
        Value::Timestamp(at) => *at == crate::time::Timestamp { seconds: crate::time::SECONDS_MIN, nanos: 0 },
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == Some(0),
        _ => false,
    }
}

fn value<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Optional(Some(of)) => Ok((**of).clone()),
        Value::Optional(None) => error("optional.none() dereference"),
        _ => no_overload(),
    }
}

fn end<'a>(args: &[Value<'a>], which: fn(usize) -> Option<usize>) -> Result<'a> {
    let Value::List(list) = &args[0] else { return no_overload() };
    Ok(Value::optional(which(list.len()).and_then(|i| list.get(i))))
}

fn unwrap<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Value::List(list) = &args[0] else { return no_overload() };
    let mut out = Vec::new();
    for item in list.iter() {
        match item {
            Value::Optional(Some(of)) => out.push((*of).clone()),
            Value::Optional(None) => {}
            other => return error(format!("value {other} is not optional")),
        }
    }
    Ok(Value::from(out))
}
