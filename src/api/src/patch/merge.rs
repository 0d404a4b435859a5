//! JSON merge patch, RFC 7396.
use std::convert::Infallible;

use crate::tree::Tree;

/// Merges `patch` into `target`: `null` removes, objects merge, everything else replaces.
pub fn merge_patch(target: &mut Tree, patch: Tree) {
    let Tree::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let Ok(()) = target.make_object().merge(patch, |_, before, change| -> Result<_, Infallible> {
        if change.is_null() {
            return Ok(None);
        }
        let mut value = before.unwrap_or_default();
        merge_patch(&mut value, change);
        Ok(Some(value))
    });
}
