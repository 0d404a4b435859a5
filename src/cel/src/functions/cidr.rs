//! Networks. Models k8s.io/apiserver/pkg/cel/library/cidr.go and Go's net/netip.
use std::net::IpAddr;

use super::{Body, Result, error, ip, no_overload};
use crate::special::Special;
use crate::value::Value;

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "cidr" => |args| args[0].as_str().map_or_else(no_overload, |text| parse(text).map_or_else(twice, |(a, b)| Ok(made(a, b)))),
        "isCIDR" => |args| args[0].as_str().map_or_else(no_overload, |text| Ok(Value::Bool(parse(text).is_ok()))),
        "containsIP" => contains_ip,
        "containsCIDR" => contains_cidr,
        "prefixLength" => |args| on(args, |_, bits| Value::Int(i64::from(bits))),
        "masked" => |args| on(args, |address, bits| made(mask(address, bits), bits)),
        _ => return None,
    })
}

/// Upstream says it at both of two levels.
fn twice<'a>(why: String) -> Result<'a> {
    error(format!("network address parse error during conversion from string: {why}"))
}

fn made<'a>(address: IpAddr, bits: u8) -> Value<'a> {
    Value::special(Special::Cidr { address, bits })
}

fn on<'a>(args: &[Value<'a>], run: fn(IpAddr, u8) -> Value<'a>) -> Result<'a> {
    match args[0].as_special() {
        Some(Special::Cidr { address, bits }) => Ok(run(*address, *bits)),
        _ => no_overload(),
    }
}

fn parse(text: &str) -> std::result::Result<(IpAddr, u8), String> {
    let wrong = |why: &str| format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}");
    let Some((address, bits)) = text.rsplit_once('/') else { return Err(wrong("no '/'")) };
    if address.contains('%') {
        return Err(wrong("IPv6 zones cannot be present in a prefix"));
    }
    let address: IpAddr = address.parse().map_err(|_| {
        let why = ip::why_not(address);
        wrong(why.split_once("): ").map_or(&*why, |(_, why)| why))
    })?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let shaped = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    if !shaped {
        return Err(wrong(&format!("bad bits after slash: {bits:?}")));
    }
    let bits = bits.parse::<u32>().ok().filter(|bits| *bits <= most).ok_or_else(|| wrong("prefix length out of range"))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed")),
        address => Ok((address, bits as u8)),
    }
}

fn mask(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into()),
    }
}

fn contains(address: IpAddr, bits: u8, other: IpAddr) -> bool {
    address.is_ipv4() == other.is_ipv4() && mask(address, bits) == mask(other, bits)
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Some(Special::Cidr { address, bits }) = args[0].as_special() else { return no_overload() };
    let other = match (args[1].as_special(), args[1].as_str()) {
        (Some(Special::Ip(other)), _) => *other,
        (_, Some(text)) => match ip::parse(text) {
            Ok(other) => other,
            Err(_) => return no_overload(),
        },
        _ => return no_overload(),
    };
    Ok(Value::Bool(contains(*address, *bits, other)))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Result<'a> {
    let Some(Special::Cidr { address, bits }) = args[0].as_special() else { return no_overload() };
    let (other, other_bits) = match (args[1].as_special(), args[1].as_str()) {
        (Some(Special::Cidr { address, bits }), _) => (*address, *bits),
        (_, Some(text)) => match parse(text) {
            Ok(other) => other,
            Err(why) => return twice(why),
        },
        _ => return no_overload(),
    };
    Ok(Value::Bool(*bits <= other_bits && contains(*address, *bits, other)))
}
