//! An object that a webhook or policy changed becomes one of its kind again.
use api::tree::Tree;

use super::matching::Invocation;
use crate::rest::model::{self, Expected, Untyped};
use crate::rest::options::FieldValidation;

/// Types are checked, unknown fields pruned or refused, defaults set anew. `Err` says what is wrong.
pub fn typed(invocation: &Invocation, object: Tree, validation: FieldValidation) -> Result<Tree, String> {
    let (kind, shape) = (&invocation.kind, invocation.resource());
    let is_itself = *kind == shape.gvk();
    let expected = if is_itself { Expected::of(shape) } else { Expected::built_in(&kind.group, &kind.version, &kind.kind) };
    let typed = model::typed(expected, object, Vec::new(), validation, &mut Vec::new());
    let mut object = typed.map_err(|error| match error {
        Untyped::Wrong(text) | Untyped::Strict(text) => text,
    })?;
    match is_itself {
        true => api::defaults::apply(shape, &mut object),
        false => api::defaults::apply_kind(&kind.group, &kind.version, &kind.kind, &mut object),
    }
    Ok(object)
}
