//! Sets of paths written under a schema whose lists and maps were granular, under one where they are atomic.
//!
//! Models structured-merge-diff/v6/typed/reconcile_schema.go: who owned a part owns the whole. The other way, from atomic to granular, a set stays.
use super::set::{Set, Steps};
use super::types::{Relation, Shape, Type};

/// The set as it reads today; `None`: as it is.
pub fn reconciled(ty: Type<'_>, set: &Set) -> Option<Set> {
    let mut wholes = Vec::new();
    visit(ty, false, set.root(), &mut Vec::new(), &mut wholes);
    if wholes.is_empty() {
        return None;
    }
    let mut whole = Set::default();
    wholes.iter().for_each(|path: &Vec<&str>| whole.insert(path.iter().copied()));
    Some(set.recursive_difference(&whole).union(&whole))
}

/// `is_whole`: a path ends here, and none goes on.
fn visit<'t>(ty: Type<'_>, is_whole: bool, steps: Steps<'t>, path: &mut Vec<&'t str>, wholes: &mut Vec<Vec<&'t str>>) {
    let atoms = ty.atoms();
    match (atoms.shape(None), atoms.map, atoms.list) {
        (Some(Shape::Map), Some(map), _) => {
            if map.is_undeclared() {
                return;
            }
            if map.is_atomic && !is_whole {
                if !steps.is_empty() {
                    wholes.push(path.clone());
                }
                return;
            }
            for (key, is_member, below) in steps.iter() {
                let ty = key.strip_prefix("f:").map_or_else(|| map.rest(), |name| map.at(name));
                if matches!(ty, Type::Nothing) || below.is_empty() {
                    continue;
                }
                path.push(key);
                visit(ty, is_member && below.is_empty(), below, path, wholes);
                path.pop();
            }
        }
        (Some(Shape::List), _, Some(list)) => {
            if matches!(list.relation, Relation::Atomic) && !is_whole {
                wholes.push(path.clone());
                return;
            }
            for (key, is_member, below) in steps.iter().filter(|(.., below)| !below.is_empty()) {
                path.push(key);
                visit(list.items, is_member && below.is_empty(), below, path, wholes);
                path.pop();
            }
        }
        _ => {}
    }
}
