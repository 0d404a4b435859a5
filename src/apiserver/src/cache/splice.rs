//! Writes a resourceVersion into stored JSON without parsing it.
use api::scan::Scanner;
use bytes::Bytes;

const FIELD: &[u8] = b"\"resourceVersion\":\"";

/// `value` with `metadata.resourceVersion` set, and where its digits stand. `None` when there is no object `metadata`.
pub fn resource_version(value: &[u8], revision: u64) -> Option<(Bytes, usize)> {
    let at = inside_metadata(value)?;
    let digits = revision.to_string();
    let mut out = Vec::with_capacity(value.len() + FIELD.len() + digits.len() + 2);
    out.extend_from_slice(&value[..at]);
    out.extend_from_slice(FIELD);
    out.extend_from_slice(digits.as_bytes());
    out.push(b'"');
    if value.get(at) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&value[at..]);
    Some((out.into(), at + FIELD.len()))
}

/// `bytes` with the digits at `at` replaced.
pub fn replace(bytes: &[u8], at: usize, revision: u64) -> Bytes {
    let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut out = Vec::with_capacity(bytes.len() + 4);
    out.extend_from_slice(&bytes[..at]);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(&bytes[end..]);
    out.into()
}

/// The value into which the digits at `at` were spliced.
pub fn without(bytes: &[u8], at: usize) -> Bytes {
    let start = at - FIELD.len();
    let mut end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count() + 1;
    end += usize::from(bytes.get(end) == Some(&b','));
    [&bytes[..start], &bytes[end..]].concat().into()
}

/// The offset after the brace of the top-level field `metadata`. Stored values are printed by us: no white space.
fn inside_metadata(value: &[u8]) -> Option<usize> {
    let mut scanner = Scanner::new(value);
    scanner.expect(b'{').ok()?;
    loop {
        let is_found = *scanner.key().ok()? == *b"metadata";
        if is_found {
            return scanner.eat(b'{').then(|| scanner.at());
        }
        scanner.raw().ok()?;
        if !scanner.another(b'}').ok()? {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_metadata_behind_strings_with_braces_and_quotes() {
        let value = br#"{"a":"}\"{","b":[1,{"metadata":{"x":1}}],"c":true,"metadata":{"name":"n"},"z":1}"#;
        let (bytes, at) = resource_version(value, 42).unwrap();
        assert_eq!(
            bytes,
            br#"{"a":"}\"{","b":[1,{"metadata":{"x":1}}],"c":true,"metadata":{"resourceVersion":"42","name":"n"},"z":1}"#.as_slice()
        );
        assert_eq!(
            replace(&bytes, at, 1234),
            br#"{"a":"}\"{","b":[1,{"metadata":{"x":1}}],"c":true,"metadata":{"resourceVersion":"1234","name":"n"},"z":1}"#.as_slice()
        );
    }

    #[test]
    fn what_was_spliced_in_is_taken_out() {
        for value in [&br#"{"metadata":{"name":"n"},"z":1}"#[..], br#"{"a":{},"metadata":{}}"#] {
            let (bytes, at) = resource_version(value, 42).unwrap();
            assert_eq!(without(&bytes, at), value);
        }
    }

    #[test]
    fn refuses_what_has_no_metadata() {
        assert!(resource_version(b"{}", 1).is_none());
        assert!(resource_version(b"[]", 1).is_none());
        assert!(resource_version(br#"{"metadata":1}"#, 1).is_none());
    }
}
