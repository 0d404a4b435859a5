//! What a name below the cluster's domain asks for. Pure.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// A name of the cluster, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The domain itself.
    Domain,
    /// `dns-version`
    Version,
    /// `ns.dns`, the name in the SOA record.
    NameServer,
    /// `svc`, `pod`, `dns` or `NAMESPACE.pod`: names below it exist.
    Between,
    /// `NAMESPACE.svc`
    Namespace(String),
    /// `SERVICE.NAMESPACE.svc`
    Service { namespace: String, service: String },
    /// `HOST.SERVICE.NAMESPACE.svc`
    Endpoint { namespace: String, service: String, host: String },
    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`
    Port { namespace: String, service: String, protocol: String, port: String },
    /// `A-B-C-D.NAMESPACE.pod`
    Pod(IpAddr),
    /// Nothing can have this name.
    Nothing,
}

/// Takes `name` apart; `None` when it is not below `domain`.
pub(crate) fn parse(name: &Name, domain: &Name) -> Option<Asked> {
    if !domain.zone_of(name) {
        return None;
    }
    let count = usize::from(name.num_labels() - domain.num_labels());
    let mut labels = Vec::with_capacity(count);
    for label in name.iter().take(count) {
        let Ok(label) = std::str::from_utf8(label) else {
            return Some(Asked::Nothing);
        };
        labels.push(label.to_ascii_lowercase());
    }
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let own = |text: &str| text.to_owned();
    Some(match labels[..] {
        [] => Asked::Domain,
        ["dns-version"] => Asked::Version,
        ["ns", "dns"] => Asked::NameServer,
        ["svc" | "pod" | "dns"] | [_, "pod"] => Asked::Between,
        [namespace, "svc"] => Asked::Namespace(own(namespace)),
        [service, namespace, "svc"] => Asked::Service { namespace: own(namespace), service: own(service) },
        [host, service, namespace, "svc"] => Asked::Endpoint { namespace: own(namespace), service: own(service), host: own(host) },
        [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
            (Some(port), Some(protocol)) => {
                Asked::Port { namespace: own(namespace), service: own(service), protocol: own(protocol), port: own(port) }
            }
            _ => Asked::Nothing,
        },
        [address, _, "pod"] => dashed(address).map_or(Asked::Nothing, Asked::Pod),
        _ => Asked::Nothing,
    })
}

/// `10-42-0-7`, or an IPv6 address with dashes for colons.
fn dashed(label: &str) -> Option<IpAddr> {
    if let Ok(ip) = label.replace('-', ".").parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// The address in a name below `in-addr.arpa` or `ip6.arpa`.
pub(crate) fn reverse(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name.iter().map(|l| std::str::from_utf8(l).unwrap_or("")).collect();
    let (digits, zone) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    if !zone[1].eq_ignore_ascii_case("arpa") {
        return None;
    }
    if zone[0].eq_ignore_ascii_case("in-addr") {
        let mut octets = [0u8; 4];
        if digits.len() != octets.len() {
            return None;
        }
        for (octet, digit) in octets.iter_mut().zip(digits.iter().rev()) {
            *octet = digit.parse().ok()?;
        }
        return Some(Ipv4Addr::from(octets).into());
    }
    if zone[0].eq_ignore_ascii_case("ip6") && digits.len() == 32 {
        let mut bits = 0u128;
        for digit in digits.iter().rev() {
            let one = u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
            bits = (bits << 4) | one;
        }
        return Some(Ipv6Addr::from(bits).into());
    }
    None
}
