//! All paths that a value sets. Models structured-merge-diff/v6/typed/tofieldset.go.
use std::collections::HashSet;

use super::check::{self, Problems};
use super::element;
use super::set::{Node, Set};
use super::types::{List, Map, Relation, Shape, Type};
use crate::tree::{Key, Tree};

/// The paths that `value` sets.
pub fn paths(ty: Type<'_>, value: &Tree) -> Result<Set, Problems> {
    let mut problems = Problems::default();
    let node = visit(ty, value, &mut problems);
    problems.result(node.into_set())
}

fn visit(ty: Type<'_>, value: &Tree, problems: &mut Problems) -> Node {
    let atoms = ty.atoms();
    let mut node = Node::default();
    match (atoms.shape(Some(value)), atoms.map, atoms.list) {
        (Some(Shape::Map), Some(map), _) => visit_map(&map, value, &mut node, problems),
        (Some(Shape::List), _, Some(list)) => visit_list(&list, value, &mut node, problems),
        (Some(Shape::Scalar), ..) => node.member = true,
        _ => problems.append(check::no_shape(&atoms)),
    }
    node
}

fn visit_map(map: &Map<'_>, value: &Tree, node: &mut Node, problems: &mut Problems) {
    if map.is_atomic {
        node.member = true;
        return;
    }
    let Tree::Object(fields) = value else { return };
    for (name, value) in fields.iter() {
        let declared = map.field_type(name);
        let mut child = visit(declared.unwrap_or_else(|| map.rest()), value, problems);
        let is_bare = value.is_null() || value.as_object().is_some_and(|o| o.is_empty());
        child.member |= is_bare || declared.is_none();
        node.attach(|| element::field(name), child);
    }
}

fn visit_list(list: &List<'_>, value: &Tree, node: &mut Node, problems: &mut Problems) {
    if matches!(list.relation, Relation::Atomic) {
        node.member = true;
        return;
    }
    let Tree::Array(items) = value else { return };
    // What has no key was refused before.
    let keys: Vec<Option<Key>> = items.iter().map(|item| element::item(list, item).ok()).collect();
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for key in keys.iter().flatten() {
        if !seen.insert(key) && twice.insert(key) {
            node.insert(key.clone());
        }
    }
    for (item, key) in items.iter().zip(&keys) {
        let Some(key) = key.as_ref().filter(|key| !twice.contains(key)) else { continue };
        let mut child = visit(list.items, item, problems);
        child.member = true;
        node.attach(|| key.clone(), child);
    }
}
