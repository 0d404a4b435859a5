//! The labels of an object, read without the rest of it.
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

type Labels = BTreeMap<String, String>;

/// The labels in an object's JSON; what stands behind them is not looked at.
pub(super) fn labels(text: &[u8]) -> Labels {
    let mut found = None;
    // Finding them ends the reading with an error.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(Search { path: &["metadata", "labels"], found: &mut found });
    found.unwrap_or_default()
}

struct Search<'f> {
    path: &'static [&'static str],
    found: &'f mut Option<Labels>,
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [next, rest @ ..] = self.path else { return Ok(()) };
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if key != *next {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if rest.is_empty() {
                *self.found = map.next_value::<Option<Labels>>()?;
            } else {
                map.next_value_seed(Search { path: rest, found: self.found })?;
            }
            return Err(A::Error::custom("found"));
        }
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[cfg(test)]
mod tests {
    use super::labels;

    #[test]
    fn labels_are_found_behind_other_fields_and_the_rest_is_not_read() {
        let read = |text: &str| labels(text.as_bytes()).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
        assert_eq!(read(r#"{"kind":"Pod","spec":{"labels":{"x":"y"}},"metadata":{"name":"a","labels":{"a":"1","b":"2"},"#), "a=1,b=2");
        assert_eq!(read(r#"{"metadata":{"name":"a","labels":null}}"#), "");
        assert_eq!(read(r#"{"metadata":{"name":"a"},"labels":{"a":"1"}}"#), "");
    }
}
