//! `fieldPath` of a rule: where its error stands, from the rule's own place.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go ValidFieldPath.
use super::structural::{Additional, Structural};

/// The path as errors print it (`a.b[key]`), if the schema has such a place.
pub fn normalized(path: &str, schema: &Structural) -> Option<String> {
    let (mut at, mut rest, mut out) = (schema, path, String::new());
    while !rest.is_empty() {
        let name: String;
        if let Some(after) = rest.strip_prefix("['") {
            let end = (1..=after.len()).find(|i| after.as_bytes().get(*i) == Some(&b'\'') && after.as_bytes()[i - 1] != b'\\')?;
            name = unescaped(&after[..end])?;
            rest = after[end + 1..].strip_prefix(']')?;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return None;
            }
            name = after[..end].to_owned();
            rest = &after[end..];
        }
        if !at.properties.is_empty() {
            at = at.properties.get(&*name)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            let Some(Additional::Schema(further)) = &at.additional else { return None };
            at = further;
            out.push_str(&format!("[{name}]"));
        }
    }
    Some(out)
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\'' => '\'',
            '\\' => '\\',
            _ => return None,
        });
    }
    Some(out)
}
