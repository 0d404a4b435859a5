//! IP addresses. Models k8s.io/apiserver/pkg/cel/library/ip.go and Go's net/netip.
use std::net::{IpAddr, Ipv6Addr};

use super::{Body, Result, error, no_overload};
use crate::special::Special;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "ip" => |args| match args[0].as_special() {
            Some(Special::Cidr { address, .. }) => Ok(made(*address)),
            _ => args[0].as_str().map_or_else(no_overload, |text| parse(text).map_or_else(error, |ip| Ok(made(ip)))),
        },
        "isIP" => |args| args[0].as_str().map_or_else(no_overload, |text| Ok(Value::Bool(parse(text).is_ok()))),
        "ip.isCanonical" => |args| {
            let Some(text) = args[0].as_str() else { return no_overload() };
            parse(text).map_or_else(error, |ip| Ok(Value::Bool(ip.to_string() == text)))
        },
        "family" => |args| on(args, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |args| on(args, |ip| Value::Bool(ip.is_unspecified())),
        "isLoopback" => |args| on(args, |ip| Value::Bool(ip.is_loopback())),
        "isLinkLocalMulticast" => |args| on(args, |ip| Value::Bool(is_link_local_multicast(ip))),
        "isLinkLocalUnicast" => |args| on(args, |ip| Value::Bool(is_link_local_unicast(ip))),
        "isGlobalUnicast" => |args| on(args, |ip| Value::Bool(is_global_unicast(ip))),
        _ => return None,
    })
}

fn made<'a>(ip: IpAddr) -> Value<'a> {
    Value::special(Special::Ip(ip))
}

fn on<'a>(args: &[Value<'a>], run: fn(&IpAddr) -> Value<'a>) -> Result<'a> {
    match args[0].as_special() {
        Some(Special::Ip(ip)) => Ok(run(ip)),
        _ => no_overload(),
    }
}

pub(crate) fn parse(text: &str) -> std::result::Result<IpAddr, String> {
    if let Some((address, zone)) = text.split_once('%')
        && !zone.is_empty()
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let ip: IpAddr =
        text.parse().map_err(|_| format!("IP Address {text:?} parse error during conversion from string: {}", why_not(text)))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed")),
        ip => Ok(ip),
    }
}

/// Go's words for what is no address.
pub(crate) fn why_not(text: &str) -> String {
    let shown = format!("ParseAddr({text:?})");
    let Some(mark) = text.bytes().find(|b| matches!(b, b'.' | b':' | b'%')) else { return format!("{shown}: unable to parse IP") };
    match mark {
        b'.' => v4_reason(text).map_or_else(|| format!("{shown}: unable to parse IP"), |why| format!("{shown}: {why}")),
        b'%' => format!("{shown}: missing IPv6 address"),
        _ => v6_reason(text).map_or_else(|| format!("{shown}: unable to parse IP"), |why| format!("{shown}: {why}")),
    }
}

fn v4_reason(text: &str) -> Option<String> {
    let (mut fields, mut value, mut digits) = (0, 0u32, 0);
    let bytes = text.as_bytes();
    for (i, b) in bytes.iter().enumerate() {
        match b {
            b'0'..=b'9' => {
                if digits == 1 && value == 0 {
                    return Some("IPv4 field has octet with leading zero".into());
                }
                value = value * 10 + u32::from(b - b'0');
                digits += 1;
                if value > 255 {
                    return Some("IPv4 field has value >255".into());
                }
            }
            b'.' => {
                if i == 0 || i == bytes.len() - 1 || bytes[i - 1] == b'.' {
                    return Some(format!("IPv4 field must have at least one digit (at {:?})", &text[i..]));
                }
                if fields == 3 {
                    return Some("IPv4 address too long".into());
                }
                fields += 1;
                value = 0;
                digits = 0;
            }
            _ => return Some(format!("unexpected character (at {:?})", text.get(i..).unwrap_or(""))),
        }
    }
    (fields < 3).then(|| "IPv4 address too short".into())
}

fn v6_reason(text: &str) -> Option<String> {
    let mut rest = text;
    let mut ellipsis = false;
    if let Some(after) = rest.strip_prefix("::") {
        ellipsis = true;
        rest = after;
        if rest.is_empty() {
            return None;
        }
    }
    let mut groups = 0;
    while groups < 8 {
        let hex = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if hex > 4 {
            return Some(format!("IPv6 field has value >=2^16 (at {rest:?})").replace("value >=2^16", "value >=2^16"));
        }
        if hex == 0 {
            return Some(format!("each colon-separated field must have at least one digit (at {rest:?})"));
        }
        if rest.as_bytes().get(hex) == Some(&b'.') {
            return Some("invalid IPv4-in-IPv6".into());
        }
        groups += 1;
        rest = &rest[hex..];
        if rest.is_empty() {
            break;
        }
        if !rest.starts_with(':') {
            return Some(format!("unexpected character, want colon (at {rest:?})"));
        }
        if rest.len() == 1 {
            return Some(format!("colon must be followed by more characters (at {rest:?})"));
        }
        rest = &rest[1..];
        if rest.starts_with(':') {
            if ellipsis {
                return Some(format!("multiple :: in address (at {rest:?})"));
            }
            ellipsis = true;
            rest = &rest[1..];
            if rest.is_empty() {
                break;
            }
        }
    }
    if !rest.is_empty() {
        return Some(format!("trailing garbage after address (at {rest:?})"));
    }
    if groups < 8 && !ellipsis {
        return Some("address string too short".into());
    }
    Some("the :: must expand to at least one field of zeros".into())
}

fn is_link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_global_unicast(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !broadcast && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local_unicast(ip)
}
