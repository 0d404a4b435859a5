//! Quantities. Models k8s.io/apiserver/pkg/cel/library/quantity.go.
use std::cmp::Ordering;

use super::{Body, Result, error, no_overload, semver};
use crate::quantity::{Format, Quantity};
use crate::special::Special;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "quantity" => |args| match args[0].as_str().map(Quantity::parse) {
            Some(Ok(of)) => Ok(made(of)),
            Some(Err(why)) => error(why.to_string()),
            None => no_overload(),
        },
        "isQuantity" => |args| args[0].as_str().map_or_else(no_overload, |text| Ok(Value::Bool(Quantity::parse(text).is_ok()))),
        "sign" => |args| on(args, |of| Ok(Value::Int(i64::from(of.sign())))),
        "isInteger" => |args| on(args, |of| Ok(Value::Bool(of.as_whole().is_some()))),
        "asInteger" => |args| on(args, |of| of.as_whole().map_or_else(|| error("cannot convert value to integer"), |i| Ok(Value::Int(i)))),
        "asApproximateFloat" => |args| on(args, |of| Ok(Value::Double(of.as_f64()))),
        "isGreaterThan" => |args| order(args, |order| Value::Bool(order.is_gt())),
        "isLessThan" => |args| order(args, |order| Value::Bool(order.is_lt())),
        "compareTo" => |args| order(args, |order| Value::Int(order as i64)),
        "add" => |args| two(args, |a, b| a + b),
        "sub" => |args| two(args, |a, b| a - b),
        _ => return None,
    })
}

fn made<'a>(of: Quantity) -> Value<'a> {
    Value::special(Special::Quantity(of))
}

fn on<'a>(args: &[Value<'a>], run: fn(&Quantity) -> Result<'a>) -> Result<'a> {
    args[0].as_quantity().map_or_else(no_overload, run)
}

fn two<'a>(args: &[Value<'a>], run: fn(Quantity, Quantity) -> Quantity) -> Result<'a> {
    let Some(a) = args[0].as_quantity() else { return no_overload() };
    let b = match &args[1] {
        Value::Int(i) => Quantity::from_whole(*i, Format::DecimalExponent),
        other => match other.as_quantity() {
            Some(b) => *b,
            None => return no_overload(),
        },
    };
    Ok(made(run(*a, b)))
}

/// Of quantities or of versions: the functions have the same names.
fn order<'a>(args: &[Value<'a>], answer: fn(Ordering) -> Value<'a>) -> Result<'a> {
    match (args[0].as_quantity(), args[1].as_quantity()) {
        (Some(a), Some(b)) => Ok(answer(a.cmp(b))),
        _ => semver::order(args).map_or_else(no_overload, |order| Ok(answer(order))),
    }
}
