//! How printers read objects.
use jiff::Timestamp;

use super::format::human_duration;
use crate::schema::time::utc_seconds;
use crate::selector::LabelSelector;
use crate::tree::{Object, Tree};

pub(super) fn text(object: &Tree, path: &[&str]) -> Tree {
    object.str_at(path).into()
}

/// The text at `path`, or `other` where it is empty or absent.
pub(super) fn text_or(object: &Tree, path: &[&str], other: &str) -> Tree {
    let found = object.str_at(path);
    if found.is_empty() { other } else { found }.into()
}

pub(super) fn number(object: &Tree, path: &[&str]) -> i64 {
    object.at(path).and_then(Tree::as_i64).unwrap_or(0)
}

pub(super) fn flag(object: &Tree, path: &[&str], default: bool) -> bool {
    object.at(path).and_then(Tree::as_bool).unwrap_or(default)
}

pub(super) fn map<'a>(object: &'a Tree, path: &[&str]) -> &'a Object {
    static EMPTY: Object = Object::new();
    object.at(path).and_then(Tree::as_object).unwrap_or(&EMPTY)
}

pub(super) fn length(object: &Tree, path: &[&str]) -> i64 {
    object.array_at(path).len() as i64
}

pub(super) fn is_set(object: &Tree, path: &[&str]) -> bool {
    object.at(path).is_some_and(|value| !value.is_null())
}

pub(super) fn timestamp(object: &Tree, path: &[&str]) -> Option<Timestamp> {
    let text = object.str_at(path);
    utc_seconds(text.as_bytes()).and_then(|seconds| Timestamp::from_second(seconds).ok()).or_else(|| text.parse().ok())
}

/// `5m ago` without the `ago`.
pub(super) fn since(object: &Tree, path: &[&str], now: Timestamp) -> String {
    match timestamp(object, path) {
        Some(then) => human_duration(now.duration_since(then)),
        None => "<unknown>".into(),
    }
}

pub(super) fn age(object: &Tree, now: Timestamp) -> Tree {
    since(object, &["metadata", "creationTimestamp"], now).into()
}

/// `a=1,b=2`, or `<none>`.
pub(super) fn labels(object: &Tree, path: &[&str]) -> Tree {
    let pairs: Vec<String> = map(object, path).iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",").into() }
}

/// A `metav1.LabelSelector`, printed.
pub(super) fn selector(object: &Tree, path: &[&str]) -> Tree {
    match LabelSelector::from_tree(object.at(path)) {
        Ok(selector) => match selector.to_string() {
            empty if empty.is_empty() => "<none>".into(),
            shown => shown.into(),
        },
        Err(_) => "<error>".into(),
    }
}

/// The names and the images of the containers of the pod spec at `path`.
pub(super) fn containers(object: &Tree, path: &[&str]) -> [Tree; 2] {
    let containers = object.array_at(&[path, &["containers"]].concat());
    ["name", "image"].map(|field| join(containers.iter().map(|c| c.str_at(&[field])), ",").into())
}

pub(super) fn join<'a>(words: impl Iterator<Item = &'a str>, separator: &str) -> String {
    words.collect::<Vec<_>>().join(separator)
}

pub(super) fn texts<'a>(object: &'a Tree, path: &[&str]) -> impl Iterator<Item = &'a str> + use<'a> {
    object.array_at(path).iter().filter_map(Tree::as_str)
}

/// The condition of that type.
pub(super) fn condition<'a>(object: &'a Tree, kind: &str) -> Option<&'a Tree> {
    object.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == kind)
}

pub(super) fn condition_is_true(object: &Tree, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c.str_at(&["status"]) == "True")
}

pub(super) fn is_deleting(object: &Tree) -> bool {
    is_set(object, &["metadata", "deletionTimestamp"])
}
