//! URLs. Models k8s.io/apiserver/pkg/cel/library/urls.go and Go's net/url.
use super::{Body, Result, error, no_overload};
use crate::map::{Entries, Map};
use crate::special::Special;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "url" => |args| match args[0].as_str().map(parse) {
            Some(Ok(url)) => Ok(Value::special(Special::Url(url))),
            Some(Err(why)) => error(format!("URL parse error during conversion from string: {why}")),
            None => no_overload(),
        },
        "isURL" => |args| args[0].as_str().map_or_else(no_overload, |text| Ok(Value::Bool(parse_request(text).is_ok()))),
        "getScheme" => |args| on(args, |url| url.scheme.clone()),
        "getHost" => |args| on(args, |url| url.host.clone()),
        "getHostname" => |args| on(args, |url| url.hostname().to_owned()),
        "getPort" => |args| on(args, |url| url.port().to_owned()),
        "getEscapedPath" => |args| on(args, |url| url.path.clone()),
        "getQuery" => query,
        _ => return None,
    })
}

/// The parts of a URL that functions read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// Unescaped; with the port.
    host: String,
    /// Escaped.
    path: String,
    query: String,
    rest: String,
}

fn on<'a>(args: &[Value<'a>], read: fn(&Url) -> String) -> Result<'a> {
    match args[0].as_special() {
        Some(Special::Url(url)) => Ok(Value::from(read(url))),
        _ => no_overload(),
    }
}

impl Url {
    fn split_port(&self) -> (&str, &str) {
        match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
            _ => (&self.host, ""),
        }
    }

    fn hostname(&self) -> &str {
        let (host, _) = self.split_port();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> &str {
        self.split_port().1
    }
}

/// What may stand unescaped in which part.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Path,
    Host,
    Zone,
    UserInfo,
    QueryComponent,
}

/// Undoes `%41`; an escape that is none is an error, and in hosts only few are.
fn unescape(text: &str, part: Part) -> std::result::Result<String, String> {
    let wrong = |at: usize| {
        let shown: String = text[at..].chars().take(3).collect();
        format!("invalid URL escape {shown:?}")
    };
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    let bytes = text.as_bytes();
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let hex = bytes.get(i + 1..i + 3).and_then(|hex| std::str::from_utf8(hex).ok());
                let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or_else(|| wrong(i))?;
                if part == Part::Host && code < 0x80 && &bytes[i..i + 3] != b"%25" {
                    return Err(wrong(i));
                }
                out.push(code);
                i += 3;
            }
            b'+' if part == Part::QueryComponent => {
                out.push(b' ');
                i += 1;
            }
            b if matches!(part, Part::Host | Part::Zone) && b < 0x80 && !host_char(b) => {
                return Err(format!("invalid character {:?} in host name", (b as char).to_string()));
            }
            b => {
                out.push(b);
                i += 1;
            }
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn host_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b)
}

fn parse(text: &str) -> std::result::Result<Url, String> {
    parse_request(text)?;
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    unescape(fragment, Part::Path).map_err(|why| shown(text, &why))?;
    read(text, false).map_err(|why| shown(text, &why))
}

/// Go's `url.ParseRequestURI`: absolute, or a path from the root.
pub(crate) fn parse_request(text: &str) -> std::result::Result<Url, String> {
    read(text, true).map_err(|why| shown(text, &why))
}

fn shown(text: &str, why: &str) -> String {
    format!("parse {text:?}: {why}")
}

fn read(text: &str, request: bool) -> std::result::Result<Url, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if text.is_empty() && request {
        return Err("empty url".into());
    }
    let mut url = Url { scheme: String::new(), host: String::new(), path: String::new(), query: String::new(), rest: String::new() };
    if text == "*" {
        url.path = "*".into();
        return Ok(url);
    }
    let mut rest = text;
    let letters = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count();
    if text.as_bytes().get(letters) == Some(&b':') {
        if letters == 0 {
            return Err("missing protocol scheme".into());
        }
        if text.as_bytes()[0].is_ascii_alphabetic() {
            url.scheme = text[..letters].to_ascii_lowercase();
            rest = &text[letters + 1..];
        }
    }
    if let Some((before, query)) = rest.split_once('?') {
        url.query = query.to_owned();
        rest = before;
    }
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            url.rest = rest.to_owned();
            return Ok(url);
        }
        if request {
            return Err("invalid URI for request".into());
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    let has_authority = !url.scheme.is_empty() || (!request && !rest.starts_with("///"));
    if let Some(after) = rest.strip_prefix("//").filter(|_| has_authority) {
        let end = after.find('/').unwrap_or(after.len());
        url.host = authority(&after[..end])?;
        url.rest = after[..end].to_owned();
        rest = &after[end..];
    }
    unescape(rest, Part::Path)?;
    url.path = escaped_path(rest);
    Ok(url)
}

fn authority(text: &str) -> std::result::Result<String, String> {
    let host = match text.rsplit_once('@') {
        Some((user, host)) => {
            unescape(user, Part::UserInfo)?;
            let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
            if !user.bytes().all(fine) {
                return Err("net/url: invalid userinfo".into());
            }
            host
        }
        None => text,
    };
    let check_port = |port: &str| {
        let fine = port.is_empty() || (port.starts_with(':') && port[1..].bytes().all(|b| b.is_ascii_digit()));
        if fine { Ok(()) } else { Err(format!("invalid port {port:?} after host")) }
    };
    if host.starts_with('[') {
        let Some(end) = host.rfind(']') else { return Err("missing ']' in host".into()) };
        check_port(&host[end + 1..])?;
        if let Some(zone) = host[..end].find("%25") {
            return Ok(unescape(&host[..zone], Part::Host)? + &unescape(&host[zone..end], Part::Zone)? + &host[end..]);
        }
    } else if let Some(colon) = host.rfind(':') {
        check_port(&host[colon..])?;
    }
    unescape(host, Part::Host)
}

/// A path with all escaped that must be; what is escaped stays.
fn escaped_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        let plain = b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]/%".contains(&b);
        if plain { out.push(b as char) } else { out.push_str(&format!("%{b:02X}")) }
    }
    out
}

fn query<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Some(Special::Url(url)) = args[0].as_special() else { return no_overload() };
    let mut found: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Ok(key), Ok(value)) = (unescape(key, Part::QueryComponent), unescape(value, Part::QueryComponent)) else { continue };
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(Value::from(value)),
            None => found.push((key, vec![Value::from(value)])),
        }
    }
    let mut made = Entries::default();
    found.into_iter().for_each(|(key, values)| made.set(Value::from(key), Value::from(values)));
    Ok(Value::Map(Map::made(made)))
}
