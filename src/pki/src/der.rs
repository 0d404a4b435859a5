//! As much of the distinguished encoding (X.690) as it takes to put another subject into a certificate.
//!
//! `rcgen` keeps one value for each type of attribute; a user's certificate has one organization for each of his groups.

/// The first value in `bytes`: whole, and what follows it.
pub fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, length) = header(bytes)?;
    bytes.split_at_checked(header.checked_add(length)?)
}

/// What is inside of the value that `bytes` are.
pub fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (header, length) = header(bytes)?;
    bytes.get(header..header.checked_add(length)?)
}

/// The octets of the header, and of the content. Tags of one octet, lengths below 4 GiB.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*bytes.get(1)?);
    if short < 0x80 {
        return Some((2, short));
    }
    let octets = short & 0x7f;
    if octets == 0 || octets > 4 {
        return None;
    }
    let length = bytes.get(2..2 + octets)?.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    Some((2 + octets, length))
}

/// A value of tag `tag` around `parts`.
pub fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length.to_le_bytes()[0]);
    } else {
        let octets: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | octets.len().to_le_bytes()[0]);
        out.extend(octets);
    }
    out.extend(parts.iter().copied().flatten());
    out
}

pub const SEQUENCE: u8 = 0x30;
pub const BIT_STRING: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrapped_is_found_again() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let inner = vec![7; length];
            let whole = wrap(SEQUENCE, &[&inner]);
            let with_rest = [&whole[..], b"rest"].concat();
            assert_eq!(first(&with_rest), Some((&whole[..], &b"rest"[..])), "{length}");
            assert_eq!(content(&whole), Some(&inner[..]));
        }
        for wrong in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 2, 0]] {
            assert_eq!(first(wrong), None, "{wrong:?}");
            assert_eq!(content(wrong), None, "{wrong:?}");
        }
    }
}
