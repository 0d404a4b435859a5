//! Whether a value is of its type, with upstream's words. Models structured-merge-diff/v6/typed/validate.go.
use std::collections::HashSet;

use super::types::{Atoms, List, Map, Relation, Scalar, Shape, Type};
use super::{element, value};
use crate::tree::{Object, Tree};

/// What is wrong, and where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(Vec<(String, String)>);

impl Problems {
    pub fn one(message: impl Into<String>) -> Self {
        Problems(vec![(String::new(), message.into())])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn append(&mut self, mut other: Problems) {
        self.0.append(&mut other.0);
    }

    /// The same, found below `step`.
    pub fn below(mut self, step: impl FnOnce() -> String) -> Self {
        if !self.0.is_empty() {
            let step = step();
            self.0.iter_mut().for_each(|(path, _)| path.insert_str(0, &step));
        }
        self
    }

    pub fn result<T>(self, value: T) -> Result<T, Problems> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |f: &mut std::fmt::Formatter<'_>, (path, message): &(String, String)| match path.is_empty() {
            true => f.write_str(message),
            false => write!(f, "{path}: {message}"),
        };
        if let [only] = self.0.as_slice() {
            return one(f, only);
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|problem| {
            f.write_str("\n  ")?;
            one(f, problem)
        })
    }
}

/// Checks `value`, in which no item of a list may stand twice.
pub fn check(ty: Type<'_>, value: &Tree) -> Result<(), Problems> {
    visit(ty, value).result(())
}

pub(super) fn no_shape(atoms: &Atoms<'_>) -> Problems {
    debug_assert!(atoms.shape(None).is_none());
    Problems::one("schema error: invalid atom: inlined")
}

fn visit(ty: Type<'_>, value: &Tree) -> Problems {
    let atoms = ty.atoms();
    match atoms.shape(Some(value)) {
        Some(Shape::Map) => atoms.map.as_ref().map_or_else(Problems::default, |map| visit_map(map, value)),
        Some(Shape::Scalar) => atoms.scalar.map_or_else(Problems::default, |kind| scalar(kind, Some(value), "")),
        Some(Shape::List) => atoms.list.as_ref().map_or_else(Problems::default, |list| visit_list(list, value)),
        None => no_shape(&atoms),
    }
}

pub(super) fn scalar(kind: Scalar, value: Option<&Tree>, side: &str) -> Problems {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Problems::default() };
    let message = match (kind, value) {
        (Scalar::Numeric, Tree::Integer(_) | Tree::Float(_)) | (Scalar::String, Tree::String(_)) | (Scalar::Boolean, Tree::Bool(_)) => {
            return Problems::default();
        }
        (Scalar::Untyped, Tree::Integer(_) | Tree::Float(_) | Tree::String(_) | Tree::Bool(_)) => return Problems::default(),
        (Scalar::Numeric, other) => format!("{side}expected numeric (int or float), got {}", value::go_type(other)),
        (Scalar::String, other) => format!("{side}expected string, got {}", value::wrapped_syntax(other)),
        (Scalar::Boolean, other) => format!("{side}expected boolean, got {}", value::wrapped(other)),
        (Scalar::Untyped, other) => format!("{side}expected any scalar, got {}", value::wrapped(other)),
    };
    Problems::one(message)
}

fn visit_list(list: &List<'_>, value: &Tree) -> Problems {
    let items = match value {
        Tree::Null => return Problems::default(),
        Tree::Array(items) => items,
        other => return Problems::one(format!("expected list, got {}", value::wrapped(other))),
    };
    let mut problems = Problems::default();
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let step = match list.relation {
            Relation::Atomic => format!("i:{i}").into(),
            _ => match element::item(list, item) {
                Ok(step) => step,
                Err(why) => {
                    problems.append(Problems::one(format!("element {i}: {why}")));
                    return problems;
                }
            },
        };
        problems.append(visit(list.items, item).below(|| element::display(&step)));
        if !matches!(list.relation, Relation::Atomic)
            && let Some(twice) = seen.replace(step)
        {
            problems.append(Problems::one(format!("duplicate entries for key {}", element::display(&twice))));
        }
    }
    problems
}

fn visit_map(map: &Map<'_>, value: &Tree) -> Problems {
    let fields: &Object = match value {
        Tree::Null => return Problems::default(),
        Tree::Object(fields) => fields,
        other => return Problems::one(format!("expected map, got {}", value::wrapped(other))),
    };
    let mut problems = Problems::default();
    for (name, value) in fields.iter() {
        let ty = map.at(name);
        if matches!(ty, Type::Nothing) {
            problems.append(Problems::one("field not declared in schema").below(|| format!(".{name}")));
            return problems;
        }
        problems.append(visit(ty, value).below(|| format!(".{name}")));
    }
    problems
}
