//! Values as the merge compares and prints them. Models structured-merge-diff/v6/value/value.go, and Go's `%v`, `%#v` and `%T` for messages.
use crate::codec::quote;
use crate::tree::Tree;

/// Whether two values mean the same: whole floats equal integers.
pub fn equal(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Integer(i), Tree::Float(f)) | (Tree::Float(f), Tree::Integer(i)) => *i as f64 == *f,
        (Tree::Array(a), Tree::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Tree::Object(a), Tree::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|((k, a), (l, b))| k == l && equal(a, b))
        }
        (a, b) => a == b,
    }
}

fn number(f: f64) -> String {
    if f.fract() == 0.0 && f.abs() < 1e21 { format!("{f:.0}") } else { format!("{f}") }
}

/// As paths show a value.
pub fn display(value: &Tree) -> String {
    match value {
        Tree::Null => "null".into(),
        Tree::Bool(b) => b.to_string(),
        Tree::Integer(i) => i.to_string(),
        Tree::Float(f) => number(*f),
        Tree::String(s) => quote(s),
        Tree::Array(items) => format!("[{}]", items.iter().map(display).collect::<Vec<_>>().join(",")),
        Tree::Object(fields) => fields.iter().map(|(name, value)| format!("{name}={}", display(value))).collect(),
    }
}

/// Go's `%v`.
fn plain(value: &Tree) -> String {
    match value {
        Tree::Null => "<nil>".into(),
        Tree::String(s) => s.to_string(),
        Tree::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Tree::Object(fields) => {
            format!("map[{}]", fields.iter().map(|(name, value)| format!("{name}:{}", plain(value))).collect::<Vec<_>>().join(" "))
        }
        scalar => display(scalar),
    }
}

/// Go's `%#v`.
fn syntax(value: &Tree) -> String {
    match value {
        Tree::Null => "interface {}(nil)".into(),
        Tree::String(s) => quote(s),
        Tree::Array(items) => format!("[]interface {{}}{{{}}}", items.iter().map(syntax).collect::<Vec<_>>().join(", ")),
        Tree::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{}", quote(name), syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        scalar => display(scalar),
    }
}

/// `%v` of upstream's wrapper around the value.
pub fn wrapped(value: &Tree) -> String {
    format!("&{{{}}}", plain(value))
}

/// `%#v` of the same.
pub fn wrapped_syntax(value: &Tree) -> String {
    format!("&value.valueUnstructured{{Value:{}}}", syntax(value))
}

/// Go's `%T`.
pub fn go_type(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "<nil>",
        Tree::Bool(_) => "bool",
        Tree::Integer(_) | Tree::Float(_) => "float64",
        Tree::String(_) => "string",
        Tree::Array(_) => "[]interface {}",
        Tree::Object(_) => "map[string]interface {}",
    }
}
