//! Bytes to trees: JSON as Go reads it, YAML as sigs.k8s.io/yaml reads it.
//!
//! The JSON reader is our own because clients and tests read its messages, because duplicate keys must be reported with their path,
//! and because nesting must be bounded before the stack is. Models sigs.k8s.io/json `internal/golang/encoding/json` scanner.go and decode.go.
mod bounds;
mod json;
#[cfg(test)]
mod tests;
mod yaml;

use crate::tree::Tree;

/// Deeper nesting is refused, in JSON and YAML alike: everything that walks a tree recurses, on stacks of 1 MiB, and readers of
/// stored objects stop at 128. Upstream allows 10,000; no kind needs more than the few dozen of a CRD schema.
pub const DEPTH_MAX: usize = 100;
/// The paths (`spec.a[0].b`) of all values of a document together. Whatever looks for faults carries the path along, and copies it for each that it
/// finds: a key of a megabyte above a million values would cost a terabyte. Upstream has no such bound, nor such documents: the largest definitions
/// come to a quarter of this.
pub const PATHS_BYTES_MAX: usize = 128 << 20;
/// As upstream: more duplicate or unknown fields than this are not listed.
pub const STRICT_ERRORS_MAX: usize = 100;

/// What a document held.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// Of two equal keys the later one won.
    pub tree: Tree,
    /// Strict errors, ready to show: `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
}

/// The document cannot be read; the text is upstream's (without its `json: ` or `yaml: ` context, which differs from call to call).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

/// Reads one JSON document; nothing but white space may follow it.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, ParseError> {
    json::parse(bytes)
}

/// Reads one YAML document. A stream of several is the caller's to split, as kubectl does.
pub fn parse_yaml(bytes: &[u8]) -> Result<Parsed, ParseError> {
    match json_in_yaml(bytes) {
        Some(tree) => Ok(Parsed { tree, duplicates: Vec::new() }),
        None => yaml::parse(bytes),
    }
}

/// Most YAML that clients send is JSON, which is read much quicker as what it is; where the two readings could differ (equal keys, numbers that
/// are no integers), or it is no JSON after all, YAML decides.
fn json_in_yaml(bytes: &[u8]) -> Option<Tree> {
    fn is_plain(tree: &Tree) -> bool {
        match tree {
            Tree::Float(_) => false,
            Tree::Array(items) => items.iter().all(is_plain),
            Tree::Object(object) => object.iter().all(|(_, value)| is_plain(value)),
            _ => true,
        }
    }
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let parsed = is_object.then(|| json::parse(bytes).ok()).flatten()?;
    (parsed.duplicates.is_empty() && is_plain(&parsed.tree)).then_some(parsed.tree)
}

/// Whether a tree that was not read of one document (the result of a patch) keeps the bounds of those that are.
pub fn check_bounds(tree: &Tree) -> Result<(), ParseError> {
    bounds::check(tree)
}

fn too_deep() -> ParseError {
    ParseError("exceeded max depth".into())
}

fn too_long() -> ParseError {
    ParseError("exceeded max length of paths".into())
}

/// The strict errors of a document, duplicates (of [`Parsed`]) and unknown fields (of [`crate::schema::Decoded`]) together. What stands
/// at or below an unknown field is not looked at, so duplicates there are not named.
pub fn strict_errors(mut duplicates: Vec<String>, unknown: Vec<String>) -> Vec<String> {
    let path = |error: &str| error.split_once('"').map(|(_, path)| path.trim_end_matches('"').to_owned()).unwrap_or_default();
    let hidden: Vec<String> = unknown.iter().map(|error| path(error)).collect();
    duplicates.retain(|duplicate| {
        let at = path(duplicate);
        !hidden.iter().any(|h| at.strip_prefix(h.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    });
    duplicates.extend(unknown);
    duplicates.truncate(STRICT_ERRORS_MAX);
    duplicates
}

/// Puts the complaints about a JSON document in the order in which it gives rise to them.
pub fn in_order(bytes: &[u8], complaints: &mut [String]) {
    json::in_order(bytes, complaints);
}

/// The upstream text for a request body that breaks strict rules: `strict decoding error: unknown field "spec.foo", ...`.
pub fn strict_error(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// As Go's `%q` prints a string in messages.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
