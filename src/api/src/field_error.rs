//! One thing that is wrong with one field, worded as upstream words it.
//!
//! Models apimachinery/pkg/util/validation/field `Error`, `ErrorType` and `Path`.
use std::fmt;

use crate::tree::Tree;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a cause in `Status.details.causes`.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::Internal => "Internal error",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How the offending value is printed.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    /// Not printed at all.
    Omitted,
    /// Strings quoted, numbers and booleans plain, objects and lists as JSON.
    Tree(Tree),
    /// A value that prints itself (a quantity, an int-or-string): unquoted.
    Plain(Box<str>),
}

impl From<&str> for BadValue {
    fn from(s: &str) -> Self {
        BadValue::Tree(s.into())
    }
}
impl From<&String> for BadValue {
    fn from(s: &String) -> Self {
        BadValue::Tree(s.as_str().into())
    }
}
impl From<String> for BadValue {
    fn from(s: String) -> Self {
        BadValue::Tree(s.into())
    }
}
impl From<i32> for BadValue {
    fn from(i: i32) -> Self {
        BadValue::Tree(Tree::Integer(i.into()))
    }
}
impl From<i64> for BadValue {
    fn from(i: i64) -> Self {
        BadValue::Tree(Tree::Integer(i))
    }
}
impl From<bool> for BadValue {
    fn from(b: bool) -> Self {
        BadValue::Tree(Tree::Bool(b))
    }
}
impl From<&Tree> for BadValue {
    fn from(t: &Tree) -> Self {
        BadValue::Tree(t.clone())
    }
}
impl From<Option<&Tree>> for BadValue {
    fn from(t: Option<&Tree>) -> Self {
        BadValue::Tree(t.cloned().unwrap_or(Tree::Null))
    }
}
impl From<&crate::quantity::Quantity> for BadValue {
    fn from(q: &crate::quantity::Quantity) -> Self {
        BadValue::Tree(q.to_string().into())
    }
}

/// One error about one field. `Display` is upstream's `field.Error`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: ErrorType,
    pub path: String,
    pub value: BadValue,
    pub detail: String,
}

impl FieldError {
    pub fn new(kind: ErrorType, path: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.to_string(), value: value.into(), detail: detail.into() }
    }

    pub fn invalid(path: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, path, value, detail)
    }

    pub fn type_invalid(path: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::TypeInvalid, path, value, detail)
    }

    pub fn required(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Required, path: path.to_string(), value: BadValue::Omitted, detail: detail.into() }
    }

    pub fn forbidden(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Forbidden, path: path.to_string(), value: BadValue::Omitted, detail: detail.into() }
    }

    pub fn duplicate(path: impl fmt::Display, value: impl Into<BadValue>) -> Self {
        Self::new(ErrorType::Duplicate, path, value, "")
    }

    pub fn not_found(path: impl fmt::Display, value: impl Into<BadValue>) -> Self {
        Self::new(ErrorType::NotFound, path, value, "")
    }

    /// `supported` is printed in the given order: upstream's callers pass sorted sets or slices, as each does.
    pub fn not_supported<S: AsRef<str>>(path: impl fmt::Display, value: impl Into<BadValue>, supported: &[S]) -> Self {
        let mut detail = String::new();
        for (i, value) in supported.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            quote_into(&mut detail, value.as_ref());
        }
        Self::new(ErrorType::NotSupported, path, value, detail)
    }

    pub fn too_long(path: impl fmt::Display, bytes_max: usize) -> Self {
        let detail = format!("may not be more than {bytes_max} bytes");
        Self { kind: ErrorType::TooLong, path: path.to_string(), value: BadValue::Omitted, detail }
    }

    /// The same as checks that count characters word it.
    pub fn too_long_characters(path: impl fmt::Display, chars_max: usize) -> Self {
        let detail = format!("may not be more than {chars_max} characters");
        Self { kind: ErrorType::TooLong, path: path.to_string(), value: BadValue::Omitted, detail }
    }

    pub fn too_many(path: impl fmt::Display, actual: usize, max: usize) -> Self {
        Self::new(ErrorType::TooMany, path, actual as i64, format!("must have at most {max} item{}", if max == 1 { "" } else { "s" }))
    }

    pub fn internal(path: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self { kind: ErrorType::Internal, path: path.to_string(), value: BadValue::Omitted, detail: error.to_string() }
    }

    /// The `reason` of the cause in `Status.details.causes`.
    pub fn reason(&self) -> &'static str {
        self.kind.reason()
    }

    /// The message without the field's name: the `message` of the cause in `Status.details.causes`.
    pub fn body(&self) -> String {
        let mut out = String::from(self.kind.text());
        let silent = matches!(
            self.kind,
            ErrorType::Required | ErrorType::Forbidden | ErrorType::TooLong | ErrorType::Internal
        );
        if !silent {
            match &self.value {
                BadValue::Omitted => {}
                BadValue::Plain(s) => {
                    out.push_str(": ");
                    out.push_str(s);
                }
                BadValue::Tree(Tree::String(s)) => {
                    out.push_str(": ");
                    quote_into(&mut out, s);
                }
                BadValue::Tree(tree) => {
                    out.push_str(": ");
                    out.push_str(&shown(tree));
                }
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

/// The fields of a label selector stand in their own order, as in Go; of other structs they are sorted.
pub(crate) fn shown(tree: &Tree) -> String {
    match (tree.get("matchLabels"), tree.get("matchExpressions")) {
        (Some(labels), Some(expressions)) => format!(r#"{{"matchLabels":{},"matchExpressions":{}}}"#, go_json(labels), go_json(expressions)),
        _ => go_json(tree),
    }
}

/// JSON as Go writes it, fit for HTML.
fn go_json(tree: &Tree) -> String {
    let json = String::from_utf8_lossy(&tree.to_json()).into_owned();
    // Outside of strings JSON has none of these.
    match json.contains(['<', '>', '&']) {
        true => json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
        false => json,
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}

/// `a`, or `[a, b]`, each text once: what upstream's aggregate of field errors prints.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.len() {
        1 => texts.remove(0),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// A quoted string as Go's `%q` and `strconv.Quote` print it.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    quote_into(&mut out, s);
    out
}

fn quote_into(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || c == '\u{ad}' || c == '\u{feff}' || ('\u{2000}'..='\u{200f}').contains(&c) || c == '\u{a0}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Where a field stands: a chain of borrowed segments, printed only when an error is made.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself.
    pub const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    pub const fn new(name: &'a str) -> Path<'a> {
        Path { parent: None, segment: Segment::Field(name) }
    }

    /// `.name`
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Field(name) }
    }

    /// `[index]`
    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    /// `[key]`
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_first = match self.parent {
            None => true,
            Some(parent) => {
                parent.fmt(f)?;
                matches!(parent.segment, Segment::Root)
            }
        };
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Field(name) if is_first => f.write_str(name),
            Segment::Field(name) => write!(f, ".{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_as_upstream_prints_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let check = |error: FieldError, text: &str| assert_eq!(error.to_string(), text);
        check(
            FieldError::invalid(spec.child("replicas"), -1, "must be greater than or equal to 0"),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
        check(FieldError::required(first.child("name"), ""), "spec.containers[0].name: Required value");
        check(
            FieldError::not_supported(Path::ROOT.child("type"), "x", &["A", "B"]),
            r#"type: Unsupported value: "x": supported values: "A", "B""#,
        );
        check(FieldError::too_long(spec, 63), "spec: Too long: may not be more than 63 bytes");
        check(FieldError::forbidden(spec.key("a b"), "no"), "spec[a b]: Forbidden: no");
        check(FieldError::duplicate(spec, "a\"b\n"), "spec: Duplicate value: \"a\\\"b\\n\"");
        check(FieldError::too_many(spec, 3, 2), "spec: Too many: 3: must have at most 2 items");
        let selector = Tree::from_json(br#"{"matchExpressions":[],"matchLabels":{"a":"<b"}}"#).unwrap();
        check(FieldError::invalid(spec, &selector, ""), r#"spec: Invalid value: {"matchLabels":{"a":"\u003cb"},"matchExpressions":[]}"#);
    }
}
