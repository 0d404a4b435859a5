//! A recursive-descent JSON reader with Go's error texts and duplicate keys reported by path.
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::{DEPTH_MAX, PATHS_BYTES_MAX, ParseError, Parsed, STRICT_ERRORS_MAX, quote, too_deep, too_long};
use crate::tree::{Key, Object, Pile, Tree};

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let mut reader = Reader { bytes, at: 0, path: String::new(), paths_bytes: 0, duplicates: Vec::new(), places: None };
    reader.skip_space();
    let tree = reader.value(0)?;
    reader.skip_space();
    if reader.at < bytes.len() {
        return Err(reader.invalid("after top-level value"));
    }
    Ok(Parsed { tree, duplicates: reader.duplicates })
}

/// Complaints about longer paths have no place in the order: looking them up would cost more than reading the document.
const PLACED_BYTES_MAX: usize = 512;

/// Where in the document each strict complaint comes up: at an unknown key, or at a key's second appearance. Go's decoder, which looks for both
/// in one pass, names them in this order.
pub(super) fn in_order(bytes: &[u8], complaints: &mut [String]) {
    fn path(complaint: &str) -> &str {
        complaint.split_once('"').map_or("", |(_, rest)| rest.trim_end_matches('"'))
    }
    let asked = complaints.iter().map(|complaint| path(complaint)).filter(|path| path.len() <= PLACED_BYTES_MAX);
    let places = asked.map(|path| (path.to_owned(), [None; 2])).collect();
    let mut reader = Reader { bytes, at: 0, path: String::new(), paths_bytes: 0, duplicates: Vec::new(), places: Some(places) };
    reader.skip_space();
    if reader.value(0).is_err() {
        return;
    }
    let places = reader.places.unwrap_or_default();
    complaints.sort_by_key(|complaint| {
        let appearance = usize::from(complaint.starts_with("duplicate"));
        places.get(path(complaint)).and_then(|at| at[appearance].or(at[0])).unwrap_or(usize::MAX)
    });
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    path: String,
    /// Of all values so far.
    paths_bytes: usize,
    duplicates: Vec<String>,
    /// Where the keys that somebody asks for appear first and second, by path; `None`: nobody asks.
    places: Option<HashMap<String, [Option<usize>; 2]>>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// The error for the byte that stands at the cursor, or for the end of the input.
    fn invalid(&self, context: &str) -> ParseError {
        let Some(byte) = self.peek() else {
            return ParseError("unexpected end of JSON input".into());
        };
        let shown = match byte {
            b'\'' => r"'\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            byte => {
                let quoted = quote(&char::from(byte).to_string());
                format!("'{}'", &quoted[1..quoted.len() - 1])
            }
        };
        ParseError(format!("invalid character {shown} {context}"))
    }

    fn value(&mut self, depth: usize) -> Result<Tree, ParseError> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(self.string()?.into()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Tree::Bool(true)),
            Some(b'f') => self.literal("false", Tree::Bool(false)),
            Some(b'n') => self.literal("null", Tree::Null),
            _ => Err(self.invalid("looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str, value: Tree) -> Result<Tree, ParseError> {
        for (i, expected) in word.bytes().enumerate() {
            if self.peek() != Some(expected) {
                debug_assert!(i > 0, "the caller has seen the first byte");
                return Err(self.invalid(&format!("in literal {word} (expecting '{}')", char::from(expected))));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn enter(&self, depth: usize) -> Result<usize, ParseError> {
        if depth >= DEPTH_MAX { Err(too_deep()) } else { Ok(depth + 1) }
    }

    /// Counts the path of the value that comes next.
    fn place(&mut self) -> Result<(), ParseError> {
        self.paths_bytes += self.path.len();
        if self.paths_bytes > PATHS_BYTES_MAX { Err(too_long()) } else { Ok(()) }
    }

    fn object(&mut self, depth: usize) -> Result<Tree, ParseError> {
        let depth = self.enter(depth)?;
        self.at += 1;
        let mut entries = Pile::<(Key, Tree)>::new();
        let parent = self.path.len();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Tree::object());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.invalid("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.invalid("after object key"));
            }
            self.at += 1;
            self.skip_space();
            if parent > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            self.place()?;
            if let Some(places) = self.places.as_mut().filter(|_| self.path.len() <= PLACED_BYTES_MAX)
                && let Some(at) = places.get_mut(&self.path)
                && let Some(free) = at.iter_mut().find(|place| place.is_none())
            {
                *free = Some(self.at);
            }
            let value = self.value(depth)?;
            entries.push((Key::from(key), value));
            self.path.truncate(parent);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.invalid("after object key:value pair")),
            }
        }
        self.at += 1;
        let entries = entries.take();
        let count = entries.len();
        let names: Vec<Key> =
            if entries.windows(2).all(|w| w[0].0 < w[1].0) { Vec::new() } else { entries.iter().map(|(k, _)| k.clone()).collect() };
        let object: Object = match names.is_empty() {
            true => Object::from_sorted(entries),
            false => entries.into_iter().collect(),
        };
        if object.len() < count {
            self.report_duplicates(names, parent);
        }
        Ok(Tree::Object(object))
    }

    fn report_duplicates(&mut self, mut names: Vec<Key>, parent: usize) {
        names.sort();
        let mut last_reported: Option<Key> = None;
        for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
            if last_reported.as_ref() == Some(&pair[0]) || self.duplicates.len() >= STRICT_ERRORS_MAX {
                continue;
            }
            let prefix = &self.path[..parent];
            let path = if prefix.is_empty() { pair[0].to_string() } else { format!("{prefix}.{}", pair[0]) };
            self.duplicates.push(format!("duplicate field {}", quote(&path)));
            last_reported = Some(pair[0].clone());
        }
    }

    fn array(&mut self, depth: usize) -> Result<Tree, ParseError> {
        let depth = self.enter(depth)?;
        self.at += 1;
        let mut items = Pile::new();
        let parent = self.path.len();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Tree::Array(Vec::new()));
        }
        loop {
            self.skip_space();
            _ = write!(self.path, "[{}]", items.len()); // a text takes everything
            self.place()?;
            items.push(self.value(depth)?);
            self.path.truncate(parent);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.invalid("after array element")),
            }
        }
        self.at += 1;
        Ok(Tree::Array(items.take()))
    }

    /// What stands up to a quote, an escape, or what no text may have.
    fn plain(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn string(&mut self) -> Result<Cow<'a, str>, ParseError> {
        self.at += 1;
        let first = self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            // Go replaces what is not UTF-8, it does not refuse it.
            return Ok(String::from_utf8_lossy(first));
        }
        let mut text = first.to_vec();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut text)?;
                }
                _ => return Err(self.invalid("in string literal")),
            }
            text.extend_from_slice(self.plain());
        }
        self.at += 1;
        Ok(Cow::Owned(String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())))
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), ParseError> {
        let byte = match self.peek() {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(text),
            _ => return Err(self.invalid("in string escape code")),
        };
        self.at += 1;
        text.push(byte);
        Ok(())
    }

    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Result<(), ParseError> {
        self.at += 1;
        let mut code = self.hex4()?;
        if (0xD800..0xDC00).contains(&code) && self.bytes[self.at..].starts_with(b"\\u") {
            let mark = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xDC00..0xE000).contains(&low) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            } else {
                self.at = mark;
            }
        }
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.invalid("in \\u hexadecimal character escape"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at > start
    }

    fn number(&mut self) -> Result<Tree, ParseError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => _ = self.digits(),
            _ => return Err(self.invalid("in numeric literal")),
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            if !self.digits() {
                return Err(self.invalid("after decimal point in numeric literal"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if !self.digits() {
                return Err(self.invalid("in exponent of numeric literal"));
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("digits, signs, points and exponents are ASCII");
        if whole && let Ok(integer) = text.parse() {
            return Ok(Tree::Integer(integer));
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Tree::Float(float)),
            _ => Err(ParseError(format!("json: cannot unmarshal number {text} into Go value of type float64"))),
        }
    }
}
