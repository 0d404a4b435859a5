//! Conversions between types. Models `ConvertToType` of cel-go common/types.
use super::{Body, Result, error};
use crate::special::Special;
use crate::time::{Timestamp, parse_duration, parse_timestamp, print_duration};
use crate::value::{Octets, Value};

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "bool" => to_bool,
        "bytes" => to_bytes,
        "double" => to_double,
        "duration" => to_duration,
        "dyn" => |args| Ok(args[0].clone()),
        "int" => to_int,
        "string" => to_string,
        "timestamp" => to_timestamp,
        "uint" => to_uint,
        _ => return None,
    })
}

fn cannot<'a>(value: &Value, to: &str) -> Result<'a> {
    error(format!("type conversion error from '{}' to '{to}'", value.type_of().runtime_name()))
}

fn to_bool<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Bool(b) => Ok(Value::Bool(*b)),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => cannot(&args[0], "bool"),
        },
        other => cannot(other, "bool"),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
        Value::String(text) => Ok(Value::Bytes(Octets::Shared(text.as_bytes().into()))),
        other => cannot(other, "bytes"),
    }
}

fn to_double<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Double(d) => Ok(Value::Double(*d)),
        Value::Int(i) => Ok(Value::Double(*i as f64)),
        Value::Uint(u) => Ok(Value::Double(*u as f64)),
        Value::String(text) => match parse_double(text) {
            Some(d) => Ok(Value::Double(d)),
            None => cannot(&args[0], "double"),
        },
        other => cannot(other, "double"),
    }
}

/// Go's `strconv.ParseFloat`, without hexadecimal.
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    let named = matches!(&*bare.to_ascii_lowercase(), "inf" | "infinity" | "nan");
    if !named && !bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let d: f64 = text.parse().ok()?;
    (named || d.is_finite()).then_some(d)
}

fn to_int<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Int(i) => Ok(Value::Int(*i)),
        Value::Uint(u) => i64::try_from(*u).map_or_else(|_| error("integer overflow"), |i| Ok(Value::Int(i))),
        Value::Double(d) => {
            // Both ends are left out: they may be rounded.
            if d.is_nan() || *d <= i64::MIN as f64 || *d >= i64::MAX as f64 {
                return error("integer overflow");
            }
            Ok(Value::Int(*d as i64))
        }
        Value::String(text) => text.parse().map_or_else(|_| cannot(&args[0], "int"), |i| Ok(Value::Int(i))),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        Value::Timestamp(at) => Ok(Value::Int(at.seconds)),
        other => cannot(other, "int"),
    }
}

fn to_uint<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Uint(u) => Ok(Value::Uint(*u)),
        Value::Int(i) => u64::try_from(*i).map_or_else(|_| error("unsigned integer overflow"), |u| Ok(Value::Uint(u))),
        Value::Double(d) => {
            if d.is_nan() || *d < 0.0 || *d >= u64::MAX as f64 {
                return error("unsigned integer overflow");
            }
            Ok(Value::Uint(*d as u64))
        }
        Value::String(text) if !text.starts_with('+') => text.parse().map_or_else(|_| cannot(&args[0], "uint"), |u| Ok(Value::Uint(u))),
        other => cannot(other, "uint"),
    }
}

fn to_string<'a>(args: &[Value<'a>]) -> Result<'a> {
    Ok(Value::from(match &args[0] {
        Value::String(_) => return Ok(args[0].clone()),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => crate::number::print_double(*d),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return error("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Duration(nanos) => print_duration(*nanos),
        Value::Timestamp(at) => at.print(),
        Value::Type(of) => of.runtime_name().to_owned(),
        Value::Null => "null".to_owned(),
        Value::Special(of) => match &**of {
            Special::Ip(ip) => ip.to_string(),
            Special::Cidr { address, bits } => format!("{address}/{bits}"),
            _ => return cannot(&args[0], "string"),
        },
        other => return cannot(other, "string"),
    }))
}

fn to_duration<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Duration(nanos) => Ok(Value::Duration(*nanos)),
        Value::Int(i) => Ok(Value::Duration(*i)),
        Value::String(text) => match parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => cannot(&args[0], "google.protobuf.Duration"),
        },
        other => cannot(other, "google.protobuf.Duration"),
    }
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Result<'a> {
    match &args[0] {
        Value::Timestamp(at) => Ok(Value::Timestamp(*at)),
        Value::Int(seconds) => Timestamp::of(*seconds, 0).map_or_else(|| error("timestamp overflow"), |at| Ok(Value::Timestamp(at))),
        Value::String(text) => match parse_timestamp(text) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => cannot(&args[0], "google.protobuf.Timestamp"),
        },
        other => cannot(other, "google.protobuf.Timestamp"),
    }
}
