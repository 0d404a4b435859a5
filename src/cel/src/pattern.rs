//! Regular expressions as Go reads them, on the crate `regex`.
//!
//! The two differ: here `\d \w \s \b` are ASCII, `&&` in a class is text, `\Q..\E` and octal escapes exist, a brace that is no repetition
//! is text, and a repetition goes to 1,000. Models regexp/syntax/parse.go (Go 1.26): what it accepts, and its messages.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use regex::{Regex, RegexBuilder};

const REPEAT_MAX: u32 = 1000;
const SIZE_BYTES_MAX: usize = 4 << 20;
const NEST_MAX: usize = 250;

/// A pattern, compiled when first matched.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: Box<str>,
    compiled: Arc<OnceLock<Result<Regex, String>>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: Arc::default() }
    }

    /// Whether some part of `value` matches; `Err` is why the pattern is none.
    pub fn matches(&self, value: &str) -> Result<bool, &str> {
        let compiled = self.compiled.get_or_init(|| compile(&self.text));
        compiled.as_ref().map(|regex| regex.is_match(value)).map_err(String::as_str)
    }
}

/// Compiles Go's syntax; the error is Go's text.
pub fn compile(text: &str) -> Result<Regex, String> {
    let translated = translated(text)?;
    build(text, &translated, SIZE_BYTES_MAX)
}

/// How many patterns that expressions make are kept compiled, and which: there are few of them and each is used again and again, but strangers make
/// them.
const RECENT_MAX: usize = 16;
const RECENT_TEXT_BYTES_MAX: usize = 256;
const RECENT_BYTES_MAX: usize = 256 << 10;

/// The same, of a pattern that is known only when it is matched.
pub(crate) fn recent(text: &str) -> Result<Arc<Regex>, String> {
    static RECENT: Recent = Recent(Mutex::new(VecDeque::new()));
    RECENT.get(text)
}

/// The one used last stands last.
struct Recent(Mutex<VecDeque<(Box<str>, Arc<Regex>)>>);

impl Recent {
    fn get(&self, text: &str) -> Result<Arc<Regex>, String> {
        if text.len() > RECENT_TEXT_BYTES_MAX {
            return compile(text).map(Arc::new);
        }
        if let Some(regex) = self.known(text) {
            return Ok(regex);
        }
        let translated = translated(text)?;
        match build(text, &translated, RECENT_BYTES_MAX).map(Arc::new) {
            Ok(regex) => {
                self.keep(text, regex.clone());
                Ok(regex)
            }
            Err(_) => build(text, &translated, SIZE_BYTES_MAX).map(Arc::new),
        }
    }

    fn known(&self, text: &str) -> Option<Arc<Regex>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| **known == *text)?;
        let found = kept.remove(at)?;
        let regex = found.1.clone();
        kept.push_back(found);
        Some(regex)
    }

    fn keep(&self, text: &str, regex: Arc<Regex>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have been quicker.
        kept.retain(|(known, _)| **known != *text);
        if kept.len() >= RECENT_MAX {
            kept.pop_front();
        }
        kept.push_back((text.into(), regex));
    }
}

fn failed((what, at): (&str, String)) -> String {
    format!("error parsing regexp: {what}: `{at}`")
}

fn translated(text: &str) -> Result<String, String> {
    Translator { rest: text, out: String::new(), whole: text }.run().map_err(failed)
}

fn build(text: &str, translated: &str, size_bytes_max: usize) -> Result<Regex, String> {
    let built = RegexBuilder::new(translated).size_limit(size_bytes_max).nest_limit(NEST_MAX as u32).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => failed(("expression too large", text.to_owned())),
        _ => failed(("invalid syntax", text.to_owned())),
    })
}

type Wrong = (&'static str, String);

struct Translator<'t> {
    rest: &'t str,
    out: String,
    whole: &'t str,
}

/// What stands before a repetition.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Atom,
    /// The length of what is left at the operator.
    Repetition(usize),
}

impl<'t> Translator<'t> {
    fn run(mut self) -> Result<String, Wrong> {
        let mut depth = 0usize;
        let mut before = Before::Nothing;
        while let Some(c) = self.rest.chars().next() {
            let start = self.rest;
            match c {
                '(' => {
                    self.group()?;
                    // A group that only sets flags is no group.
                    if self.out.ends_with(')') {
                        continue;
                    }
                    depth += 1;
                    if depth > NEST_MAX {
                        return Err(("expression nests too deeply", self.whole.to_owned()));
                    }
                    before = Before::Nothing;
                }
                ')' => {
                    self.take(1);
                    depth = depth.checked_sub(1).ok_or_else(|| ("unexpected )", self.whole.to_owned()))?;
                    self.out.push(')');
                    before = Before::Atom;
                }
                '|' => {
                    self.take(1);
                    self.out.push('|');
                    before = Before::Nothing;
                }
                '[' => {
                    self.class()?;
                    before = Before::Atom;
                }
                '\\' => {
                    self.escape()?;
                    before = Before::Atom;
                }
                '*' | '+' | '?' => before = self.repetition(1, before, start)?,
                '{' => match braces(self.rest) {
                    Some((length, low, high)) => {
                        if low > REPEAT_MAX || high.is_some_and(|high| high > REPEAT_MAX || high < low) {
                            return Err(("invalid repeat count", start[..length].to_owned()));
                        }
                        before = self.repetition(length, before, start)?;
                    }
                    None => {
                        self.take(1);
                        self.out.push_str("\\{");
                        before = Before::Atom;
                    }
                },
                c => {
                    self.take(c.len_utf8());
                    if matches!(c, '^' | '$' | '.') {
                        self.out.push(c)
                    } else {
                        literal(&mut self.out, c)
                    }
                    before = Before::Atom;
                }
            }
        }
        if depth > 0 {
            return Err(("missing closing )", self.whole.to_owned()));
        }
        Ok(self.out)
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn repetition(&mut self, length: usize, before: Before, start: &'t str) -> Result<Before, Wrong> {
        let operator = self.take(length);
        if before == Before::Nothing {
            return Err(("missing argument to repetition operator", operator.to_owned()));
        }
        if let Before::Repetition(left) = before {
            let from = self.whole.len() - left;
            let to = self.whole.len() - self.rest.len();
            return Err(("invalid nested repetition operator", self.whole[from..to].to_owned()));
        }
        self.out.push_str(operator);
        if self.rest.starts_with('?') {
            self.take(1);
            self.out.push('?');
        }
        Ok(Before::Repetition(start.len()))
    }

    fn group(&mut self) -> Result<(), Wrong> {
        if !self.rest.starts_with("(?") {
            self.take(1);
            self.out.push('(');
            return Ok(());
        }
        let named = ["(?P<", "(?<"]
            .into_iter()
            .find(|p| self.rest.starts_with(p) && !self.rest.starts_with("(?<=") && !self.rest.starts_with("(?<!"));
        if let Some(prefix) = named {
            let Some(end) = self.rest.find('>') else { return Err(("invalid named capture", self.rest.to_owned())) };
            let name = &self.rest[prefix.len()..end];
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(("invalid named capture", self.rest[..=end].to_owned()));
            }
            // Nobody asks for the captures.
            self.take(end + 1);
            self.out.push('(');
            return Ok(());
        }
        let end = self.rest.find([')', ':']).map_or(self.rest.len(), |at| at + 1);
        let flags = &self.rest[..end];
        let inner = flags[2..].trim_end_matches([')', ':']);
        let is_valid = inner.chars().all(|c| "imsU-".contains(c))
            && inner.matches('-').count() <= 1
            && !inner.ends_with('-')
            && flags.ends_with([')', ':']);
        if !is_valid || (inner.is_empty() && flags.ends_with(')')) {
            let shown = self.rest.chars().take(3).collect();
            return Err(("invalid or unsupported Perl syntax", shown));
        }
        self.take(end);
        self.out.push_str(flags);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Wrong> {
        let Some(c) = self.rest[1..].chars().next() else { return Err(("trailing backslash at end of expression", String::new())) };
        let bytes = 1 + c.len_utf8();
        match c {
            'Q' => {
                self.take(bytes);
                let end = self.rest.find("\\E");
                let text = self.take(end.unwrap_or(self.rest.len()));
                if end.is_some() {
                    self.take(2);
                }
                // One atom, so that a repetition takes the last character as Go's does.
                text.chars().for_each(|c| literal(&mut self.out, c));
            }
            'A' | 'z' => self.out.push_str(&self.rest[..bytes]),
            'b' => self.out.push_str("(?-u:\\b)"),
            'B' => self.out.push_str("(?-u:\\B)"),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let negated = if c.is_ascii_uppercase() { "^" } else { "" };
                self.out.push_str(&format!("[{negated}{}]", perl_class(c)));
            }
            'p' | 'P' => return self.unicode_class(),
            _ => {
                let c = self.escaped_character()?;
                literal(&mut self.out, c);
                return Ok(());
            }
        }
        if c != 'Q' {
            self.take(bytes);
        }
        Ok(())
    }

    /// `\pN`, `\p{Greek}`, `\p{^Greek}`.
    fn unicode_class(&mut self) -> Result<(), Wrong> {
        let after = &self.rest[2..];
        let length = if after.starts_with('{') { after.find('}').map(|at| at + 1) } else { after.chars().next().map(char::len_utf8) };
        let Some(length) = length else { return Err(("invalid character class range", self.rest.to_owned())) };
        let text = self.take(2 + length);
        let negated = text.starts_with("\\P") != text.contains('^');
        let name = text[2..].trim_matches(['{', '}', '^']);
        self.out.push_str(&format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }));
        Ok(())
    }

    /// A character given by an escape, which is taken.
    fn escaped_character(&mut self) -> Result<char, Wrong> {
        let start = self.rest;
        let Some(c) = start[1..].chars().next() else { return Err(("trailing backslash at end of expression", String::new())) };
        self.take(1 + c.len_utf8());
        let wrong = |length: usize| ("invalid escape sequence", start.chars().take(length).collect::<String>());
        Ok(match c {
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => {
                let digits = if self.rest.starts_with('{') {
                    let end = self.rest.find('}').ok_or_else(|| wrong(2))?;
                    self.take(end + 1).trim_matches(['{', '}'])
                } else {
                    if self.rest.len() < 2 || !self.rest.is_char_boundary(2) {
                        return Err(wrong(4));
                    }
                    self.take(2)
                };
                u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).ok_or_else(|| wrong(4))?
            }
            // A backreference where no octal digit follows.
            '1'..='7' if !self.rest.starts_with(|c: char| ('0'..='7').contains(&c)) => return Err(wrong(2)),
            '0'..='7' => {
                let mut value = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    self.take(1);
                }
                char::from_u32(value).ok_or_else(|| wrong(4))?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return Err(wrong(2)),
        })
    }

    fn class(&mut self) -> Result<(), Wrong> {
        let start = self.rest;
        let unclosed = || ("missing closing ]", start.to_owned());
        self.take(1);
        self.out.push('[');
        if self.rest.starts_with('^') {
            self.take(1);
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            if self.rest.is_empty() {
                return Err(unclosed());
            }
            if self.rest.starts_with(']') && !is_first {
                self.take(1);
                self.out.push(']');
                return Ok(());
            }
            is_first = false;
            // `[:]` is no name, but a bracket and a colon.
            if let Some(inside) = self.rest.strip_prefix("[:")
                && let Some(length) = inside.find(":]")
            {
                let end = 2 + length;
                let name = &self.rest[..end + 2];
                if !name[2..end].chars().all(|c| c.is_ascii_lowercase() || c == '^') {
                    return Err(("invalid character class range", name.to_owned()));
                }
                self.out.push_str(name);
                self.take(end + 2);
                continue;
            }
            if let Some(c) = self.rest.strip_prefix('\\').and_then(|r| r.chars().next()) {
                match c {
                    'd' | 's' | 'w' => {
                        self.take(2);
                        self.out.push_str(perl_class(c));
                        continue;
                    }
                    'D' | 'S' | 'W' => {
                        self.take(2);
                        self.out.push_str(&format!("[^{}]", perl_class(c)));
                        continue;
                    }
                    'p' | 'P' => {
                        self.unicode_class()?;
                        continue;
                    }
                    _ => {}
                }
            }
            let range = self.rest;
            let low = self.class_character().map_err(|w| w.unwrap_or_else(unclosed))?;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1 {
                self.take(1);
                let high = self.class_character().map_err(|w| w.unwrap_or_else(unclosed))?;
                if high < low {
                    let shown = &range[..range.len() - self.rest.len()];
                    return Err(("invalid character class range", shown.to_owned()));
                }
                literal(&mut self.out, low);
                self.out.push('-');
                literal(&mut self.out, high);
            } else {
                literal(&mut self.out, low);
            }
        }
    }

    fn class_character(&mut self) -> Result<char, Option<Wrong>> {
        let c = self.rest.chars().next().ok_or(None)?;
        if c == '\\' {
            return self.escaped_character().map_err(Some);
        }
        self.take(c.len_utf8());
        Ok(c)
    }
}

fn perl_class(c: char) -> &'static str {
    match c {
        'd' | 'D' => "0-9",
        's' | 'S' => "\\t\\n\\x0c\\r\\x20",
        _ => "0-9A-Za-z_",
    }
}

fn literal(out: &mut String, c: char) {
    if c.is_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{:02x}", c as u32));
    }
}

/// `{2}`, `{2,}`, `{2,3}`: its length and bounds.
fn braces(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let end = text.find('}')?;
    let inner = &text[1..end];
    let number = |digits: &str| -> Option<u32> {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
        is_number.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    match inner.split_once(',') {
        None => Some((end + 1, number(inner)?, None)),
        Some((low, "")) => Some((end + 1, number(low)?, None)),
        Some((low, high)) => Some((end + 1, number(low)?, Some(number(high)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_kept_while_they_are_used_and_few() {
        let recent = Recent(Mutex::default());
        let get = |text: &str| recent.get(text).unwrap();
        let first = get("^a+$");
        assert!(first.is_match("aa") && !first.is_match("ab"));
        assert!(Arc::ptr_eq(&first, &get("^a+$")));
        for i in 0..2 * RECENT_MAX {
            get(&format!("b{i}"));
            assert!(Arc::ptr_eq(&first, &get("^a+$")), "{i}");
        }
        (0..RECENT_MAX).for_each(|i| drop(get(&format!("c{i}"))));
        assert!(!Arc::ptr_eq(&first, &get("^a+$")));
        // What is no pattern stays none, and what is large is compiled, and not kept.
        (0..2).for_each(|_| assert_eq!(recent.get("(").unwrap_err(), compile("(").unwrap_err()));
        let count = |recent: &Recent| recent.0.lock().unwrap().len();
        let before = count(&recent);
        for large in [r"\pL{20}", &"x".repeat(RECENT_TEXT_BYTES_MAX + 1)] {
            assert!(recent.get(large).is_ok(), "{large}");
        }
        assert_eq!((before, count(&recent)), (RECENT_MAX, RECENT_MAX));
        assert!(get("^a+$").is_match("a"));
    }
}
