//! Takes items and fields out of a value. Models structured-merge-diff/v6/typed/remove.go, without extraction.
use super::element;
use super::set::{Set, Steps};
use super::types::{List, Map, Relation, Shape, Type};
use crate::tree::{Object, Tree};

/// `value` without what `paths` lead to. Atomic lists and maps that are reached into lose everything.
pub fn remove(ty: Type<'_>, value: &Tree, paths: &Set) -> Tree {
    visit(ty, value, paths.root())
}

fn visit(ty: Type<'_>, value: &Tree, paths: Steps<'_>) -> Tree {
    let atoms = ty.atoms();
    match (atoms.shape(Some(value)), atoms.map, atoms.list) {
        (Some(Shape::Map), Some(map), _) => visit_map(&map, value, paths),
        (Some(Shape::List), _, Some(list)) => visit_list(&list, value, paths),
        (Some(Shape::Scalar), ..) => value.clone(),
        _ => Tree::Null,
    }
}

fn visit_list(list: &List<'_>, value: &Tree, paths: Steps<'_>) -> Tree {
    let Tree::Array(items) = value else { return Tree::Null };
    if matches!(list.relation, Relation::Atomic) {
        return Tree::Null;
    }
    let left: Vec<Tree> = items
        .iter()
        .filter_map(|item| {
            let Ok(key) = element::item(list, item) else { return Some(item.clone()) };
            let (goes, below) = paths.at(&key);
            if goes {
                return None;
            }
            Some(if below.is_empty() { item.clone() } else { visit(list.items, item, below) })
        })
        .collect();
    if left.is_empty() { Tree::Null } else { Tree::Array(left) }
}

fn visit_map(map: &Map<'_>, value: &Tree, paths: Steps<'_>) -> Tree {
    let Tree::Object(fields) = value else { return Tree::Null };
    if map.is_atomic {
        return Tree::Null;
    }
    let left: Object = fields
        .iter()
        .filter_map(|(name, value)| {
            let (goes, below) = paths.at(&element::field(name));
            if goes {
                return None;
            }
            Some((name, if below.is_empty() { value.clone() } else { visit(map.at(name), value, below) }))
        })
        .collect();
    if left.is_empty() { Tree::Null } else { Tree::Object(left) }
}
