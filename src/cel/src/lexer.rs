//! Text into tokens. Models cel-go parser/gen/CEL.g4, the lexer's part.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    End,
    Ident,
    /// In back quotes.
    EscapedIdent,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    True,
    False,
    Null,
    In,
    /// Operators and punctuation, by their text.
    Mark(&'static str),
    /// What no rule reads; the parser has an issue for it already.
    Wrong,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    /// Bytes.
    pub start: u32,
    pub end: u32,
}

/// Longer ones first.
const MARKS: [&str; 24] =
    ["==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%"];

pub(crate) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next token. One of kind `Wrong` spans what ANTLR's message names: `token recognition error at: '...'`.
    pub fn next(&mut self) -> Token {
        self.skip_blank();
        let start = self.at;
        let (kind, length) = self.measure();
        self.at += length;
        Token { kind, start: start as u32, end: self.at as u32 }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.iter().take_while(|b| matches!(b, b'\t' | b' ' | b'\r' | b'\n' | 0x0c)).count();
            self.at += blank;
            if self.rest().starts_with(b"//") {
                self.at += self.rest().iter().take_while(|b| **b != b'\n').count();
            } else {
                return;
            }
        }
    }

    fn measure(&self) -> (Kind, usize) {
        let rest = self.rest();
        let Some(&first) = rest.first() else { return (Kind::End, 0) };
        if let Some(found) = string_literal(rest) {
            return found;
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            let kind = match &rest[..length] {
                b"true" => Kind::True,
                b"false" => Kind::False,
                b"null" => Kind::Null,
                b"in" => Kind::In,
                _ => Kind::Ident,
            };
            return (kind, length);
        }
        if first.is_ascii_digit() || (first == b'.' && rest.get(1).is_some_and(u8::is_ascii_digit)) {
            return number(rest);
        }
        if first == b'`' {
            let inside = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b' ');
            let length = rest[1..].iter().take_while(|b| inside(b)).count();
            if length > 0 && rest.get(1 + length) == Some(&b'`') {
                return (Kind::EscapedIdent, length + 2);
            }
            return (Kind::Wrong, self.whole_chars(1 + length + 1));
        }
        if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(mark.as_bytes())) {
            return (Kind::Mark(*mark), mark.len());
        }
        match first {
            b'"' | b'\'' => (Kind::Wrong, self.whole_chars(unfinished(rest))),
            // These begin a two-character mark: ANTLR names the second character too.
            b'=' | b'&' | b'|' => (Kind::Wrong, self.whole_chars(2)),
            _ => (Kind::Wrong, self.whole_chars(1)),
        }
    }

    /// `length`, not ending inside a character nor beyond the text.
    fn whole_chars(&self, length: usize) -> usize {
        let mut end = (self.at + length).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        end - self.at
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn exponent(text: &[u8]) -> usize {
    if !matches!(text.first(), Some(b'e' | b'E')) {
        return 0;
    }
    let sign = usize::from(matches!(text.get(1), Some(b'+' | b'-')));
    match digits(&text[1 + sign..]) {
        0 => 0,
        n => 1 + sign + n,
    }
}

fn number(text: &[u8]) -> (Kind, usize) {
    if text.starts_with(b"0x") {
        let hex = text[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if hex > 0 {
            return integer(text, 2 + hex);
        }
    }
    let whole = digits(text);
    let fraction = match text.get(whole) {
        Some(b'.') => match digits(&text[whole + 1..]) {
            0 => 0,
            n => n + 1,
        },
        _ => 0,
    };
    let power = exponent(&text[whole + fraction..]);
    if fraction + power > 0 {
        return (Kind::Double, whole + fraction + power);
    }
    integer(text, whole)
}

fn integer(text: &[u8], length: usize) -> (Kind, usize) {
    match text.get(length) {
        Some(b'u' | b'U') => (Kind::Uint, length + 1),
        _ => (Kind::Int, length),
    }
}

/// A string or bytes literal with its prefixes, if it is closed.
fn string_literal(text: &[u8]) -> Option<(Kind, usize)> {
    let bytes = usize::from(matches!(text.first(), Some(b'b' | b'B')));
    let raw = usize::from(matches!(text.get(bytes), Some(b'r' | b'R')));
    let at = bytes + raw;
    let quote = *text.get(at)?;
    if !matches!(quote, b'"' | b'\'') {
        return None;
    }
    let kind = if bytes == 1 { Kind::Bytes } else { Kind::String };
    let triple = [quote; 3];
    if text[at..].starts_with(&triple) {
        let mut i = at + 3;
        while i < text.len() {
            if text[i..].starts_with(&triple) {
                return Some((kind, i + 3));
            }
            i += if text[i] == b'\\' && raw == 0 { escape(&text[i..])? } else { 1 };
        }
        // An empty string, and another quote after it.
        return Some((kind, at + 2));
    }
    let mut i = at + 1;
    while i < text.len() {
        match text[i] {
            b'\n' | b'\r' => return None,
            b if b == quote => return Some((kind, i + 1)),
            b'\\' if raw == 0 => i += escape(&text[i..])?,
            _ => i += 1,
        }
    }
    None
}

/// How long an escape is, if it is one.
fn escape(text: &[u8]) -> Option<usize> {
    let hex = |n: usize| (text.len() >= 2 + n && text[2..2 + n].iter().all(u8::is_ascii_hexdigit)).then_some(2 + n);
    match text.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => (text.len() >= 4 && text[2..4].iter().all(|b| (b'0'..=b'7').contains(b))).then_some(4),
        _ => None,
    }
}

/// How much of an unfinished string ANTLR's message names: up to where no string could go on.
fn unfinished(text: &[u8]) -> usize {
    let quote = text[0];
    let mut i = 1;
    while i < text.len() {
        match text[i] {
            b'\n' | b'\r' => return i + 1,
            b if b == quote => return i + 1,
            b'\\' => match escape(&text[i..]) {
                Some(n) => i += n,
                None => return (i + 2).min(text.len()),
            },
            _ => i += 1,
        }
    }
    text.len()
}
