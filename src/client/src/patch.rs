//! Patches, and the smallest merge patch between two states of one object.
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(Value),
    /// RFC 7386: maps merge, null deletes, lists are replaced.
    Merge(Value),
    /// As merge, but lists of built-in kinds merge by the keys that their schema names.
    Strategic(Value),
}

impl Patch {
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
        }
    }

    pub fn body(&self) -> &Value {
        match self {
            Self::Json(v) | Self::Merge(v) | Self::Strategic(v) => v,
        }
    }

    /// The merge patch that turns `old` into `new`; `None` where they are equal.
    pub fn between<T: Serialize>(old: &T, new: &T) -> Result<Option<Self>, serde_json::Error> {
        Ok(merge_diff(&serde_json::to_value(old)?, &serde_json::to_value(new)?).map(Self::Merge))
    }
}

/// The merge patch between two JSON values; `None` where they are equal.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|k| !new.contains_key(*k)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                let change = match old.get(key) {
                    Some(before) => merge_diff(before, value),
                    None => Some(value.clone()),
                };
                if let Some(change) = change {
                    patch.insert(key.clone(), change);
                }
            }
            Some(Value::Object(patch))
        }
        _ => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_sets_changes_and_nulls_what_is_gone() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": 3});
        let new = json!({"a": 1, "b": {"c": [1, 2]}, "f": 4});
        assert_eq!(merge_diff(&old, &new), Some(json!({"b": {"c": [1, 2], "d": null}, "e": null, "f": 4})));
        assert_eq!(merge_diff(&old, &old), None);
    }
}
