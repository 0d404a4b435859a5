//! Turns any document into an object of its kind, exactly as a trip through upstream's Go struct would leave it.
//!
//! Wrong types are refused with Go's message; unknown fields are dropped and reported; zero values are dropped or written as the
//! field's tags say (`omitempty`, `omitzero`, pointer), so that two documents that mean the same become the same tree.
//! Models encoding/json (Go 1.26) as forked by sigs.k8s.io/json, and the `UnmarshalJSON` of metav1.Time, IntOrString and Quantity.
use std::fmt::Write as _;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Field, Node, Schema, StructRef, time};
use crate::codec::{STRICT_ERRORS_MAX, quote};
use crate::quantity::Quantity;
use crate::tree::{Key, Object, Tree};

/// An object of its kind.
#[derive(Debug)]
pub struct Decoded {
    pub tree: Tree,
    /// Strict errors, ready to show: `unknown field "spec.foo"`. Not sorted: in the order of the keys.
    pub unknown: Vec<String>,
}

/// A value of the wrong type. The text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

/// Makes `tree` an object that `schema` describes.
pub fn decode(schema: &Schema, tree: Tree) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder { go_path: Vec::new(), holder: None, strict_path: String::new(), unknown: Vec::new() };
    let tree = decoder.value(schema, tree)?;
    Ok(Decoded { tree, unknown: decoder.unknown })
}

struct Decoder<'s> {
    /// Field names from the root, without indices and map keys: how Go's messages show the place.
    go_path: Vec<&'s str>,
    /// The struct that holds the field at the end of `go_path`.
    holder: Option<&'s str>,
    /// As strict errors show the place.
    strict_path: String,
    unknown: Vec<String>,
}

impl<'s> Decoder<'s> {
    fn mismatch(&self, found: &str, schema: &Schema) -> DecodeError {
        self.mismatch_of(found, &schema.go_type)
    }

    fn mismatch_of(&self, found: &str, go_type: &str) -> DecodeError {
        DecodeError(match self.holder {
            Some(holder) => {
                format!("json: cannot unmarshal {found} into Go struct field {holder}.{} of type {go_type}", self.go_path.join("."))
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
        })
    }

    fn value(&mut self, schema: &'s Schema, tree: Tree) -> Result<Tree, DecodeError> {
        if tree.is_null() {
            return Ok(zero(schema));
        }
        match &schema.node {
            Node::Any => Ok(tree),
            Node::Object(fields) => match tree {
                Tree::Object(object) => self.object(fields, object),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::Map(values) => match tree {
                Tree::Object(object) => self.map(values, object),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::List(items) => match tree {
                Tree::Array(array) => self.list(items, array),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::String => match tree {
                Tree::String(_) => Ok(tree),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::Boolean => match tree {
                Tree::Bool(_) => Ok(tree),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::Integer { bits, signed } => match tree {
                Tree::Integer(i) if fits(i, *bits, *signed) => Ok(tree),
                Tree::Integer(i) => Err(self.mismatch(&format!("number {i}"), schema)),
                Tree::Float(f) => Err(self.mismatch(&format!("number {}", number_text(f)), schema)),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::Number => match tree {
                Tree::Integer(_) | Tree::Float(_) => Ok(tree),
                other => Err(self.mismatch(go_name(&other), schema)),
            },
            Node::Bytes => self.bytes(schema, tree),
            Node::IntOrString => match tree {
                Tree::String(_) => Ok(tree),
                Tree::Integer(i) if i32::try_from(i).is_ok() => Ok(tree),
                other => Err(self.mismatch_of(&found_number(&other), "int32")),
            },
            Node::Quantity => quantity(tree),
            Node::Time => self.time_text(&tree, time::seconds),
            Node::MicroTime => self.time_text(&tree, time::micros),
            Node::Duration => self.time_text(&tree, time::duration),
        }
    }

    /// Keys and fields are both in order: one pass over both.
    fn object(&mut self, fields: &'s StructRef, object: Object) -> Result<Tree, DecodeError> {
        let strict = self.strict_path.len();
        let (holder, depth) = (self.holder, self.go_path.len());
        let mut out = Vec::with_capacity(object.len());
        let mut next = 0;
        for (name, value) in object {
            let Some(place) = fields.place(name.as_bytes()) else {
                self.report_unknown(&name);
                continue;
            };
            if value.is_null() {
                continue;
            }
            absent(&fields.fields[next..place], &mut out);
            next = place + 1;
            let field = &fields.fields[place];
            self.holder = Some(fields.short_name());
            if !field.embedded_in.is_empty() {
                self.go_path.push(&field.embedded_in);
            }
            self.go_path.push(&field.name);
            self.enter(&name);
            let value = self.value(&field.schema, value)?;
            self.strict_path.truncate(strict);
            self.go_path.truncate(depth);
            self.holder = holder;
            if !is_left_out(field, &value) {
                out.push((name, value));
            }
        }
        absent(&fields.fields[next..], &mut out);
        out.shrink_to_fit();
        Ok(Tree::Object(Object::from_sorted(out)))
    }

    fn enter(&mut self, name: &str) {
        if !self.strict_path.is_empty() {
            self.strict_path.push('.');
        }
        self.strict_path.push_str(name);
    }

    fn report_unknown(&mut self, name: &str) {
        if self.unknown.len() < STRICT_ERRORS_MAX {
            let path = if self.strict_path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.strict_path) };
            self.unknown.push(format!("unknown field {}", quote(&path)));
        }
    }

    fn map(&mut self, values: &'s Schema, object: Object) -> Result<Tree, DecodeError> {
        let strict = self.strict_path.len();
        let mut out = Vec::with_capacity(object.len());
        for (key, value) in object {
            self.enter(&key);
            // Stored bytes cannot tell nothing from empty; a map's entry is kept.
            let value = if value.is_null() && matches!(values.node, Node::Bytes) { "".into() } else { self.value(values, value)? };
            out.push((key, value));
            self.strict_path.truncate(strict);
        }
        Ok(Tree::Object(Object::from_sorted(out)))
    }

    fn list(&mut self, items: &'s Schema, array: Vec<Tree>) -> Result<Tree, DecodeError> {
        let strict = self.strict_path.len();
        let mut out = Vec::with_capacity(array.len());
        for (i, item) in array.into_iter().enumerate() {
            _ = write!(self.strict_path, "[{i}]"); // a text takes everything
            out.push(self.value(items, item)?);
            self.strict_path.truncate(strict);
        }
        Ok(Tree::Array(out))
    }

    fn time_text(&self, tree: &Tree, read: impl Fn(&str) -> Result<String, String>) -> Result<Tree, DecodeError> {
        let Tree::String(text) = tree else {
            return Err(self.mismatch_of(go_name(tree), "string"));
        };
        read(text).map(Tree::from).map_err(DecodeError)
    }

    fn bytes(&self, schema: &Schema, tree: Tree) -> Result<Tree, DecodeError> {
        let Tree::String(text) = &tree else {
            return Err(self.mismatch(go_name(&tree), schema));
        };
        // Go's decoder skips line breaks; what it prints has none.
        let text: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        match STANDARD.decode(&text) {
            Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
            Err(e) => Err(DecodeError(format!("illegal base64 data at input byte {}", illegal_at(&text, &e)))),
        }
    }
}

fn illegal_at(text: &str, error: &base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
    }
}

/// What Go prints of fields that nothing was read into.
fn absent(fields: &[Field], out: &mut Vec<(Key, Tree)>) {
    for field in fields {
        let value = match field.pointer {
            _ if field.omit_empty && (field.pointer || !always_written(&field.schema)) => continue,
            true => Tree::Null,
            false => zero(&field.schema),
        };
        if !is_left_out(field, &value) {
            out.push((Key::of(&field.name), value));
        }
    }
}

fn is_left_out(field: &Field, value: &Tree) -> bool {
    !field.pointer && (field.omit_empty && is_empty(&field.schema, value) || field.omit_zero && is_zero(&field.schema, value))
}

/// Go's omitempty never leaves out a struct.
fn always_written(schema: &Schema) -> bool {
    matches!(schema.node, Node::Object(_) | Node::IntOrString | Node::Quantity | Node::Time | Node::MicroTime | Node::Duration | Node::Any)
}

fn is_empty(schema: &Schema, value: &Tree) -> bool {
    !always_written(schema)
        && match value {
            Tree::Null => true,
            Tree::Bool(b) => !b,
            Tree::Integer(i) => *i == 0,
            Tree::Float(f) => *f == 0.0,
            Tree::String(s) => s.is_empty(),
            Tree::Array(a) => a.is_empty(),
            Tree::Object(o) => o.is_empty(),
        }
}

fn is_zero(schema: &Schema, value: &Tree) -> bool {
    match value {
        // The zero of a struct or list type, compared in its printed form.
        Tree::Array(_) => false,
        value => *value == zero(schema),
    }
}

/// What Go prints for a variable that nothing was read into.
pub fn zero(schema: &Schema) -> Tree {
    match &schema.node {
        Node::Object(fields) => {
            let mut out = Vec::new();
            absent(&fields.fields, &mut out);
            Tree::Object(Object::from_sorted(out))
        }
        Node::String => "".into(),
        Node::Integer { .. } | Node::Number | Node::IntOrString => 0.into(),
        Node::Boolean => false.into(),
        Node::Quantity => "0".into(),
        Node::Duration => "0s".into(),
        Node::Bytes | Node::Map(_) | Node::List(_) | Node::Time | Node::MicroTime | Node::Any => Tree::Null,
    }
}

/// What Go's decoder calls a value.
pub fn go_name(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "null",
        Tree::Bool(_) => "bool",
        Tree::Integer(_) | Tree::Float(_) => "number",
        Tree::String(_) => "string",
        Tree::Array(_) => "array",
        Tree::Object(_) => "object",
    }
}

fn number_text(float: f64) -> String {
    if float.fract() == 0.0 && float.abs() < 1e15 { format!("{float:.1}") } else { format!("{float}") }
}

fn fits(value: i64, bits: u8, signed: bool) -> bool {
    match (bits, signed) {
        (64, true) => true,
        (64, false) => value >= 0,
        (bits, true) => (-(1i64 << (bits - 1))..1i64 << (bits - 1)).contains(&value),
        (bits, false) => (0..1i64 << bits).contains(&value),
    }
}

/// As `found`, with the text of a number, which Go adds where it wants an integer.
fn found_number(tree: &Tree) -> String {
    match tree {
        Tree::Integer(i) => format!("number {i}"),
        Tree::Float(f) => format!("number {}", number_text(*f)),
        other => go_name(other).to_owned(),
    }
}

fn quantity(tree: Tree) -> Result<Tree, DecodeError> {
    let text = match &tree {
        Tree::String(text) => text.to_string(),
        Tree::Integer(i) => i.to_string(),
        Tree::Float(f) => f.to_string(),
        other => String::from_utf8(other.to_json()).expect("JSON is UTF-8"),
    };
    Quantity::from_str(&text).map(|q| q.to_string().into()).map_err(|e| DecodeError(e.to_string()))
}
