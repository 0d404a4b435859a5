//! `text.format(args)`. Models cel-go ext/formatting.go.
use super::{Body, Result, error, no_overload};
use crate::number::print_scientific;
use crate::types::Type;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    if name == "format" { Some(run) } else { None }
}

fn run<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some(text), Value::List(list)) = (args[0].as_str(), &args[1]) else { return no_overload() };
    let mut out = String::new();
    let done = walk(text, list.len(), |piece| {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(index, clause) => {
                let value = list.get(index).unwrap_or(Value::Null);
                out.push_str(&clause.print(&value).map_err(|why| format!("error during formatting: {why}"))?);
            }
        }
        Ok(())
    });
    match done {
        Ok(_) => Ok(Value::from(out)),
        Err(why) => error(why),
    }
}

/// A part of a format text.
pub(crate) enum Piece<'t> {
    Text(&'t str),
    /// Which argument, and how it is printed.
    Clause(usize, Clause),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clause {
    letter: u8,
    precision: Option<usize>,
}

/// Beyond it, digits say nothing; bounds what one clause may print.
const PRECISION_MAX: usize = 1100;

/// Reads a format text piece by piece; gives how many arguments it asks for.
pub(crate) fn walk<'t>(
    text: &'t str,
    arguments: usize,
    mut visit: impl FnMut(Piece<'t>) -> std::result::Result<(), String>,
) -> std::result::Result<usize, String> {
    let (mut rest, mut index) = (text, 0);
    while let Some(at) = rest.find('%') {
        visit(Piece::Text(&rest[..at]))?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            visit(Piece::Text("%"))?;
            rest = after;
            continue;
        }
        if index >= arguments {
            return Err(format!("index {index} out of range"));
        }
        if rest.is_empty() {
            return Err("unexpected end of string".into());
        }
        let (clause, after) = clause(rest).map_err(|why| format!("could not parse formatting clause: {why}"))?;
        visit(Piece::Clause(index, clause))?;
        index += 1;
        rest = after;
    }
    visit(Piece::Text(rest))?;
    Ok(index)
}

fn clause(text: &str) -> std::result::Result<(Clause, &str), String> {
    let mut rest = text;
    let mut precision = None;
    if let Some(after) = text.strip_prefix('.') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits == after.len() {
            return Err("error while parsing precision: could not find end of precision specifier".into());
        }
        let number: usize = after[..digits].parse().map_err(|_| {
            format!(
                "error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {:?}: invalid syntax",
                &after[..digits]
            )
        })?;
        precision = Some(number.min(PRECISION_MAX));
        rest = &after[digits..];
    }
    let letter = rest.chars().next().unwrap_or(' ');
    if !matches!(letter, 's' | 'd' | 'f' | 'e' | 'b' | 'x' | 'X' | 'o') {
        return Err(format!("unrecognized formatting clause \"{letter}\""));
    }
    Ok((Clause { letter: letter as u8, precision }, &rest[1..]))
}

type Printed = std::result::Result<String, String>;

impl Clause {
    /// Whether an argument of this type may be printed so; `dyn` is found out at run time.
    pub fn takes(self, of: &Type) -> bool {
        of.is_dyn()
            || match self.letter {
                b's' => !matches!(of, Type::Optional(_) | Type::Object(_) | Type::Opaque(_) | Type::Error | Type::Param(_)),
                b'd' | b'o' => matches!(of, Type::Int | Type::Uint),
                b'f' | b'e' => matches!(of, Type::Double | Type::String),
                b'b' => matches!(of, Type::Int | Type::Uint | Type::Bool),
                _ => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
            }
    }

    /// Whether parts of a literal are printed too.
    pub fn is_string(self) -> bool {
        self.letter == b's'
    }

    /// What upstream says of an argument of the wrong type.
    pub fn wrong_type(self, found: &str) -> String {
        let rule = match self.letter {
            b's' => "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
            b'd' => "decimal clause can only be used on integers",
            b'f' => "fixed-point clause can only be used on doubles",
            b'e' => "scientific clause can only be used on doubles",
            b'b' => "only integers and bools can be formatted as binary",
            b'o' => "octal clause can only be used on integers",
            _ => "only integers, byte buffers, and strings can be formatted as hex",
        };
        format!("{rule}, was given {found}")
    }

    fn print(self, value: &Value) -> Printed {
        let wrong = || Err(self.wrong_type(value.type_of().runtime_name()));
        Ok(match (self.letter, value) {
            (b's', value) => return print_string(value),
            (b'd', Value::Int(i)) => i.to_string(),
            (b'd', Value::Uint(u)) => u.to_string(),
            (b'f' | b'e', value) => {
                let Some(d) = floating(value) else { return wrong() };
                let precision = self.precision.unwrap_or(6);
                // Upstream's printer of numbers pads these to the width of an exponent.
                match () {
                    () if self.letter == b'e' && !d.is_finite() => {
                        format!("{:>6}", if d.is_nan() { "NaN" } else if d > 0.0 { "∞" } else { "-∞" })
                    }
                    () if d.is_nan() => "NaN".into(),
                    () if d.is_infinite() => (if d > 0.0 { "∞" } else { "-∞" }).into(),
                    () if self.letter == b'f' => grouped(&format!("{d:.precision$}")),
                    () => scientific(&print_scientific(d, precision)),
                }
            }
            (b'b', Value::Int(i)) => signed(*i, |u| format!("{u:b}")),
            (b'b', Value::Uint(u)) => format!("{u:b}"),
            (b'b', Value::Bool(b)) => u8::from(*b).to_string(),
            (b'o', Value::Int(i)) => signed(*i, |u| format!("{u:o}")),
            (b'o', Value::Uint(u)) => format!("{u:o}"),
            (b'x' | b'X', value) => {
                let text = match value {
                    Value::Int(i) => signed(*i, |u| format!("{u:x}")),
                    Value::Uint(u) => format!("{u:x}"),
                    Value::String(text) => text.bytes().map(|b| format!("{b:02x}")).collect(),
                    Value::Bytes(bytes) => bytes.hex(),
                    _ => return wrong(),
                };
                if self.letter == b'X' { text.to_uppercase() } else { text }
            }
            _ => return wrong(),
        })
    }
}

fn floating(value: &Value) -> Option<f64> {
    match value {
        Value::Double(d) => Some(*d),
        Value::String(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => super::convert::parse_double(text),
        _ => None,
    }
}

fn signed(i: i64, print: fn(u64) -> String) -> String {
    format!("{}{}", if i < 0 { "-" } else { "" }, print(i.unsigned_abs()))
}

/// English groups of thousands, as upstream's printer of messages writes them.
fn grouped(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (whole, fraction) = text.split_once('.').map_or((text, ""), |(whole, _)| (whole, &text[whole.len()..]));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// `1.05 × 10²` as the same printer writes it in English.
fn scientific(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let superscript = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' => '⁰',
        c => char::from_u32(0x2070 + c as u32 - '0' as u32).unwrap_or(c),
    };
    let exponent: String = exponent.chars().filter(|c| *c != '+').map(superscript).collect();
    format!("{digits}×10{exponent}")
}

fn print_string(value: &Value) -> Printed {
    Ok(match value {
        Value::Null => "null".into(),
        Value::List(list) => {
            let items = list.iter().map(|item| print_inner(&item)).collect::<std::result::Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for (key, value) in map.entries() {
                let printed = match &key {
                    Value::String(text) => format!("{:?}", &**text),
                    Value::Bool(_) | Value::Int(_) | Value::Uint(_) => key.to_string(),
                    other => return Err(format!("no formatting function for map key of type {}", other.type_of().runtime_name())),
                };
                entries.push((printed, print_inner(&value)?));
            }
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Bool(_)
        | Value::String(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Duration(_)
        | Value::Type(_) => {
            let convert = super::body("string").ok_or("no conversion to strings")?;
            convert(std::slice::from_ref(value)).map_err(|error| error.message)?.as_str().unwrap_or_default().to_owned()
        }
        other => return Err(Clause { letter: b's', precision: None }.wrong_type(other.type_of().runtime_name())),
    })
}

/// Inside a list or map: as a literal of the language.
fn print_inner(value: &Value) -> Printed {
    Ok(match value {
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::Duration(_) => format!("duration({:?})", print_string(value)?),
        Value::Timestamp(_) => format!("timestamp({:?})", print_string(value)?),
        Value::Double(d) if d.is_nan() => "\"NaN\"".into(),
        Value::Double(d) if d.is_infinite() => (if *d > 0.0 { "\"+Inf\"" } else { "\"-Inf\"" }).into(),
        Value::Double(d) => format!("{d:.6}"),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::List(_) | Value::Map(_) | Value::Type(_) => {
            print_string(value)?
        }
        other => return Err(format!("no formatting function for {}", other.type_of().runtime_name())),
    })
}
