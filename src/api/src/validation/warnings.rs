//! Warnings that several kinds share: addresses in forms that not all programs read, labels of nodes that have gone, parts of a byte.
//!
//! Models apimachinery/pkg/util/validation/ip.go `GetWarningsForIP` and `GetWarningsForCIDR`, pkg/api/node/util.go and
//! pkg/api/persistentvolumeclaim/util.go `GetWarningsForPersistentVolumeClaimSpec`.
use std::net::IpAddr;

use super::check::*;
use crate::field_error::quote;
use crate::names::{parse_cidr_sloppy, parse_ip_sloppy};
use crate::tree::Tree;

/// An address that other programs may not read.
pub fn address(path: &str, value: &str) -> Option<String> {
    let sloppy = parse_ip_sloppy(value)?;
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let canonical = v6.to_string();
            (canonical != value).then(|| format!("{path}: IPv6 address {} should be in RFC 5952 canonical format ({})", quote(value), quote(&canonical)))
        }
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!("{path}: non-standard IP address {} is invalid: use {}", quote(value), quote(&sloppy.to_canonical().to_string()))),
    }
}

/// A range of addresses that others may read as another.
pub fn range(path: &str, value: &str) -> Vec<String> {
    let Some((ip, bits)) = parse_cidr_sloppy(value) else { return Vec::new() };
    // As Go has it, the range of a mapped address is that of the address in it.
    let is_mapped = ip.is_ipv6() && ip.to_canonical().is_ipv4();
    let (first, length) = match ip {
        IpAddr::V4(v4) => (IpAddr::from((u32::from(v4) & mask(bits, 32) as u32).to_be_bytes()), 32),
        IpAddr::V6(v6) => (IpAddr::from((u128::from(v6) & mask(bits, 128)).to_be_bytes()), 128),
    };
    let plain = |ip: IpAddr| ip.to_canonical().to_string();
    let network = format!("{}/{bits}", plain(first));
    let mut warnings = Vec::new();
    if ip != first {
        let single = format!("{}/{length}", plain(ip));
        let (shown, network, single) = (quote(value), quote(&network), quote(&single));
        warnings.push(format!("{path}: CIDR value {shown} is ambiguous in this context (should be {network} or {single}?)"));
    }
    let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
    let is_standard = address.parse::<IpAddr>().is_ok() && !is_mapped && (prefix == "0" || !prefix.starts_with('0'));
    if !is_standard {
        warnings.push(format!("{path}: non-standard CIDR value {} is invalid: use {}", quote(value), quote(&network)));
    }
    let canonical = format!("{ip}/{bits}");
    if warnings.is_empty() && ip.is_ipv6() && canonical != value {
        warnings.push(format!("{path}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({})", quote(value), quote(&canonical)));
    }
    warnings
}

/// The first `bits` of an address of `length`.
fn mask(bits: u8, length: u32) -> u128 {
    let all = u128::MAX >> (128 - length);
    all.checked_shl(length - u32::from(bits)).unwrap_or(0) & all
}

const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    ("failure-domain.beta.kubernetes.io/region", r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// What to say of a label of nodes that is no longer used.
pub fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, text)| *text)
}

/// Of a `NodeSelectorTerm`.
pub fn node_term(term: &Tree, path: &str, checks_values: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, expression) in list(term, "matchExpressions").iter().enumerate() {
        let key = text(expression, "key");
        warnings.extend(node_label(key).map(|text| format!("{path}.matchExpressions[{i}].key: {key} is {text}")));
        for (j, value) in strings(expression, "values").into_iter().enumerate().filter(|_| checks_values) {
            let wrong = crate::names::label_value(value);
            warnings.extend(wrong.into_iter().map(|text| format!("{path}.matchExpressions[{i}].values[{j}]: {value} is invalid, {text}")));
        }
    }
    warnings
}

/// Of the spec of a PersistentVolumeClaim.
pub fn claim_spec(spec: &Tree, path: &str) -> Vec<String> {
    let amounts = ["requests", "limits"].into_iter().filter_map(|kind| Some((kind, crate::quantity::from_tree(spec.at(&["resources", kind, "storage"])?)?)));
    let in_pieces = amounts.filter(|(_, amount)| amount.milli_value() % 1000 != 0);
    let worded = in_pieces.map(|(kind, amount)| {
        let shown = quote(&amount.to_string());
        format!("{path}.resources.{kind}[storage]: fractional byte value {shown} is invalid, must be an integer")
    });
    worded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_not_all_read_are_named_as_they_should_be() {
        assert_eq!(address("a", "10.0.0.1"), None);
        assert_eq!(address("a", "010.0.0.1").as_deref(), Some(r#"a: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#));
        assert_eq!(address("a", "::ffff:1.2.3.4").as_deref(), Some(r#"a: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4""#));
        assert_eq!(address("a", "2001:DB8::1").as_deref(), Some(r#"a: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#));
    }

    #[test]
    fn ranges_that_not_all_read_are_named_as_they_should_be() {
        assert_eq!([range("a", "10.0.0.0/8"), range("a", "0.0.0.0/0"), range("a", "::/0"), range("a", "2001:db8::/64")].concat(), [""; 0]);
        let ambiguous = |value: &str, range: &str, one: &str| format!("a: CIDR value \"{value}\" is ambiguous in this context (should be \"{range}\" or \"{one}\"?)");
        assert_eq!(range("a", "10.1.2.3/8"), [ambiguous("10.1.2.3/8", "10.0.0.0/8", "10.1.2.3/32")]);
        assert_eq!(range("a", "2001:db8::1/64"), [ambiguous("2001:db8::1/64", "2001:db8::/64", "2001:db8::1/128")]);
        assert_eq!(range("a", "010.0.0.0/8"), [r#"a: non-standard CIDR value "010.0.0.0/8" is invalid: use "10.0.0.0/8""#]);
        assert_eq!(range("a", "10.0.0.0/08"), [r#"a: non-standard CIDR value "10.0.0.0/08" is invalid: use "10.0.0.0/8""#]);
        assert_eq!(range("a", "2001:DB8::/64"), [r#"a: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#]);
    }
}
