//! Walks over JSON without building anything of it.
//!
//! Meant for documents that rk printed itself: what is malformed ends in an error, but not every malformed document is found.
use std::borrow::Cow;

use memchr::memchr2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed JSON at byte {0}")]
pub struct Malformed(pub usize);

pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn malformed<T>(&self) -> Result<T, Malformed> {
        Err(Malformed(self.at))
    }

    /// How much is behind.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.eat(byte) { Ok(()) } else { self.malformed() }
    }

    pub fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub fn eat_null(&mut self) -> bool {
        let is_there = self.peek() == Some(b'n') && self.bytes[self.at..].starts_with(b"null");
        self.at += if is_there { 4 } else { 0 };
        is_there
    }

    /// After an item of an object or array: whether another follows, or else its end.
    pub fn another(&mut self, end: u8) -> Result<bool, Malformed> {
        if self.eat(b',') {
            return Ok(true);
        }
        self.expect(end).map(|()| false)
    }

    /// The name of a member, with its colon.
    pub fn key(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// A string as it is meant.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let end = self.next_special()?;
        if self.bytes[end] == b'"' {
            self.at = end + 1;
            return Ok(Cow::Borrowed(&self.bytes[start..end]));
        }
        let mut text = Vec::with_capacity(2 * (end - start));
        self.unescape_onto(&mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Writes the rest of a string, whose opening quote is behind, to `out`.
    fn unescape_onto(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        loop {
            let end = self.next_special()?;
            out.extend_from_slice(&self.bytes[self.at..end]);
            self.at = end + 1;
            if self.bytes[end] == b'"' {
                return Ok(());
            }
            let Some(&escape) = self.bytes.get(self.at) else { return self.malformed() };
            self.at += 1;
            out.push(match escape {
                b'"' | b'\\' | b'/' => escape,
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                b'u' => {
                    let c = self.unicode()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                _ => return self.malformed(),
            });
        }
    }

    fn unicode(&mut self) -> Result<char, Malformed> {
        let high = self.hex()?;
        if !(0xD800..0xDC00).contains(&high) || !self.bytes[self.at..].starts_with(b"\\u") {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        self.at += 2;
        let low = self.hex()?;
        if (0xDC00..0xE000).contains(&low) {
            return Ok(char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = before;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let digits = self.bytes.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let Some(code) = digits.and_then(|d| u32::from_str_radix(d, 16).ok()) else { return self.malformed() };
        self.at += 4;
        Ok(code)
    }

    /// Where the next quote or backslash stands.
    #[inline]
    fn next_special(&self) -> Result<usize, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        special(rest).map(|found| self.at + found).ok_or(Malformed(self.at))
    }

    /// A number, `true` or `false` as it stands.
    pub fn word(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')).count();
        let Ok(word) = std::str::from_utf8(&rest[..length]) else { return self.malformed() };
        if word.is_empty() {
            return self.malformed();
        }
        self.at += length;
        Ok(word)
    }

    /// Any value as it stands.
    pub fn raw(&mut self) -> Result<&'a [u8], Malformed> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => {
                self.at += 1;
                self.skip_string()?;
            }
            Some(b'{' | b'[') => self.skip_nested()?,
            _ => _ = self.word()?,
        }
        Ok(&self.bytes[start..self.at])
    }

    /// An object or array, up to the bracket that closes it.
    fn skip_nested(&mut self) -> Result<(), Malformed> {
        let mut depth = 0usize;
        loop {
            let Some(&byte) = self.bytes.get(self.at) else { return self.malformed() };
            self.at += 1;
            match byte {
                b'"' => self.skip_string()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 1 => return Ok(()),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
    }

    /// The rest of a string, whose opening quote is behind.
    fn skip_string(&mut self) -> Result<(), Malformed> {
        loop {
            let end = self.next_special()?;
            self.at = end + 1;
            if self.bytes[end] == b'"' {
                return Ok(());
            }
            self.at += 1;
        }
    }
}

/// Where the first quote or backslash stands. Most texts are short: what is near is looked for in words, without a call.
#[inline]
fn special(bytes: &[u8]) -> Option<usize> {
    const NEAR: usize = 32;
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest byte of `word` that is zero has its high bit set; those above it may have, too.
    let zeros = |word: u64| word.wrapping_sub(EACH) & !word & HIGH;
    let mut at = 0;
    while at < NEAR {
        let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
        let word = u64::from_le_bytes(*chunk);
        let found = zeros(word ^ (EACH * u64::from(b'"'))) | zeros(word ^ (EACH * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &bytes[at..]).map(|found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quote_or_backslash_is_found_wherever_it_stands() {
        for before in 0..80 {
            for (byte, after) in [(b'"', b'\\'), (b'\\', b'"')] {
                // Bytes that differ from both in one bit, and some that are no ASCII.
                let mut text: Vec<u8> = b"#]!\xc3\xa2\xdc ".iter().copied().cycle().take(before).collect();
                assert_eq!(special(&text), None, "{before}");
                text.extend([byte, after, b'#', byte]);
                assert_eq!(special(&text), Some(before), "{before}");
            }
        }
    }

    #[test]
    fn any_value_is_passed_over_as_it_stands() {
        for value in [r#""a\"}b""#, "-1.5e3", "true", "null", "{}", "[]", r#"{"a":[{"]":"}"},[1,2]],"b":{}}"#, r#"["\\",{}]"#] {
            let text = format!(" {value} ,1");
            let mut scanner = Scanner::new(text.as_bytes());
            assert_eq!(scanner.raw().unwrap(), value.as_bytes());
            assert_eq!(scanner.at(), 1 + value.len());
        }
        for broken in ["", "\"a", "{", "[1,{}", r#"{"a":"b"#, "}"] {
            assert!(Scanner::new(broken.as_bytes()).raw().is_err(), "{broken}");
        }
    }
}
