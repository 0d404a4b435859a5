//! What a string or bytes literal says. Models cel-go parser/unescape.go.
use std::borrow::Cow;

/// The bytes behind a literal, its prefixes and quotes included in `text`; escapes of bytes are bytes, those of strings characters.
pub(crate) fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    const UNABLE: &str = "unable to unescape string";
    let text: Cow<str> = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text.into() };
    let raw = text.starts_with(['r', 'R']);
    let quoted = if raw { &text[1..] } else { &text[..] };
    let width = if quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\"")) { 3 } else { 1 };
    let inside = quoted.get(width..quoted.len().saturating_sub(width)).ok_or(UNABLE)?;
    if raw || !inside.contains('\\') {
        return Ok(inside.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().ok_or("unable to unescape string, found '\\' as last character")?;
        rest = rest.get(at + 2..).ok_or(UNABLE)?;
        let plain = match escape {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'\\' | b'\'' | b'"' | b'`' | b'?' => escape,
            b'x' | b'X' | b'u' | b'U' => {
                let length = match escape {
                    b'u' => 4,
                    b'U' => 8,
                    _ => 2,
                };
                if bytes && length > 2 {
                    return Err(UNABLE);
                }
                let digits = rest.get(..length).ok_or(UNABLE)?;
                rest = &rest[length..];
                push(&mut out, u32::from_str_radix(digits, 16).map_err(|_| UNABLE)?, bytes)?;
                continue;
            }
            b'0'..=b'3' => {
                const OCTAL: &str = "unable to unescape octal sequence in string";
                let digits = rest.get(..2).ok_or(OCTAL)?;
                rest = &rest[2..];
                let low = u32::from_str_radix(digits, 8).map_err(|_| OCTAL)?;
                push(&mut out, u32::from(escape - b'0') * 64 + low, bytes)?;
                continue;
            }
            _ => return Err(UNABLE),
        };
        out.push(plain);
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

fn push(out: &mut Vec<u8>, code: u32, bytes: bool) -> Result<(), &'static str> {
    if bytes {
        out.push(code as u8);
        return Ok(());
    }
    let c = char::from_u32(code).ok_or("invalid unicode code point")?;
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}
