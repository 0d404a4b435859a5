//! Which parts of a configuration are owned as a whole, so that merging it would drop what it does not say.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go findAtomics.
use super::types::{Relation, Type};
use crate::tree::Tree;

/// The paths of all atomic lists, maps and structs in `value`: `.spec.selector`.
pub fn atomics(ty: Type<'_>, value: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    visit(ty, value, &mut String::new(), &mut found);
    found
}

fn visit(ty: Type<'_>, value: &Tree, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Tree::Object(fields) => {
            let Some(map) = ty.map() else { return };
            if map.is_atomic {
                found.push(path.clone());
            }
            for (name, value) in fields.iter() {
                // What is not declared is not looked at, as upstream does.
                let Some(ty) = map.field_type(name) else { continue };
                path.push('.');
                path.push_str(name);
                visit(ty, value, path, found);
                path.truncate(length);
            }
        }
        Tree::Array(items) => {
            let Some(list) = ty.list() else { return };
            if matches!(list.relation, Relation::Atomic) {
                found.push(path.clone());
            }
            for (i, item) in items.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                visit(list.items, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
