//! Writes a resourceVersion into stored JSON without parsing it.
use bytes::Bytes;
use memchr::memchr2;

/// `value` with `metadata.resourceVersion` set, and where its digits stand. `None` when there is no object `metadata`.
pub fn resource_version(value: &[u8], revision: u64) -> Option<(Bytes, usize)> {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
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

/// The offset after the brace of the top-level field `metadata`. Stored values are printed by us: no white space.
fn inside_metadata(value: &[u8]) -> Option<usize> {
    let mut at = 1;
    if value.first() != Some(&b'{') {
        return None;
    }
    loop {
        let key_end = skip_string(value, at)?;
        let found = &value[at..key_end] == b"\"metadata\"";
        at = key_end + 1; // the colon
        if found {
            return (value.get(at) == Some(&b'{')).then_some(at + 1);
        }
        at = skip_value(value, at)?;
        match value.get(at)? {
            b',' => at += 1,
            _ => return None,
        }
    }
}

/// `at` stands on the opening quote; the answer is after the closing one.
fn skip_string(value: &[u8], at: usize) -> Option<usize> {
    if value.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', value.get(at..)?)?;
        if value[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn skip_value(value: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match value.get(at)? {
            b'"' => {
                at = skip_string(value, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                // A bare scalar ends where its parent does.
                let Some(left) = depth.checked_sub(1) else { return Some(at) };
                depth = left;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b',' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
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
    fn refuses_what_has_no_metadata() {
        assert!(resource_version(b"{}", 1).is_none());
        assert!(resource_version(b"[]", 1).is_none());
        assert!(resource_version(br#"{"metadata":1}"#, 1).is_none());
    }
}
