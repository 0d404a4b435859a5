//! Functions of lists and sets. Models cel-go ext/{lists,sets}.go and k8s.io/apiserver/pkg/cel/library/lists.go.
use std::cmp::Ordering;

use super::operators::add;
use super::{Body, Result, error, no_overload, strings};
use crate::evaluate::EvaluationError;
use crate::list::List;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "isSorted" => is_sorted,
        "sum" => sum,
        "min" => |args| best(args, "min", Ordering::is_gt),
        "max" => |args| best(args, "max", Ordering::is_lt),
        "indexOf" => |args| index_of(args, false),
        "lastIndexOf" => |args| index_of(args, true),
        "includes" => includes,
        "slice" => slice,
        "flatten" => flatten,
        "sort" => |args| with_list(args, |list| sort_by(list, list)),
        "@sortByAssociatedKeys" => |args| match (&args[0], &args[1]) {
            (Value::List(list), Value::List(keys)) => sort_by(list, keys),
            _ => no_overload(),
        },
        "lists.range" => range,
        "reverse" => |args| with_list(args, |list| Ok(Value::from((0..list.len()).rev().filter_map(|i| list.get(i)).collect::<Vec<_>>()))),
        "distinct" => |args| with_list(args, distinct),
        "sets.contains" => |args| two_lists(args, contains_all),
        "sets.equivalent" => |args| two_lists(args, |a, b| Ok(contains_all(a, b)? && contains_all(b, a)?)),
        "sets.intersects" => |args| two_lists(args, intersects),
        _ => return None,
    })
}

fn with_list<'a>(args: &[Value<'a>], run: fn(&List<'a>) -> Result<'a>) -> Result<'a> {
    match &args[0] {
        Value::List(list) => run(list),
        _ => no_overload(),
    }
}

type Test<'a> = fn(&List<'a>, &List<'a>) -> std::result::Result<bool, EvaluationError>;

fn two_lists<'a>(args: &[Value<'a>], run: Test<'a>) -> Result<'a> {
    match (&args[0], &args[1]) {
        (Value::List(a), Value::List(b)) => run(a, b).map(Value::Bool),
        _ => no_overload(),
    }
}

fn contains_all<'a>(list: &List<'a>, of: &List<'a>) -> std::result::Result<bool, EvaluationError> {
    for item in of.iter() {
        if !list.contains(&item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(a: &List<'a>, b: &List<'a>) -> std::result::Result<bool, EvaluationError> {
    Ok(a.iter().any(|item| b.contains(&item).unwrap_or(false)))
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Value::List(list) = &args[0] else { return no_overload() };
    let mut before: Option<Value> = None;
    for item in list.iter() {
        if let Some(before) = &before {
            match before.compare(&item) {
                Some(Some(Ordering::Greater)) => return Ok(Value::Bool(false)),
                Some(_) => {}
                None => return no_overload(),
            }
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>]) -> Result<'a> {
    sum_from(args, Value::Int(0))
}

fn sum_from<'a>(args: &[Value<'a>], empty: Value<'a>) -> Result<'a> {
    let Value::List(list) = &args[0] else { return no_overload() };
    let mut total: Option<Value> = None;
    for item in list.iter() {
        total = Some(match total {
            None => item.sound()?,
            Some(total) => add(&[total, item.sound()?])?,
        });
    }
    Ok(total.unwrap_or(empty))
}

/// What runs an overload that differs from its function: the sum of an empty list has the elements' type.
pub(crate) fn overload_body(overload: &str) -> Option<Body> {
    Some(match overload {
        "list_uint_sum_uint" => |args| sum_from(args, Value::Uint(0)),
        "list_double_sum_double" => |args| sum_from(args, Value::Double(0.0)),
        "list_duration_sum_duration" => |args| sum_from(args, Value::Duration(0)),
        _ => return None,
    })
}

fn best<'a>(args: &[Value<'a>], name: &str, replaces: fn(Ordering) -> bool) -> Result<'a> {
    let Value::List(list) = &args[0] else { return no_overload() };
    let mut best: Option<Value> = None;
    for item in list.iter() {
        let item = item.sound()?;
        best = Some(match best {
            None => item,
            Some(best) => match best.compare(&item) {
                Some(Some(order)) if replaces(order) => item,
                Some(_) => best,
                None => return no_overload(),
            },
        });
    }
    best.map_or_else(|| error(format!("{name} called on empty list")), Ok)
}

fn index_of<'a>(args: &[Value<'a>], last: bool) -> Result<'a> {
    let Value::List(list) = &args[0] else { return strings::index_of(args, last) };
    let is = |i: &usize| list.get(*i).is_some_and(|item| item.equals(&args[1]).unwrap_or(false));
    let found = if last { (0..list.len()).rev().find(is) } else { (0..list.len()).find(is) };
    Ok(Value::Int(found.map_or(-1, |i| i as i64)))
}

fn includes<'a>(args: &[Value<'a>]) -> Result<'a> {
    let is = |item: &Value<'a>| item.equals(&args[1]).unwrap_or(false);
    Ok(Value::Bool(match &args[0] {
        Value::List(list) => list.iter().any(|item| is(&item)),
        other => is(other),
    }))
}

fn slice<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Value::List(list), Value::Int(start), Value::Int(end)) = (&args[0], &args[1], &args[2]) else { return no_overload() };
    if *start < 0 || *end < 0 {
        return error(format!("cannot slice({start}, {end}), negative indexes not supported"));
    }
    if start > end {
        return error(format!("cannot slice({start}, {end}), start index must be less than or equal to end index"));
    }
    if (list.len() as i64) < *end {
        return error(format!("cannot slice({start}, {end}), list is length {}", list.len()));
    }
    Ok(Value::from((*start as usize..*end as usize).filter_map(|i| list.get(i)).collect::<Vec<_>>()))
}

fn flatten<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Value::List(list) = &args[0] else {
        let depth = args.get(1).map(|depth| depth.type_of().to_string()).unwrap_or_default();
        return error(format!("no such overload: {}.flatten({depth})", args[0].type_of()));
    };
    let depth = match args.get(1) {
        None => 1,
        Some(Value::Int(depth)) if *depth < 0 => return error("level must be non-negative"),
        Some(Value::Int(depth)) => *depth,
        Some(_) => return no_overload(),
    };
    let mut out = Vec::new();
    flatten_into(list, depth, &mut out);
    Ok(Value::from(out))
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) {
    for item in list.iter() {
        match &item {
            Value::List(inner) if depth > 0 => flatten_into(inner, depth - 1, out),
            _ => out.push(item),
        }
    }
}

fn sort_by<'a>(list: &List<'a>, keys: &List<'a>) -> Result<'a> {
    if list.len() != keys.len() {
        return error(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        ));
    }
    let keys: Vec<Value> = keys.iter().collect();
    let Some(first) = keys.first() else { return Ok(Value::List(list.clone())) };
    if first.compare(first).is_none() {
        return error("list elements must be comparable");
    }
    if keys.iter().any(|key| key.type_of() != first.type_of()) {
        return error("list elements must have the same type");
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| keys[*a].compare(&keys[*b]).flatten().unwrap_or(Ordering::Equal));
    Ok(Value::from(order.into_iter().filter_map(|i| list.get(i)).collect::<Vec<_>>()))
}

/// Upstream allows ten million; an evaluation within its cost limit comes nowhere near.
const RANGE_MAX: i64 = 10_000_000;

fn range<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Value::Int(n) = &args[0] else { return no_overload() };
    if *n < 0 {
        return error(format!("lists.range: size must be non-negative, got {n}"));
    }
    if *n > RANGE_MAX {
        return error(format!("lists.range: size {n} exceeds maximum allowed ({RANGE_MAX})"));
    }
    Ok(Value::from((0..*n).map(Value::Int).collect::<Vec<_>>()))
}

fn distinct<'a>(list: &List<'a>) -> Result<'a> {
    let mut seen: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        if !seen.iter().any(|known| item.equals(known).unwrap_or(false)) {
            seen.push(item);
        }
    }
    Ok(Value::from(seen))
}
