//! `format`: the names that mean something, and what they mean.
//!
//! Models apiextensions-apiserver/pkg/apiserver/validation/formats.go and kube-openapi/pkg/validation/strfmt.
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use crate::names;
use crate::schema::Name;

/// The format without dashes; empty where it means nothing for the type.
pub fn normalized(kind: &str, format: &str) -> Name {
    const STRINGS: [&str; 25] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
        "k8sshortname",
    ];
    let plain = format.replace('-', "");
    let known = match kind {
        "" | "string" => STRINGS.contains(&plain.as_str()) || plain == "k8slongname",
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    if known { plain.into() } else { "".into() }
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a literal expression")
}

macro_rules! regexes {
    ($($name:ident: $text:expr;)*) => { $(static $name: LazyLock<Regex> = LazyLock::new(|| regex($text));)* };
}

// Without `\s`: Go's knows ASCII alone, and this crate builds with as few tables of Unicode as it needs.
regexes! {
    UUID: r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?([0-9a-f])[0-9a-f]{3}-?([0-9a-f])[0-9a-f]{3}-?[0-9a-f]{12}$";
    HOSTNAME: r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$";
    SSN: r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    HEX_COLOR: r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR: r"^rgb\([\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*,[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*,[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*\)$";
    CREDIT_CARD: r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
    MAC: r"(?i)^([0-9a-f]{2}(:[0-9a-f]{2}){5}|[0-9a-f]{2}(:[0-9a-f]{2}){7}|[0-9a-f]{2}(-[0-9a-f]{2}){5}|[0-9a-f]{2}(-[0-9a-f]{2}){7}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}|[0-9a-f]{4}(\.[0-9a-f]{4}){3})$";
    EMAIL: r#"^[\t\n\f\r ]*([^<>@,;:"\t\n\f\r ]+@[^<>@,;:"\t\n\f\r ]+|("[^"]*"|[^<>@,;:"]*)[\t\n\f\r ]*<[^<>@,;:"\t\n\f\r ]+@[^<>@,;:"\t\n\f\r ]+>)[\t\n\f\r ]*$"#;
    GO_DURATION: r"^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";
    DURATION: r"(?i)[0-9]+[\t\n\f\r ]*(nanoseconds?|nanos?|ns|microseconds?|micros?|us|µs|milliseconds?|millis?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)";
    DATE_TIME: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?(Z|z|[+-][0-9]{2}:?[0-9]{2})?$";
    URI: r"^([A-Za-z][A-Za-z0-9+.\-]*:[^\x00-\x20\x7f]+|/[^\x00-\x20\x7f]*)$";
}

/// Whether `text` is what the format asks for.
pub fn matches(format: &str, text: &str) -> bool {
    match format {
        "uri" => URI.is_match(text),
        "email" => EMAIL.is_match(text),
        "hostname" => HOSTNAME.is_match(text) && text.len() <= 255 && text.split('.').all(|part| part.len() <= 63),
        "ipv4" => text.contains('.') && names::parse_ip_sloppy(text).is_some(),
        "ipv6" => text.contains(':') && names::parse_ip_sloppy(text).is_some(),
        "cidr" => names::parse_cidr_sloppy(text).is_some(),
        "mac" => MAC.is_match(text),
        "uuid" => UUID.is_match(text),
        "uuid3" | "uuid4" | "uuid5" => uuid(text, &format[4..]),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => GO_DURATION.is_match(text) || DURATION.is_match(text),
        "datetime" => DATE_TIME.is_match(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "k8sshortname" => names::dns1123_label(text).is_empty(),
        "k8slongname" => names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn uuid(text: &str, version: &str) -> bool {
    let Some(found) = UUID.captures(text) else { return false };
    &found[1] == version && (version == "3" || "89abAB".contains(&found[2]))
}

fn digits(text: &str) -> Vec<u32> {
    text.chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| c.to_digit(10).unwrap_or(if matches!(c, 'X' | 'x') { 10 } else { 99 }))
        .collect()
}

fn isbn10(text: &str) -> bool {
    let digits = digits(text);
    digits.len() == 10
        && digits[..9].iter().all(|d| *d < 10)
        && digits[9] <= 10
        && digits.iter().zip(1..).map(|(digit, place)| digit * place).sum::<u32>() % 11 == 0
}

fn isbn13(text: &str) -> bool {
    let digits = digits(text);
    digits.len() == 13
        && digits.iter().all(|d| *d < 10)
        && digits.iter().enumerate().map(|(i, digit)| digit * if i % 2 == 0 { 1 } else { 3 }).sum::<u32>() % 10 == 0
}

fn credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 =
        digits.bytes().rev().enumerate().map(|(i, b)| if i % 2 == 0 { u32::from(b - b'0') } else { doubled(u32::from(b - b'0')) }).sum();
    CREDIT_CARD.is_match(&digits) && sum % 10 == 0
}
