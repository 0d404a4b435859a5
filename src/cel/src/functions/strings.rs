//! Functions of strings. Models cel-go ext/strings.go, version 2, and the standard library's.
use super::{Body, Result, error, no_overload};
use crate::value::{Octets, Value};

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "contains" => |args| two(args, |a, b| a.contains(b)),
        "startsWith" => |args| two(args, |a, b| a.starts_with(b)),
        "endsWith" => |args| two(args, |a, b| a.ends_with(b)),
        "charAt" => char_at,
        "lowerAscii" => |args| one(args, str::to_ascii_lowercase),
        "upperAscii" => |args| one(args, str::to_ascii_uppercase),
        "trim" => |args| one(args, |text| text.trim_matches(is_space).to_owned()),
        "strings.quote" => |args| one(args, quote),
        "jsonpatch.escapeKey" => |args| one(args, |text| text.replace('~', "~0").replace('/', "~1")),
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        _ => return None,
    })
}

/// What Go's `unicode.IsSpace` says.
fn is_space(c: char) -> bool {
    c.is_whitespace()
}

fn one<'a>(args: &[Value<'a>], run: fn(&str) -> String) -> Result<'a> {
    args[0].as_str().map_or_else(no_overload, |text| Ok(Value::from(run(text))))
}

fn two<'a>(args: &[Value<'a>], run: fn(&str, &str) -> bool) -> Result<'a> {
    match (args[0].as_str(), args[1].as_str()) {
        (Some(a), Some(b)) => Ok(Value::Bool(run(a, b))),
        _ => no_overload(),
    }
}

fn out_of_range<'a>(index: i64) -> Result<'a> {
    error(format!("index out of range: {index}"))
}

fn char_at<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some(text), Some(index)) = (args[0].as_str(), args[1].as_int()) else { return no_overload() };
    let Ok(place) = usize::try_from(index) else { return out_of_range(index) };
    match text.chars().nth(place) {
        Some(c) => Ok(Value::from(c.to_string())),
        None if text.chars().count() == place => Ok(Value::str("")),
        None => out_of_range(index),
    }
}

/// `indexOf` and `lastIndexOf` of a string: places count characters.
pub(crate) fn index_of<'a>(args: &[Value<'a>], last: bool) -> Result<'a> {
    let (Some(text), Some(part)) = (args[0].as_str(), args[1].as_str()) else { return no_overload() };
    let text: Vec<char> = text.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let length = text.len() as i64;
    let offset = match args.get(2) {
        Some(offset) => match offset.as_int() {
            Some(offset) => offset,
            None => return no_overload(),
        },
        None if !last => 0,
        None if part.is_empty() => return Ok(Value::Int(length)),
        None if text.len() < part.len() => return Ok(Value::Int(-1)),
        None => length - 1,
    };
    if offset < 0 {
        return out_of_range(offset);
    }
    if part.is_empty() {
        return Ok(Value::Int(offset.min(length)));
    }
    if offset >= length || part.len() > text.len() {
        return Ok(Value::Int(-1));
    }
    let fits = |i: &i64| text[*i as usize..].starts_with(&part);
    let most = length - part.len() as i64;
    let found = if last { (0..=offset.min(most)).rev().find(fits) } else { (offset..=most).find(fits) };
    Ok(Value::Int(found.unwrap_or(-1)))
}

/// What a count of Go's means: less than none is all.
fn count(args: &[Value], at: usize) -> Option<usize> {
    match args.get(at) {
        None => Some(usize::MAX),
        Some(Value::Int(n)) => Some(usize::try_from(*n).unwrap_or(usize::MAX)),
        Some(_) => None,
    }
}

/// The longest text that a function may make: what costs cannot stop, since they are counted afterwards.
const TEXT_BYTES_MAX: usize = 16 << 20;

fn replace<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some(text), Some(old), Some(new), Some(most)) = (args[0].as_str(), args[1].as_str(), args[2].as_str(), count(args, 3)) else {
        return no_overload();
    };
    let hits = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    if text.len().saturating_add(hits.min(most).saturating_mul(new.len())) > TEXT_BYTES_MAX {
        return error("string is too long");
    }
    Ok(Value::from(text.replacen(old, new, most)))
}

fn split<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some(text), Some(separator), Some(most)) = (args[0].as_str(), args[1].as_str(), count(args, 2)) else { return no_overload() };
    let part = |part: &str| Value::from(part.to_owned());
    let parts: Vec<Value> = match most {
        0 => Vec::new(),
        _ if separator.is_empty() => {
            let mut ends = text.char_indices().map(|(i, _)| i).skip(1).take(most - 1).collect::<Vec<_>>();
            ends.push(text.len());
            if text.is_empty() {
                ends.clear();
            }
            let mut start = 0;
            ends.into_iter().map(|end| part(&text[std::mem::replace(&mut start, end)..end])).collect()
        }
        _ => text.splitn(most, separator).map(part).collect(),
    };
    Ok(Value::from(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some(text), Some(start)) = (args[0].as_str(), args[1].as_int()) else { return no_overload() };
    let length = text.chars().count() as i64;
    let end = match args.get(2).map(Value::as_int) {
        None => length,
        Some(Some(end)) => end,
        Some(None) => return no_overload(),
    };
    if args.len() == 3 && start > end {
        return error(format!("invalid substring range. start: {start}, end: {end}"));
    }
    for index in [start, end] {
        if index < 0 || index > length {
            return out_of_range(index);
        }
    }
    Ok(Value::from(text.chars().skip(start as usize).take((end - start) as usize).collect::<String>()))
}

fn join<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Value::List(list) = &args[0] else { return no_overload() };
    let separator = match args.get(1) {
        None => "",
        Some(separator) => match separator.as_str() {
            Some(separator) => separator,
            None => return no_overload(),
        },
    };
    let mut text = String::new();
    for (i, item) in list.iter().enumerate() {
        let Some(item) = item.as_str() else { return error(format!("join: invalid input: {item}")) };
        if text.len() + separator.len() + item.len() > TEXT_BYTES_MAX {
            return error("string is too long");
        }
        if i > 0 {
            text.push_str(separator);
        }
        text.push_str(item);
    }
    Ok(Value::from(text))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Base64 as `format: byte` reads it.
pub(crate) fn decode_base64(text: &str) -> std::result::Result<Vec<u8>, String> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())
}

impl Octets<'_> {
    pub(crate) fn hex(&self) -> String {
        self.iter().map(|b| format!("{b:02x}")).collect()
    }
}
