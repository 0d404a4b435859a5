//! Named formats. Models k8s.io/apiserver/pkg/cel/library/format.go.
use super::{Body, Result, no_overload, url};
use crate::names;
use crate::special::Special;
use crate::value::Value;

/// A format, and what is wrong with a text that should have it.
pub struct NamedFormat {
    pub(crate) name: &'static str,
    /// What costs count the pattern as.
    pub(crate) pattern_length: u64,
    check: fn(&str) -> Vec<String>,
}

/// By the names that expressions use.
static FORMATS: [(&str, NamedFormat); 13] = [
    ("byte", NamedFormat { name: "byte", pattern_length: 84, check: |text| unless(is_byte(text), "invalid base64") }),
    (
        "date",
        NamedFormat { name: "date", pattern_length: 71, check: |text| unless(crate::time::parse_date(text).is_some(), "invalid date") },
    ),
    ("datetime", NamedFormat { name: "datetime", pattern_length: 71, check: |text| unless(is_date_time(text), "invalid datetime") }),
    ("dns1035Label", NamedFormat { name: "DNS1035Label", pattern_length: 30, check: names::dns1035_label }),
    (
        "dns1035LabelPrefix",
        NamedFormat {
            name: "DNS1035LabelPrefix",
            pattern_length: 30,
            check: |text| names::dns1035_label(&names::mask_trailing_dash(text)),
        },
    ),
    ("dns1123Label", NamedFormat { name: "DNS1123Label", pattern_length: 30, check: names::dns1123_label }),
    (
        "dns1123LabelPrefix",
        NamedFormat {
            name: "DNS1123LabelPrefix",
            pattern_length: 30,
            check: |text| names::dns1123_label(&names::mask_trailing_dash(text)),
        },
    ),
    ("dns1123Subdomain", NamedFormat { name: "DNS1123Subdomain", pattern_length: 60, check: names::dns1123_subdomain }),
    (
        "dns1123SubdomainPrefix",
        NamedFormat {
            name: "DNS1123SubdomainPrefix",
            pattern_length: 60,
            check: |text| names::dns1123_subdomain(&names::mask_trailing_dash(text)),
        },
    ),
    ("labelValue", NamedFormat { name: "LabelValue", pattern_length: 40, check: names::label_value }),
    ("qualifiedName", NamedFormat { name: "QualifiedName", pattern_length: 60, check: names::qualified_name }),
    ("uri", NamedFormat { name: "URI", pattern_length: 1103, check: |text| url::parse_request(text).err().into_iter().collect() }),
    ("uuid", NamedFormat { name: "uuid", pattern_length: 70, check: |text| unless(is_uuid(text), "does not match the UUID format") }),
];

fn unless(fine: bool, message: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![message.to_owned()] }
}

fn is_byte(text: &str) -> bool {
    !text.is_empty() && super::decode_base64(text).is_ok()
}

fn is_date_time(text: &str) -> bool {
    crate::time::parse_declared_timestamp(text).is_some()
}

fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (i, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.get(..length) {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => rest = &rest[length..],
            _ => return false,
        }
    }
    rest.is_empty()
}

fn find(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| format)
}

fn made<'a>(name: &str) -> Result<'a> {
    find(name).map_or_else(no_overload, |format| Ok(Value::special(Special::Format(format))))
}

pub(crate) fn body(name: &str) -> Option<Body> {
    Some(match name {
        "validate" => validate,
        "format.named" => |args| {
            let Some(name) = args[0].as_str() else { return no_overload() };
            Ok(Value::optional(find(name).map(|format| Value::special(Special::Format(format)))))
        },
        "format.byte" => |_| made("byte"),
        "format.date" => |_| made("date"),
        "format.datetime" => |_| made("datetime"),
        "format.dns1035Label" => |_| made("dns1035Label"),
        "format.dns1035LabelPrefix" => |_| made("dns1035LabelPrefix"),
        "format.dns1123Label" => |_| made("dns1123Label"),
        "format.dns1123LabelPrefix" => |_| made("dns1123LabelPrefix"),
        "format.dns1123Subdomain" => |_| made("dns1123Subdomain"),
        "format.dns1123SubdomainPrefix" => |_| made("dns1123SubdomainPrefix"),
        "format.labelValue" => |_| made("labelValue"),
        "format.qualifiedName" => |_| made("qualifiedName"),
        "format.uri" => |_| made("uri"),
        "format.uuid" => |_| made("uuid"),
        _ => return None,
    })
}

fn validate<'a>(args: &[Value<'a>]) -> Result<'a> {
    let (Some(Special::Format(format)), Some(text)) = (args[0].as_special(), args[1].as_str()) else { return no_overload() };
    let wrong = (format.check)(text);
    if wrong.is_empty() {
        return Ok(Value::optional(None));
    }
    Ok(Value::optional(Some(Value::from(wrong.into_iter().map(Value::from).collect::<Vec<_>>()))))
}
