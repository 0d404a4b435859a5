//! What a call did cost. Models cel-go interpreter/runtimecost.go, ext/{lists,sets}.go and `CallCost` of
//! k8s.io/apiserver/pkg/cel/library/cost.go.
use super::{LIST, PER_CHARACTER, PER_PATTERN_CHARACTER, SizeEstimate, library, scaled};
use crate::evaluate::EvaluationError;
use crate::special::Special;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvaluationError>;

/// How the cost of a call is found.
pub(crate) enum Rule {
    Fixed(u64),
    By(for<'a> fn(&[Value<'a>], &Outcome<'a>) -> u64),
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rule")
    }
}

impl Rule {
    pub fn cost<'a>(&self, args: &[Value<'a>], outcome: &Outcome<'a>) -> u64 {
        match self {
            Rule::Fixed(cost) => *cost,
            Rule::By(find) => find(args, outcome),
        }
    }

    /// The rule of an overload; `""` where it is known at run time only.
    pub fn of(function: &str, overload: &str) -> Rule {
        if let Some(rule) = of_overload(overload) {
            return rule;
        }
        match function {
            "check" => Rule::Fixed(library::CHECK),
            "fieldSelector" | "labelSelector" => Rule::By(|args, _| library::selector(SizeEstimate::fixed(size(&args[1]))).max),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => Rule::By(|args, _| traversal(&args[0])),
            "url"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "jsonpatch.escapeKey"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver" => Rule::By(|args, _| scaled(size(&args[0]), PER_CHARACTER)),
            "ip" if overload == "cidr_ip" => Rule::Fixed(1),
            "ip" => Rule::By(|args, _| scaled(size(&args[0]), PER_CHARACTER)),
            "replace" | "split" | "ip.isCanonical" => Rule::By(|args, _| scaled(size(&args[0]), 2.0 * PER_CHARACTER)),
            "join" => Rule::By(|_, outcome| scaled(outcome.as_ref().map_or(1, size), 2.0 * PER_CHARACTER)),
            "find" | "findAll" => Rule::By(|args, _| pattern(&args[0], size(&args[1]))),
            "containsIP" => Rule::By(|args, _| {
                let (network, other) = (size(&args[0]), size(&args[1]));
                let parsed = if args[1].as_str().is_some() { scaled(other, PER_CHARACTER) } else { 0 };
                scaled(network * 2, PER_CHARACTER) + parsed
            }),
            "containsCIDR" => Rule::By(|args, _| {
                let (network, other) = (size(&args[0]), size(&args[1]));
                let parsed = if args[1].as_str().is_some() { scaled(other, PER_CHARACTER) } else { 0 };
                scaled(network * 2, PER_CHARACTER) + scaled(network, PER_CHARACTER) + 1 + parsed
            }),
            "validate" => Rule::By(|args, _| match args[0].as_special() {
                Some(Special::Format(format)) => pattern(&args[1], format.pattern_length),
                _ => 1,
            }),
            "_==_" => Rule::By(|args, _| match &args[0] {
                Value::Special(_) | Value::Authorizer(_) | Value::ResourceCheck(..) => 1,
                _ => smaller(args),
            }),
            "_!=_" => Rule::By(|args, _| smaller(args)),
            _ => Rule::Fixed(1),
        }
    }
}

fn of_overload(overload: &str) -> Option<Rule> {
    Some(match overload {
        "starts_with_string" | "ends_with_string" => Rule::By(|args, _| scaled(size(&args[1]), PER_CHARACTER)),
        "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => {
            Rule::By(|args, _| scaled(size(&args[0]), PER_CHARACTER))
        }
        "in_list" => Rule::By(|args, _| size(&args[1])),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => Rule::By(|args, _| smaller(args)),
        "add_string" | "add_bytes" => Rule::By(|args, _| scaled(size(&args[0]) + size(&args[1]), PER_CHARACTER)),
        "matches" | "matches_string" => Rule::By(|args, _| pattern(&args[0], size(&args[1]))),
        "contains_string" => Rule::By(|args, _| scaled(size(&args[0]), PER_CHARACTER) * scaled(size(&args[1]), PER_CHARACTER)),
        "list_sets_contains_list" | "list_sets_intersects_list" => Rule::By(|args, _| sets(args, 1.0)),
        "list_sets_equivalent_list" => Rule::By(|args, _| sets(args, 2.0)),
        "list_slice" | "lists_range" | "list_reverse" => Rule::By(|_, outcome| allocated(1.0, outcome.as_ref().map_or(1, size))),
        "list_flatten" | "list_flatten_int" => Rule::By(|args, _| {
            let depth = args.get(1).and_then(Value::as_int).unwrap_or(1) as f64;
            allocated(if depth < 0.0 { 1.0 } else { depth }, size(&args[0]))
        }),
        "list_distinct" => Rule::By(|args, _| self_compared(&args[0])),
        _ if overload.starts_with("list_") && overload.ends_with("_sort") => Rule::By(|args, _| self_compared(&args[0])),
        _ if overload.ends_with("_sortByAssociatedKeys") => Rule::By(|args, _| self_compared(&args[1])),
        _ => return None,
    })
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Optional(Some(of)) => size(of),
        other => other.size().unwrap_or(1),
    }
}

fn smaller(args: &[Value]) -> u64 {
    scaled(size(&args[0]).min(size(&args[1])), PER_CHARACTER)
}

fn pattern(text: &Value, pattern_length: u64) -> u64 {
    let text = ((1.0 + size(text) as f64) * PER_CHARACTER).ceil() as u64;
    text.saturating_mul(scaled(pattern_length, PER_PATTERN_CHARACTER))
}

fn sets(args: &[Value], factor: f64) -> u64 {
    1 + (size(&args[0]).saturating_mul(size(&args[1])) as f64 * factor) as u64
}

fn allocated(factor: f64, size: u64) -> u64 {
    ((size as f64 * factor) as u64).saturating_add(1 + LIST)
}

fn self_compared(list: &Value) -> u64 {
    let Value::List(items) = list else { return 1 };
    let count = items.len() as u64;
    let textual = matches!(items.get(0), Some(Value::String(_) | Value::Bytes(_)));
    allocated(if textual { 2.0 + PER_CHARACTER } else { 2.0 }, count.saturating_mul(count))
}

/// Of a value as a tree of data: what is textual by length, all else 1.
fn traversal(value: &Value) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * PER_CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * PER_CHARACTER) as u64,
        Value::List(list) => list.iter().map(|item| traversal(&item)).sum(),
        Value::Map(map) => map.entries().map(|(key, value)| traversal(&key) + traversal(&value)).sum(),
        _ => 1,
    }
}
