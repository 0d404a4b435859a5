//! Regular expressions. Models k8s.io/apiserver/pkg/cel/library/regex.go; what a pattern is, [`crate::pattern`] says.
use super::{Body, Result, error, no_overload};
use crate::pattern::recent;
use crate::value::{Text, Value};

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "matches" => |args| with(args, |message| error(message), matches_with),
        "find" => |args| with(args, |message| error(format!("Illegal regex: {message}")), find_with),
        "findAll" => |args| with(args, |message| error(format!("Illegal regex: {message}")), find_all_with),
        _ => return None,
    })
}

type Run = for<'a> fn(&regex::Regex, &[Value<'a>]) -> Result<'a>;

fn with<'a>(args: &[Value<'a>], illegal: fn(String) -> Result<'a>, run: Run) -> Result<'a> {
    let Some(pattern) = args[1].as_str() else { return no_overload() };
    match recent(pattern) {
        Ok(regex) => run(&regex, args),
        Err(message) => illegal(message),
    }
}

/// What runs a function whose pattern was compiled beforehand.
pub(crate) fn compiled(name: &str) -> Option<Run> {
    Some(match name {
        "matches" => matches_with,
        "find" => find_with,
        "findAll" => find_all_with,
        _ => return None,
    })
}

fn matches_with<'a>(regex: &regex::Regex, args: &[Value<'a>]) -> Result<'a> {
    args[0].as_str().map_or_else(no_overload, |text| Ok(Value::Bool(regex.is_match(text))))
}

fn find_with<'a>(regex: &regex::Regex, args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::String(Text::Borrowed(text)) => Ok(Value::str(regex.find(text).map_or("", |found| found.as_str()))),
        Value::String(Text::Shared(text)) => Ok(Value::from(regex.find(text).map_or("", |found| found.as_str()).to_owned())),
        _ => no_overload(),
    }
}

fn find_all_with<'a>(regex: &regex::Regex, args: &[Value<'a>]) -> Result<'a> {
    let Some(text) = args[0].as_str() else { return no_overload() };
    let most = match args.get(2) {
        None => usize::MAX,
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        Some(_) => return no_overload(),
    };
    Ok(Value::from(regex.find_iter(text).take(most).map(|found| Value::from(found.as_str().to_owned())).collect::<Vec<_>>()))
}
