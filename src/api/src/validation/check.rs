//! What every validation needs: reading fields, and the checks that upstream's kinds share.
//!
//! Models apimachinery/pkg/api/validation and apimachinery/pkg/apis/meta/v1/validation.
use std::collections::HashSet;
use std::hash::Hash;

use crate::field_error::{BadValue, FieldError, Path, shown};
use crate::names;
use crate::quantity::Quantity;
use crate::tree::Tree;

pub(super) type Errors = Vec<FieldError>;

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

static NULL: Tree = Tree::Null;

/// What came before in a list. Lists of strangers are long: comparing all with all would take minutes.
#[derive(Clone)]
pub(super) struct Seen<T>(HashSet<T>);

impl<T: Eq + Hash> Seen<T> {
    pub fn new() -> Self {
        Self(HashSet::new())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, value: &T) -> bool {
        self.0.contains(value)
    }

    pub fn push(&mut self, value: T) {
        self.0.insert(value);
    }
}

impl<T: Eq + Hash> FromIterator<T> for Seen<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Of each value, whether the same came before.
pub(super) fn repeated<T: Eq + Hash>(values: impl IntoIterator<Item = T>) -> Vec<bool> {
    let mut seen = HashSet::new();
    values.into_iter().map(|value| !seen.insert(value)).collect()
}

/// The field `key`, null where it is absent.
pub(super) fn at<'t>(tree: &'t Tree, key: &str) -> &'t Tree {
    tree.get(key).unwrap_or(&NULL)
}

/// The field `key` where it is set.
pub(super) fn set<'t>(tree: &'t Tree, key: &str) -> Option<&'t Tree> {
    tree.get(key).filter(|v| !v.is_null())
}

pub(super) fn text<'t>(tree: &'t Tree, key: &str) -> &'t str {
    tree.get(key).and_then(Tree::as_str).unwrap_or("")
}

pub(super) fn list<'t>(tree: &'t Tree, key: &str) -> &'t [Tree] {
    tree.get(key).and_then(Tree::as_array).unwrap_or(&[])
}

pub(super) fn int(tree: &Tree, key: &str) -> Option<i64> {
    tree.get(key).and_then(Tree::as_i64)
}

pub(super) fn flag(tree: &Tree, key: &str) -> bool {
    tree.get(key).and_then(Tree::as_bool).unwrap_or(false)
}

pub(super) fn entries<'t>(tree: &'t Tree, key: &str) -> impl Iterator<Item = (&'t str, &'t Tree)> {
    tree.get(key).and_then(Tree::as_object).into_iter().flat_map(|o| o.iter())
}

/// The strings of a list.
pub(super) fn strings<'t>(tree: &'t Tree, key: &str) -> Vec<&'t str> {
    list(tree, key).iter().filter_map(Tree::as_str).collect()
}

fn is_empty(tree: &Tree) -> bool {
    match tree {
        Tree::Null => true,
        Tree::Array(a) => a.is_empty(),
        Tree::Object(o) => o.is_empty(),
        // A decoded object has a zero where it makes a difference only.
        _ => false,
    }
}

/// Equal as upstream's `Semantic.DeepEqual` has it: what is absent equals what is empty.
pub(super) fn same(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Object(x), Tree::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL))) && y.iter().all(|(k, v)| x.contains_key(k) || is_empty(v))
        }
        (Tree::Array(x), Tree::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Tree::String(_), Tree::String(_)) => a == b,
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

/// The same for one field of two objects.
pub(super) fn same_at(a: &Tree, b: &Tree, key: &str) -> bool {
    same(at(a, key), at(b, key))
}

/// One `Invalid` for each text.
pub(super) fn invalid(errors: &mut Errors, path: &Path, value: &str, texts: Vec<String>) {
    errors.extend(texts.into_iter().map(|t| FieldError::invalid(path, value, t)));
}

pub(super) fn immutable(errors: &mut Errors, new: &Tree, old: &Tree, path: &Path) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new, IMMUTABLE));
    }
}

/// The same for a field at the top whose type upstream declares immutable: such checks do not print the value.
pub(super) fn declared_immutable(errors: &mut Errors, new: &Tree, old: &Tree, key: &str) {
    if !same_at(new, old, key) {
        errors.push(FieldError::invalid(Path::new(key), &NULL, IMMUTABLE));
    }
}

pub(super) fn non_negative(errors: &mut Errors, value: Option<i64>, path: &Path) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errors.push(FieldError::invalid(path, value, NOT_NEGATIVE));
    }
}

/// A wrong struct as Go prints its internal form: name in Go, name in JSON and what stands for nothing, of each field in Go's order.
pub(super) fn in_go(tree: &Tree, fields: &[(&str, &str, &str)]) -> BadValue {
    let fields = fields.iter().map(|(name, key, nothing)| format!("\"{name}\":{}", set(tree, key).map_or_else(|| (*nothing).to_owned(), shown)));
    BadValue::Plain(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into())
}

/// A field that must have one of some values; absent is `Required`.
pub(super) fn one_of(errors: &mut Errors, value: &str, supported: &[&str], path: &Path) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        one_of_or_empty(errors, value, supported, path);
    }
}

/// The same where the empty value is reported like any other.
pub(super) fn supported(errors: &mut Errors, value: &str, supported: &[&str], path: &Path) {
    if !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

pub(super) fn one_of_or_empty(errors: &mut Errors, value: &str, values: &[&str], path: &Path) {
    if !value.is_empty() {
        supported(errors, value, values, path);
    }
}

pub(super) fn require(errors: &mut Errors, tree: &Tree, key: &str, path: &Path) {
    if text(tree, key).is_empty() {
        errors.push(FieldError::required(path.child(key), ""));
    }
}

pub(super) fn label_name(errors: &mut Errors, name: &str, path: &Path) {
    invalid(errors, path, name, names::qualified_name(name));
}

pub(super) fn dns_label(errors: &mut Errors, name: &str, path: &Path) {
    invalid(errors, path, name, names::dns1123_label(name));
}

pub(super) fn dns_subdomain(errors: &mut Errors, name: &str, path: &Path) {
    invalid(errors, path, name, names::dns1123_subdomain(name));
}

pub(super) fn labels(errors: &mut Errors, tree: &Tree, path: &Path) {
    for (key, value) in tree.as_object().into_iter().flat_map(|o| o.iter()) {
        label_name(errors, key, path);
        let value = value.as_str().unwrap_or("");
        invalid(errors, path, value, names::label_value(value));
    }
}

/// A `metav1.LabelSelector`; an absent one is fine.
pub(super) fn label_selector(errors: &mut Errors, selector: &Tree, path: &Path) {
    labels(errors, at(selector, "matchLabels"), &path.child("matchLabels"));
    let expressions = path.child("matchExpressions");
    for (i, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let path = expressions.index(i);
        let values = path.child("values");
        let is_empty = list(expression, "values").is_empty();
        match text(expression, "operator") {
            "In" | "NotIn" if is_empty => {
                errors.push(FieldError::required(values, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !is_empty => {
                errors.push(FieldError::forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        label_name(errors, text(expression, "key"), &path.child("key"));
        for (i, value) in strings(expression, "values").into_iter().enumerate() {
            invalid(errors, &values.index(i), value, names::label_value(value));
        }
    }
}

/// Whether a selector asks for anything.
pub(super) fn selects_all(selector: &Tree) -> bool {
    is_empty(at(selector, "matchLabels")) && is_empty(at(selector, "matchExpressions"))
}

/// A port by number or by the name of a container's port.
pub(super) fn port_number_or_name(errors: &mut Errors, port: &Tree, path: &Path) {
    match port {
        Tree::String(name) => invalid(errors, path, name, names::port_name(name)),
        other => port_number(errors, other.as_i64().unwrap_or(0), path),
    }
}

pub(super) fn port_number(errors: &mut Errors, port: i64, path: &Path) {
    errors.extend(names::port_number(port).into_iter().map(|t| FieldError::invalid(path, port, t)));
}

/// Models pkg/apis/apps/validation `ValidatePositiveIntOrPercent`.
pub(super) fn int_or_percent(errors: &mut Errors, value: &Tree, path: &Path) {
    match value {
        Tree::String(s) => invalid(errors, path, s, names::percent(s)),
        other => non_negative(errors, other.as_i64(), path),
    }
}

/// The number in front of a percent sign.
pub(super) fn percent_value(value: &Tree) -> Option<i64> {
    let text = value.as_str()?;
    if names::percent(text).is_empty() { text.trim_end_matches('%').parse().ok() } else { None }
}

pub(super) fn at_most_hundred_percent(errors: &mut Errors, value: &Tree, path: &Path) {
    if percent_value(value).is_some_and(|v| v > 100) {
        errors.push(FieldError::invalid(path, value, "must not be greater than 100%"));
    }
}

/// The amount in a field; malformed text never gets here, decoding refuses it.
pub(super) fn quantity(value: &Tree) -> Quantity {
    crate::quantity::from_tree(value).unwrap_or_default()
}

pub(super) fn non_negative_quantity(errors: &mut Errors, value: &Tree, path: &Path) {
    let amount = quantity(value);
    if amount.sign() < 0 {
        errors.push(FieldError::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
}

pub(super) fn ip(errors: &mut Errors, value: &str, path: &Path) {
    invalid(errors, path, value, names::ip(value));
}

pub(super) fn cidr(errors: &mut Errors, value: &str, path: &Path) {
    invalid(errors, path, value, names::cidr(value));
}
