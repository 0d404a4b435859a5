//! Which fields a configuration may have, and of which type.
use api::field_error::FieldError;
use api::tree::Tree;

pub enum Shape {
    Text,
    Flag,
    /// A time as Go writes it.
    Time,
    List(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}

const ERRORS_MAX: usize = 100;

/// Unknown fields as a strict decoder words them, and values of another type.
pub fn check(tree: &Tree, shape: &Shape, path: &str, unknown: &mut Vec<String>, errors: &mut Vec<FieldError>) {
    if tree.is_null() || errors.len() + unknown.len() >= ERRORS_MAX {
        return;
    }
    let mut wrong = |expected: &str| errors.push(FieldError::invalid(path, tree, format!("must be {expected}")));
    match shape {
        Shape::Text if tree.as_str().is_none() => wrong("a string"),
        Shape::Flag if tree.as_bool().is_none() => wrong("true or false"),
        Shape::Time if tree.as_str().and_then(duration_nanos).is_none() => wrong("a duration, like 30s or 5m"),
        Shape::Text | Shape::Flag | Shape::Time => {}
        Shape::List(of) => match tree.as_array() {
            Some(items) => items.iter().enumerate().for_each(|(i, item)| check(item, of, &format!("{path}[{i}]"), unknown, errors)),
            None => wrong("a list"),
        },
        Shape::Object(fields) => {
            let Some(object) = tree.as_object() else { return wrong("an object") };
            for (name, value) in object.iter() {
                let at = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                match fields.iter().find(|(known, _)| *known == name) {
                    Some((_, shape)) => check(value, shape, &at, unknown, errors),
                    None => unknown.push(format!("unknown field \"{at}\"")),
                }
            }
        }
    }
}

/// `1h30m`, `-5s`, `0`: Go's time.ParseDuration, in nanoseconds.
pub fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        total += number
            * match &after[..unit_end] {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &after[unit_end..];
    }
    (text.len() > 1 && total < 9.2e18).then_some(if negative { -(total as i64) } else { total as i64 })
}
