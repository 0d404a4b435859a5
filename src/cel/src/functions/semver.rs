//! Semantic versions. Models k8s.io/apiserver/pkg/cel/library/semverlib.go and blang/semver v4.
use std::cmp::Ordering;

use super::{Body, Result, error, no_overload};
use crate::special::Special;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "semver" => |args| match read(args) {
            Some(Ok(version)) => Ok(Value::special(Special::Semver(version))),
            Some(Err(why)) => error(why),
            None => no_overload(),
        },
        "isSemver" => |args| read(args).map_or_else(no_overload, |read| Ok(Value::Bool(read.is_ok()))),
        "major" => |args| part(args, |version| version.numbers[0]),
        "minor" => |args| part(args, |version| version.numbers[1]),
        "patch" => |args| part(args, |version| version.numbers[2]),
        _ => return None,
    })
}

/// `1.2.3-rc.1+build`; the build does not count.
#[derive(Clone, Debug)]
pub struct SemanticVersion {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl SemanticVersion {
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        })
    }
}

fn versions<'v, 'a>(args: &'v [Value<'a>], at: usize) -> Option<&'v SemanticVersion> {
    match args[at].as_special() {
        Some(Special::Semver(version)) => Some(version),
        _ => None,
    }
}

pub(crate) fn order(args: &[Value]) -> Option<Ordering> {
    Some(versions(args, 0)?.cmp(versions(args, 1)?))
}

fn part<'a>(args: &[Value<'a>], which: fn(&SemanticVersion) -> u64) -> Result<'a> {
    versions(args, 0).map_or_else(no_overload, |version| Ok(Value::Int(which(version) as i64)))
}

type Read = std::result::Result<SemanticVersion, String>;

fn read(args: &[Value]) -> Option<Read> {
    let text = args[0].as_str()?;
    match args.get(1) {
        None => Some(parse(text)),
        Some(Value::Bool(false)) => Some(parse(text)),
        Some(Value::Bool(true)) => Some(normalize(text).and_then(|text| parse(&text))),
        Some(_) => None,
    }
}

fn normalize(text: &str) -> std::result::Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in &mut parts {
        if part.len() > 1 {
            let stripped = part.trim_start_matches('0');
            let zero = if stripped.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
            *part = format!("{zero}{stripped}");
        }
    }
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
    }
    Ok(parts.join("."))
}

pub(crate) fn parse(text: &str) -> Read {
    if text.is_empty() {
        return Err("Version string empty".into());
    }
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let &[major, minor, rest] = &parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
    let numbers = [number("Major", major)?, number("Minor", minor)?, number("Patch", patch)?];
    let pre = pre.into_iter().flat_map(|pre| pre.split('.')).map(identifier).collect::<std::result::Result<_, _>>()?;
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".into());
        }
        if !is_identifier(part) {
            return Err(format!("Invalid character(s) found in build meta data {part:?}"));
        }
    }
    Ok(SemanticVersion { numbers, pre })
}

fn number(name: &str, text: &str) -> std::result::Result<u64, String> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {} number {text:?}", name.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| match text {
        "" => "strconv.ParseUint: parsing \"\": invalid syntax".to_owned(),
        _ => format!("strconv.ParseUint: parsing {text:?}: value out of range"),
    })
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn identifier(text: &str) -> std::result::Result<Identifier, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".into());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text.parse().map(Identifier::Number).map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    if !is_identifier(text) {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    Ok(Identifier::Text(text.to_owned()))
}
