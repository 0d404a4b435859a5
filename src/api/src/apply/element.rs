//! One step of a path, in the form FieldsV1 writes it.
//!
//! Models structured-merge-diff/v6/fieldpath/{element,serialize-pe}.go. Canonical means: keys sorted by name, JSON without spaces, whole numbers
//! without a point; two steps are equal exactly if their texts are.
use std::borrow::Cow;

use super::types::{List, Relation};
use crate::codec::quote;
use crate::tree::{Key, Tree};

pub fn field(name: &str) -> Key {
    Key::step(name)
}

fn text(prefix: &str, value: &Tree) -> Key {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(prefix.as_bytes());
    value.write_json(&mut key);
    Key::owned(String::from_utf8(key).expect("JSON is UTF-8"))
}

/// The step to an item of a list that is no atomic one. Models typed/helpers.go listItemToPathElement.
pub fn item(list: &List<'_>, item: &Tree) -> Result<Key, String> {
    match list.relation {
        Relation::Atomic => Err("invalid indexing of non-associative list".into()),
        Relation::Set => match item {
            Tree::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Tree::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Tree::Null => Err("associative list without keys has an element that's an explicit null".into()),
            value => Ok(text("v:", value)),
        },
        Relation::Keyed(keys) => {
            let object = match item {
                Tree::Object(object) => object,
                Tree::Null => return Err("associative list with keys may not have a null element".into()),
                _ => return Err("associative list with keys may not have non-map elements".into()),
            };
            let map = list.items.map();
            let mut pairs: Vec<(&str, Cow<'_, Tree>)> = Vec::with_capacity(keys.len());
            for name in keys.iter() {
                if let Some(value) = object.get(name) {
                    pairs.push((name, Cow::Borrowed(value)));
                    continue;
                }
                let Some(map) = &map else {
                    return Err(format!("couldn't find default value for {name}: associative list may not have non-map types"));
                };
                pairs.extend(map.field(name).and_then(|field| field.default).map(|default| (name, Cow::Owned(default))));
            }
            if pairs.is_empty() && keys.len() > 0 {
                let names: Vec<String> = keys.iter().map(quote).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            pairs.sort_by_key(|(name, _)| *name);
            Ok(keyed(&pairs))
        }
    }
}

/// As the JSON of an object with these fields, which are sorted.
fn keyed(pairs: &[(&str, Cow<'_, Tree>)]) -> Key {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(b"k:{");
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            key.push(b',');
        }
        let written = serde_json::to_writer(&mut key, name);
        key.push(b':');
        written.and_then(|()| serde_json::to_writer(&mut key, &**value)).expect("a tree has only string keys");
    }
    key.push(b'}');
    Key::owned(String::from_utf8(key).expect("JSON is UTF-8"))
}

/// The canonical form of a step that somebody else wrote; `None` for a kind of step that nobody knows yet.
pub fn canonical(key: &str) -> Result<Option<Key>, String> {
    let bytes = key.as_bytes();
    if bytes.len() < 2 {
        return Err("key must be 2 characters long:".into());
    }
    if bytes[1] != b':' {
        return Err(format!("missing colon: {key}"));
    }
    let json = || Tree::from_json(&bytes[2..]).map_err(|error| format!("{key}: {error}"));
    Ok(match bytes[0] {
        b'f' => Some(key.into()),
        b'v' => Some(text("v:", &json()?)),
        b'k' => match json()? {
            value @ Tree::Object(_) => Some(text("k:", &value)),
            other => return Err(format!("{key}: expected an object, found {}", other.type_name())),
        },
        b'i' => Some(format!("i:{}", key[2..].parse::<i64>().map_err(|error| format!("{key}: {error}"))?).into()),
        _ => None,
    })
}

/// As messages show the step: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
pub fn display(key: &str) -> String {
    let (kind, rest) = key.split_at(key.len().min(2));
    match kind {
        "f:" => format!(".{rest}"),
        "i:" => format!("[{rest}]"),
        "v:" => format!("[={}]", Tree::from_json(rest.as_bytes()).map_or_else(|_| rest.to_owned(), |value| super::value::display(&value))),
        "k:" => match Tree::from_json(rest.as_bytes()) {
            Ok(Tree::Object(pairs)) => {
                let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", super::value::display(value))).collect();
                format!("[{}]", pairs.join(","))
            }
            _ => format!("[{rest}]"),
        },
        _ => "{{invalid path element}}".to_owned(),
    }
}
