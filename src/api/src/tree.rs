//! The one compact tree on which patches, defaults, validation and admission work.
//!
//! A `serde_json::Value` of a 3.5 kB pod takes 38 kB; this takes less than half, because objects are sorted vectors and
//! strings carry no spare capacity. Keys of an object are sorted by their bytes, so the printed form is canonical.
mod key;
mod pile;

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

pub use self::key::Key;
pub(crate) use self::pile::Pile;

thread_local! {
    /// Whether the document that is being read had numbers with fractions or exponents, or beyond 64 bits.
    static HAD_FRACTIONS: Cell<bool> = const { Cell::new(false) };
}

/// One JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Tree {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(Box<str>),
    Array(Vec<Tree>),
    Object(Object),
}

/// A JSON object: keys sorted by bytes, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(Key, Tree)>);

impl Object {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An object of entries that are sorted by their keys, each once.
    pub(crate) fn from_sorted(entries: Vec<(Key, Tree)>) -> Self {
        debug_assert!(entries.windows(2).all(|w| w[0].0 < w[1].0), "keys are not sorted");
        Self(entries)
    }

    pub(crate) fn entries(&self) -> &[(Key, Tree)] {
        &self.0
    }

    /// The entries of two objects side by side, by key.
    pub(crate) fn zip<'t>(&'t self, other: &'t Object) -> impl Iterator<Item = (&'t Key, Option<&'t Tree>, Option<&'t Tree>)> {
        zip(&self.0, &other.0)
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| k.as_ref().cmp(key))
    }

    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.find(key).ok().map(|i| &self.0[i].1)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.find(key).ok().map(|i| &mut self.0[i].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Sets `key`, returning what stood there.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Tree>) -> Option<Tree> {
        let (key, value) = (key.into(), value.into());
        match self.find(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.0[i].1, value)),
            Err(i) => {
                self.0.insert(i, (key, value));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        self.find(key).ok().map(|i| self.0.remove(i).1)
    }

    /// Takes in `changes`, each of which `made` makes a value of, from what stands there; `None`: nothing. One pass, since both may be long: to set
    /// entry after entry moves all others each time. On an error only what came before it is left.
    pub fn merge<E>(&mut self, changes: Object, mut made: impl FnMut(&str, Option<Tree>, Tree) -> Result<Option<Tree>, E>) -> Result<(), E> {
        let mut old = std::mem::take(&mut self.0).into_iter().peekable();
        self.0.reserve_exact(old.len() + changes.len());
        for (key, change) in changes.0 {
            while let Some(entry) = old.next_if(|(name, _)| *name < key) {
                self.0.push(entry);
            }
            let before = old.next_if(|(name, _)| *name == key).map(|(_, value)| value);
            if let Some(value) = made(&key, before, change)? {
                self.0.push((key, value));
            }
        }
        self.0.extend(old);
        self.0.shrink_to_fit();
        Ok(())
    }

    /// The value at `key`, made by `default` where it is absent.
    pub fn entry(&mut self, key: &str, default: impl FnOnce() -> Tree) -> &mut Tree {
        let i = match self.find(key) {
            Ok(i) => i,
            Err(i) => {
                self.0.insert(i, (key.into(), default()));
                i
            }
        };
        &mut self.0[i].1
    }

    /// The field at a place in the order of keys.
    pub fn entry_at(&self, index: usize) -> Option<(&str, &Tree)> {
        self.0.get(index).map(|(key, value)| (&**key, value))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v))
    }

    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Tree)> {
        self.0.iter_mut().map(|(k, v)| (&**k, v))
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(k, _)| k.as_ref())
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Tree) -> bool) {
        self.0.retain_mut(|(k, v)| keep(k, v));
    }
}

impl IntoIterator for Object {
    type Item = (Key, Tree);
    type IntoIter = std::vec::IntoIter<(Key, Tree)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Builds an object; of two equal keys the later one wins, as in Go's decoder.
impl<K: Into<Key>, V: Into<Tree>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(Key, Tree)> = entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        sort_last_wins(&mut entries);
        Self(entries)
    }
}

/// Two sorted lists of entries side by side, by key.
pub(crate) fn zip<'t>(
    a: &'t [(Key, Tree)],
    b: &'t [(Key, Tree)],
) -> impl Iterator<Item = (&'t Key, Option<&'t Tree>, Option<&'t Tree>)> {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        let order = match (a.get(i), b.get(j)) {
            (Some((x, _)), Some((y, _))) => x.cmp(y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let left = (order != Ordering::Greater).then(|| &a[i]);
        let right = (order != Ordering::Less).then(|| &b[j]);
        i += usize::from(left.is_some());
        j += usize::from(right.is_some());
        let (key, _) = left.or(right)?;
        Some((key, left.map(|(_, value)| value), right.map(|(_, value)| value)))
    })
}

fn sort_last_wins(entries: &mut Vec<(Key, Tree)>) {
    if entries.windows(2).all(|w| w[0].0 < w[1].0) {
        return;
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0)); // stable: equal keys keep their order
    entries.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
}

impl Tree {
    pub fn object() -> Self {
        Tree::Object(Object::new())
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Tree::String(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Tree::Integer(i) => Some(*i),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Tree::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Tree]> {
        match self {
            Tree::Array(a) => Some(a),
            _ => None,
        }
    }

    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Tree>> {
        match self {
            Tree::Array(a) => Some(a),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Tree::Object(o) => Some(o),
            _ => None,
        }
    }

    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Tree::Object(o) => Some(o),
            _ => None,
        }
    }

    /// What JSON calls the value: `string`, `integer`, `number`, `boolean`, `array`, `object`, `null`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "boolean",
            Tree::Integer(_) => "integer",
            Tree::Float(_) => "number",
            Tree::String(_) => "string",
            Tree::Array(_) => "array",
            Tree::Object(_) => "object",
        }
    }

    /// The field `key` of an object; `None` on anything else.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.as_object()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.as_object_mut()?.get_mut(key)
    }

    /// Follows object keys: `tree.at(&["metadata", "name"])`.
    pub fn at(&self, path: &[&str]) -> Option<&Tree> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }

    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Tree> {
        path.iter().try_fold(self, |tree, key| tree.get_mut(key))
    }

    /// The string at `path`, or `""`.
    pub fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Tree::as_str).unwrap_or("")
    }

    /// The array at `path`, or an empty one.
    pub fn array_at(&self, path: &[&str]) -> &[Tree] {
        self.at(path).and_then(Tree::as_array).unwrap_or(&[])
    }

    /// Makes this value an object if it is none (null or another type is replaced) and returns it.
    pub fn make_object(&mut self) -> &mut Object {
        if !matches!(self, Tree::Object(_)) {
            *self = Tree::object();
        }
        self.as_object_mut().expect("just made an object")
    }

    /// Sets the value at `path`, making the objects on the way.
    pub fn set(&mut self, path: &[&str], value: impl Into<Tree>) {
        let Some((last, way)) = path.split_last() else {
            *self = value.into();
            return;
        };
        let mut object = self.make_object();
        for key in way {
            object = object.entry(key, Tree::object).make_object();
        }
        object.insert(*last, value);
    }

    /// Removes the value at `path`.
    pub fn remove(&mut self, path: &[&str]) -> Option<Tree> {
        let (last, way) = path.split_last()?;
        self.at_mut(way)?.as_object_mut()?.remove(last)
    }

    /// Without its feature `float_roundtrip`, which costs all others, serde_json misses a long number by its last digit: an object would change by being
    /// read. Documents with fractions are few, and are read once more.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        HAD_FRACTIONS.set(false);
        let tree = serde_json::from_slice(bytes)?;
        match HAD_FRACTIONS.get() {
            true => Ok(crate::codec::parse_json(bytes).map_or(tree, |exact| exact.tree)),
            false => Ok(tree),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        // Most objects have one or two kilobytes.
        let mut out = Vec::with_capacity(2048);
        self.write_json(&mut out);
        out
    }

    /// Writes the value behind what `out` holds.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("a tree has only string keys");
    }

    /// The tree of a typed object.
    pub fn from_typed<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        Self::from_json(&serde_json::to_vec(value)?)
    }

    /// The typed form of this tree.
    pub fn to_typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.to_json())
    }
}

impl From<&str> for Tree {
    fn from(s: &str) -> Self {
        Tree::String(s.into())
    }
}
impl From<String> for Tree {
    fn from(s: String) -> Self {
        Tree::String(s.into_boxed_str())
    }
}
impl From<Cow<'_, str>> for Tree {
    fn from(s: Cow<'_, str>) -> Self {
        Tree::String(s.into())
    }
}
impl From<Box<str>> for Tree {
    fn from(s: Box<str>) -> Self {
        Tree::String(s)
    }
}
impl From<i64> for Tree {
    fn from(i: i64) -> Self {
        Tree::Integer(i)
    }
}
impl From<i32> for Tree {
    fn from(i: i32) -> Self {
        Tree::Integer(i.into())
    }
}
impl From<bool> for Tree {
    fn from(b: bool) -> Self {
        Tree::Bool(b)
    }
}
impl From<Object> for Tree {
    fn from(o: Object) -> Self {
        Tree::Object(o)
    }
}
impl<T: Into<Tree>> From<Vec<T>> for Tree {
    fn from(items: Vec<T>) -> Self {
        Tree::Array(items.into_iter().map(Into::into).collect())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key.as_ref(), value)?;
        }
        map.end()
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Bool(b) => serializer.serialize_bool(*b),
            Tree::Integer(i) => serializer.serialize_i64(*i),
            // Go prints whole floats as integers.
            Tree::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => serializer.serialize_i64(*f as i64),
            Tree::Float(f) => serializer.serialize_f64(*f),
            Tree::String(s) => serializer.serialize_str(s),
            Tree::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Tree::Object(o) => o.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Tree, D::Error> {
        Tree::deserialize(d)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(b))
    }
    fn visit_i64<E>(self, i: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(i))
    }
    fn visit_u64<E>(self, u: u64) -> Result<Tree, E> {
        Ok(i64::try_from(u).map_or(Tree::Float(u as f64), Tree::Integer))
    }
    fn visit_f64<E>(self, f: f64) -> Result<Tree, E> {
        HAD_FRACTIONS.set(true);
        Ok(Tree::Float(f))
    }
    fn visit_str<E>(self, s: &str) -> Result<Tree, E> {
        Ok(Tree::String(s.into()))
    }
    fn visit_string<E>(self, s: String) -> Result<Tree, E> {
        Ok(Tree::String(s.into_boxed_str()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Pile::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::Array(items.take()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Pile::<(Key, Tree)>::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        let mut entries = entries.take();
        sort_last_wins(&mut entries);
        Ok(Tree::Object(Object(entries)))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Tree::deserialize(deserializer)? {
            Tree::Object(o) => Ok(o),
            other => Err(de::Error::custom(format_args!("expected an object, found {}", other.type_name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_to_their_last_digit() {
        for text in ["4.444444444444444e24", "444444444444444434444444443", "[0.30000000000000004,1.7976931348623157e308]", "{\"a\":5e-324}"] {
            let read = Tree::from_json(text.as_bytes()).unwrap();
            assert_eq!(read, crate::codec::parse_json(text.as_bytes()).unwrap().tree, "{text}");
            assert_eq!(Tree::from_json(&read.to_json()).unwrap(), read, "{text}");
        }
    }

    #[test]
    fn prints_sorted_and_keeps_the_last_of_two_equal_keys() {
        let tree = Tree::from_json(br#"{"b":1,"a":[1.5,2.0,null,"x"],"b":2}"#).unwrap();
        assert_eq!(tree.to_json(), br#"{"a":[1.5,2,null,"x"],"b":2}"#);
    }

    #[test]
    fn sets_and_removes_by_path() {
        let mut tree = Tree::Null;
        tree.set(&["metadata", "labels", "a"], "b");
        assert_eq!(tree.str_at(&["metadata", "labels", "a"]), "b");
        assert_eq!(tree.remove(&["metadata", "labels"]).unwrap().to_json(), br#"{"a":"b"}"#);
        assert_eq!(tree.to_json(), br#"{"metadata":{}}"#);
    }
}
