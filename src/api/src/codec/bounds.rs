//! Depth and paths of a tree.
use super::{DEPTH_MAX, PATHS_BYTES_MAX, ParseError, too_deep, too_long};
use crate::tree::Tree;

pub(super) fn check(tree: &Tree) -> Result<(), ParseError> {
    Bounds { left: PATHS_BYTES_MAX }.value(tree, 0, 0)
}

struct Bounds {
    /// Of all paths.
    left: usize,
}

impl Bounds {
    /// `length`: of the value's own path.
    fn value(&mut self, tree: &Tree, length: usize, depth: usize) -> Result<(), ParseError> {
        self.left = self.left.checked_sub(length).ok_or_else(too_long)?;
        match tree {
            Tree::Array(_) | Tree::Object(_) if depth >= DEPTH_MAX => Err(too_deep()),
            // Brackets and a digit, or the dot: more digits make no difference.
            Tree::Array(items) => items.iter().try_for_each(|item| self.value(item, length + 3, depth + 1)),
            Tree::Object(fields) => fields.iter().try_for_each(|(key, field)| self.value(field, length + 1 + key.len(), depth + 1)),
            _ => Ok(()),
        }
    }
}
