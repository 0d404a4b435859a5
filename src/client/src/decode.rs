//! Typed objects from JSON that Go accepts and the generated types do not.
//!
//! In Go a null time is the zero time and an absent string the empty one; the generated types want both in conditions. Whoever patches a
//! condition without its time makes such an object, and it must not hold up everything that comes after it.
use std::borrow::Cow;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use memchr::memmem;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::warn;

/// How Go prints the zero time.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

pub(crate) fn object<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let first = match serde_json::from_str(text) {
        Ok(object) => return Ok(object),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_str(text)?;
    complete(&mut value);
    serde_json::from_value(value).map_err(|_| first)
}

pub(crate) fn bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|first| std::str::from_utf8(bytes).map_or(Err(first), object))
}

/// A list's metadata, and the texts of its objects.
pub(crate) fn list(bytes: &[u8]) -> Result<(ListMeta, Vec<&str>), serde_json::Error> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(default)]
        metadata: ListMeta,
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    let raw: Raw = serde_json::from_slice(bytes)?;
    Ok((raw.metadata, raw.items.into_iter().flatten().map(RawValue::get).collect()))
}

/// An object as a mirror holds it; `None` where it cannot be read at all.
pub(crate) fn mirrored<T: DeserializeOwned>(text: &str) -> Option<T> {
    let read = object(&without_managers(text));
    read.inspect_err(|error| warn!(%error, "an object cannot be read and is passed over")).ok()
}

/// What names one state of an object.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

/// Reads no more of an object than that.
pub(crate) fn identity(text: &[u8]) -> Result<Identity, serde_json::Error> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        metadata: Identity,
    }
    serde_json::from_slice::<Raw>(text).map(|raw| raw.metadata)
}

/// The object without who set which of its fields: half of many objects, read by no mirror, and dear to read.
pub(crate) fn without_managers(text: &str) -> Cow<'_, str> {
    const KEY: &[u8] = b"\"managedFields\":[";
    static FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(KEY));
    let bytes = text.as_bytes();
    let (mut out, mut from) = (String::new(), 0);
    while let Some(found) = FINDER.find(&bytes[from..]) {
        let at = from + found;
        // Inside of a text a backslash would stand before the quote.
        let Some(end) = bytes[..at].last().filter(|b| matches!(b, b'{' | b',')).and_then(|_| array_end(bytes, at + KEY.len())) else { break };
        let has_next = bytes.get(end) == Some(&b',');
        // With the comma behind it, or the one before.
        let start = if !has_next && bytes[at - 1] == b',' { at - 1 } else { at };
        out.push_str(&text[from..start]);
        from = end + usize::from(has_next);
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// Where an array ends whose opening bracket stands before `at`.
fn array_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1usize;
    while depth > 0 {
        match bytes.get(at)? {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b'"' => {
                at += 1;
                loop {
                    at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
                    if bytes[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            _ => {}
        }
        at += 1;
    }
    Some(at)
}

/// Gives all conditions what Go would take as given.
fn complete(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(complete),
        Value::Object(fields) => {
            if let Some(Value::Array(conditions)) = fields.get_mut("conditions") {
                conditions.iter_mut().filter_map(Value::as_object_mut).for_each(complete_condition);
            }
            fields.values_mut().for_each(complete);
        }
        _ => {}
    }
}

fn complete_condition(condition: &mut Map<String, Value>) {
    if !condition.contains_key("type") {
        return;
    }
    for (field, zero) in [("lastTransitionTime", ZERO_TIME), ("reason", ""), ("message", ""), ("status", "")] {
        let value = condition.entry(field).or_insert(Value::Null);
        if value.is_null() {
            *value = zero.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    const SERVICE: &str = r#"{"metadata": {"name": "s", "deletionTimestamp": null},
        "status": {"conditions": [{"type": "A", "status": "True", "lastTransitionTime": null}]}}"#;

    #[test]
    fn a_condition_without_its_time_is_read_as_go_reads_it() {
        let service: Service = object(SERVICE).expect("a service");
        assert!(service.metadata.deletion_timestamp.is_none());
        let condition = &service.status.expect("a status").conditions.expect("conditions")[0];
        assert_eq!(condition.last_transition_time.0.to_string(), ZERO_TIME);
        assert_eq!(condition.reason, "");
    }

    #[test]
    fn managers_are_passed_over_wherever_they_stand() {
        let check = |text: &str, expected: &str| assert_eq!(without_managers(text), expected, "{text}");
        let list = r#"[{"manager":"m","fieldsV1":{"f:a":{"k:{\"b\":\"]\"}":{".":{}}}}}]"#;
        check(&format!(r#"{{"metadata":{{"managedFields":{list},"name":"n"}}}}"#), r#"{"metadata":{"name":"n"}}"#);
        check(&format!(r#"{{"metadata":{{"a":1,"managedFields":{list}}},"b":2}}"#), r#"{"metadata":{"a":1},"b":2}"#);
        check(&format!(r#"{{"metadata":{{"managedFields":{list}}}}}"#), r#"{"metadata":{}}"#);
        check(r#"{"data":{"a":"{\"managedFields\":[]}"}}"#, r#"{"data":{"a":"{\"managedFields\":[]}"}}"#);
        check(r#"{"metadata":{"managedFields":[1"#, r#"{"metadata":{"managedFields":[1"#);
    }

    #[test]
    fn what_cannot_be_read_does_not_hide_the_rest() {
        let text = format!(r#"{{"metadata": {{"resourceVersion": "7"}}, "items": [{{"metadata": 1}}, {SERVICE}]}}"#);
        let (meta, items) = list(text.as_bytes()).expect("a list");
        let services: Vec<Service> = items.into_iter().filter_map(mirrored).collect();
        assert_eq!((meta.resource_version.as_deref(), services.len()), (Some("7"), 1));
        assert!(object::<Service>("{").is_err());
    }
}
