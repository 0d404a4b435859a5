//! What names, labels, ports and addresses may look like.
//!
//! Models apimachinery/pkg/util/validation and apimachinery/pkg/api/validate/content. Each check returns upstream's texts, none when
//! the value is fine. Written as byte scans: a regular expression engine is not needed for these.
use std::net::{IpAddr, Ipv4Addr};

const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;

type Texts = Vec<String>;

fn is_alnum_lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `first rest* last` over byte classes, at least one byte.
fn shaped(s: &str, first: impl Fn(u8) -> bool, middle: impl Fn(u8) -> bool, last: impl Fn(u8) -> bool) -> bool {
    match s.as_bytes() {
        [] => false,
        [only] => first(*only),
        [a, rest @ .., z] => first(*a) && rest.iter().all(|b| middle(*b)) && last(*z),
    }
}

fn is_label_shaped(s: &str) -> bool {
    shaped(s, is_alnum_lower, |b| is_alnum_lower(b) || b == b'-', is_alnum_lower)
}

fn is_subdomain_shaped(s: &str) -> bool {
    s.split('.').all(is_label_shaped)
}

fn is_name_part_shaped(s: &str) -> bool {
    shaped(
        s,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b),
        |b| b.is_ascii_alphanumeric(),
    )
}

/// Upstream's util/validation says characters, its validate/content (label keys and values) bytes; both count bytes.
pub fn max_length(bytes: usize) -> String {
    format!("must be no more than {bytes} characters")
}

fn max_bytes(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

/// `msg (e.g. 'a',  or 'b', regex used for validation is '..')`: the odd spacing is upstream's.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    let mut out = format!("{message} (");
    for (i, example) in examples.iter().enumerate() {
        out.push_str(if i == 0 { "e.g. " } else { " or " });
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{regex}')"));
    out
}

pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const NAME_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const NAME_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// A DNS label as RFC 1123 has it: most names that become host names.
pub fn dns1123_label(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        texts.push(max_length(LABEL_BYTES_MAX));
    }
    if !is_label_shaped(value) {
        texts.push(if is_subdomain_shaped(value) {
            "must not contain dots".to_owned()
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            regex_error(message, LABEL_FORMAT, &["my-name", "123-abc"])
        });
    }
    texts
}

/// The same as checks that types declare word it.
pub fn short_name(value: &str) -> Texts {
    let mut texts = dns1123_label(value);
    if value.len() > LABEL_BYTES_MAX {
        texts[0] = max_bytes(LABEL_BYTES_MAX);
    }
    texts
}

/// A DNS subdomain as RFC 1123 has it: most names of objects.
pub fn dns1123_subdomain(value: &str) -> Texts {
    subdomain(value, max_length)
}

/// The same as checks that types declare word it.
pub fn long_name(value: &str) -> Texts {
    subdomain(value, max_bytes)
}

/// The same in letters of any case.
pub fn long_name_caseless(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        texts.push(max_bytes(SUBDOMAIN_BYTES_MAX));
    }
    if !is_subdomain_shaped(&value.to_ascii_lowercase()) {
        let message = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        texts.push(regex_error(message, SUBDOMAIN_FORMAT, &["Example.com"]));
    }
    texts
}

fn subdomain(value: &str, too_long: fn(usize) -> String) -> Texts {
    let mut texts = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        texts.push(too_long(SUBDOMAIN_BYTES_MAX));
    }
    if !is_subdomain_shaped(value) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        texts.push(regex_error(message, SUBDOMAIN_FORMAT, &["example.com"]));
    }
    texts
}

/// The same with underscores, as search domains may have them.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        texts.push(max_length(SUBDOMAIN_BYTES_MAX));
    }
    let label = |l: &str| {
        let l = l.strip_prefix('_').unwrap_or(l);
        shaped(l, is_alnum_lower, |b| is_alnum_lower(b) || b == b'-' || b == b'_', is_alnum_lower)
    };
    if !value.split('.').all(label) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        let format = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        texts.push(regex_error(message, format, &["example.com"]));
    }
    texts
}

/// A DNS label as RFC 1035 has it: names of Services.
pub fn dns1035_label(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        texts.push(max_length(LABEL_BYTES_MAX));
    }
    if !shaped(value, |b| b.is_ascii_lowercase(), |b| is_alnum_lower(b) || b == b'-', is_alnum_lower) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        texts.push(regex_error(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    texts
}

/// `*.example.com`
pub fn wildcard_dns1123_subdomain(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        texts.push(max_length(SUBDOMAIN_BYTES_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain_shaped) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        texts.push(regex_error(message, &format!(r"\*\.{SUBDOMAIN_FORMAT}"), &["*.example.com"]));
    }
    texts
}

/// A label key: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Texts {
    let mut texts = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                texts.push("prefix part must be non-empty".to_owned());
            } else {
                texts.extend(subdomain(prefix, max_bytes).into_iter().map(|t| format!("prefix part {t}")));
            }
            name
        }
        _ => {
            let text = regex_error(NAME_MESSAGE, NAME_FORMAT, &["MyName", "my.name", "123-abc"]);
            return vec![format!("a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        texts.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        texts.push(format!("name part {}", max_bytes(LABEL_BYTES_MAX)));
    }
    if !is_name_part_shaped(name) {
        texts.push(format!("name part {}", regex_error(NAME_MESSAGE, NAME_FORMAT, &["MyName", "my.name", "123-abc"])));
    }
    texts
}

pub fn label_value(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        texts.push(max_bytes(LABEL_BYTES_MAX));
    }
    if !value.is_empty() && !is_name_part_shaped(value) {
        let message = format!("a valid label must be an empty string or consist of alphanumeric characters{}", &NAME_MESSAGE["must consist of alphanumeric characters".len()..]);
        texts.push(regex_error(&message, &format!("({NAME_FORMAT})?"), &["MyValue", "my_value", "12345"]));
    }
    texts
}

pub fn port_number(port: i64) -> Texts {
    in_range(port, 1, 65535)
}

pub fn in_range(value: i64, low: i64, high: i64) -> Texts {
    if (low..=high).contains(&value) { Vec::new() } else { vec![inclusive_range(low, high)] }
}

/// Users and groups of the kernel: 32 bits.
pub fn user_or_group_id(id: i64) -> Texts {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A service name of RFC 6335.
pub fn port_name(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > 15 {
        texts.push(max_length(15));
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || !bytes.iter().all(|b| is_alnum_lower(*b) || *b == b'-') {
        texts.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        texts.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        texts.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        texts.push("must not begin or end with a hyphen".to_owned());
    }
    texts
}

pub fn percent(value: &str) -> Texts {
    match value.strip_suffix('%') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Vec::new(),
        _ => vec![regex_error(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )],
    }
}

pub fn http_header_name(value: &str) -> Texts {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// Environment variables: any printable ASCII but `=`.
pub fn env_var_name(value: &str) -> Texts {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

pub fn c_identifier(value: &str) -> Texts {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if shaped(value, |b| b.is_ascii_alphabetic() || b == b'_', word, word) {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![regex_error(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// The reason of a `metav1.Condition`.
pub fn condition_reason(value: &str) -> Texts {
    let end = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if shaped(value, |b| b.is_ascii_alphabetic(), |b| end(b) || b == b',' || b == b':', end) {
        return Vec::new();
    }
    let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![regex_error(message, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)]
}

/// Keys of ConfigMaps and Secrets: they become file names.
pub fn config_map_key(value: &str) -> Texts {
    let mut texts = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        texts.push(max_length(SUBDOMAIN_BYTES_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        texts.push(regex_error(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match value {
        "." => texts.push("must not be '.'".to_owned()),
        ".." => texts.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => texts.push("must not start with '..'".to_owned()),
        _ => {}
    }
    texts
}

/// A name that becomes one segment of a URL's path.
pub fn path_segment(value: &str) -> Texts {
    match value {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    ['/', '%'].into_iter().filter(|c| value.contains(*c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `generateName` is checked with its trailing dash taken off, since more will follow.
pub fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some("") | None => name.to_owned(),
        Some(base) => format!("{base}a"),
    }
}

/// An address as Go parsed it before 1.17: leading zeros in IPv4 octets are allowed and decimal.
pub fn parse_ip_sloppy(value: &str) -> Option<IpAddr> {
    if value.contains(':') {
        return if value.contains('%') { None } else { value.parse().ok() };
    }
    let mut octets = [0u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// An address and a prefix length.
pub fn parse_cidr_sloppy(value: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = value.split_once('/')?;
    let ip = parse_ip_sloppy(ip)?;
    let bits: u8 = bits.bytes().all(|b| b.is_ascii_digit()).then(|| bits.parse().ok())??;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

pub const IP_TEXT: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub const CIDR_TEXT: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address in its strict form (KEP-4858).
pub fn ip(value: &str) -> Texts {
    let text = match (parse_ip_sloppy(value), value.parse::<IpAddr>()) {
        (None, _) => IP_TEXT,
        // What only the sloppy parser reads must have leading zeros.
        (Some(_), Err(_)) => "must not have leading 0s",
        (Some(_), Ok(IpAddr::V6(v6))) if v6.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

/// An address in the one form that Go prints.
pub fn canonical_ip(value: &str) -> Texts {
    let texts = ip(value);
    match value.parse::<IpAddr>() {
        Ok(address) if texts.is_empty() && address.to_string() != value => vec![format!("must be in canonical form (\"{address}\")")],
        _ => texts,
    }
}

/// A range in its strict form (KEP-4858).
pub fn cidr(value: &str) -> Texts {
    let Some((address, bits)) = parse_cidr_sloppy(value) else { return vec![CIDR_TEXT.to_owned()] };
    let (ip, length) = value.split_once('/').unwrap_or((value, ""));
    let has_zeros = ip.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'));
    let is_masked = match address {
        IpAddr::V4(v4) => u32::from(v4).checked_shl(bits.into()).unwrap_or(0) == 0,
        IpAddr::V6(v6) => u128::from(v6).checked_shl(bits.into()).unwrap_or(0) == 0,
    };
    let text = match address {
        _ if has_zeros => "must not have leading 0s in IP or prefix length",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "must not have an IPv4-mapped IPv6 address",
        _ if !is_masked => "must not have bits set beyond the prefix length",
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

/// An address of an interface with the length of its network's prefix, in the one form that Go prints.
pub fn interface_address(value: &str) -> Texts {
    let Some((address, bits)) = parse_cidr_sloppy(value) else {
        return vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned()];
    };
    let canonical = match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => format!("{v4}/{}", i32::from(bits) - if bits > 32 { 96 } else { 0 }),
            None => format!("{v6}/{bits}"),
        },
        v4 => format!("{v4}/{bits}"),
    };
    if value == canonical { Vec::new() } else { vec![format!("must be in canonical form (\"{canonical}\")")] }
}

/// A range in the one form that Go prints.
pub fn canonical_cidr(value: &str) -> Texts {
    let texts = cidr(value);
    match parse_cidr_sloppy(value).filter(|_| texts.is_empty()) {
        Some((address, bits)) if format!("{address}/{bits}") != value => vec![format!("must be in canonical form (\"{address}/{bits}\")")],
        _ => texts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_in_upstreams_words() {
        assert!(dns1123_label("a-1").is_empty());
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("A"),
            ["a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]
        );
        assert!(dns1123_subdomain("a.b-c.0").is_empty());
        assert_eq!(
            dns1123_subdomain("a..b"),
            [r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"]
        );
        assert_eq!(dns1035_label("1a").len(), 1);
        assert!(qualified_name("example.com/A_b.c").is_empty());
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(
            label_value("-"),
            ["a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]
        );
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert_eq!(port_name("1"), ["must contain at least one letter (a-z)"]);
    }

    #[test]
    fn addresses_parse_as_go_once_did() {
        assert_eq!(parse_ip_sloppy("010.0.0.1"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(parse_ip_sloppy("1.2.3"), None);
        assert_eq!(parse_ip_sloppy("1.2.3.256"), None);
        assert!(parse_ip_sloppy("2001:db8::1").is_some());
        assert_eq!(parse_cidr_sloppy("10.0.0.0/33"), None);
        assert!(parse_cidr_sloppy("10.0.0.0/8").is_some());
        assert_eq!(ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert!(cidr("0.0.0.0/0").is_empty() && cidr("10.0.0.0/32").is_empty() && cidr("fe80::/10").is_empty());
    }
}
