//! How deep the operations of a JSON patch make a document.
//!
//! A document is read no deeper than [`DEPTH_MAX`], but operations can wrap it: ten thousand of them would make a tree that nothing can walk.
use crate::codec::DEPTH_MAX;
use crate::tree::Tree;

/// So often the whole document is measured in one patch; no patch with a purpose comes near.
const LOOKS_MAX: usize = 64;

/// No less than the depth of the document.
pub(super) struct Depth {
    most: usize,
    looks: usize,
}

/// Of an empty object one, of a text none.
fn measure(tree: &Tree) -> usize {
    match tree {
        Tree::Array(items) => 1 + items.iter().map(measure).max().unwrap_or(0),
        Tree::Object(fields) => 1 + fields.iter().map(|(_, field)| measure(field)).max().unwrap_or(0),
        _ => 0,
    }
}

impl Depth {
    pub fn of(document: &Tree) -> Self {
        Self { most: measure(document), looks: 0 }
    }

    /// After `operation` was applied, from which `document` came.
    pub fn after(&mut self, operation: &Tree, document: &Tree) -> Result<(), String> {
        let tokens = |field: &str| operation.get(field).and_then(Tree::as_str).map_or(0, |pointer| pointer.matches('/').count());
        let moved = match operation.get("op").and_then(Tree::as_str) {
            Some("add" | "replace") => operation.get("value").map_or(0, measure),
            Some("move" | "copy") => self.most.saturating_sub(tokens("from")),
            _ => return Ok(()),
        };
        self.most = self.most.max(tokens("path") + moved);
        if self.most > DEPTH_MAX {
            self.looks += 1;
            self.most = if self.looks > LOOKS_MAX { usize::MAX } else { measure(document) };
        }
        if self.most > DEPTH_MAX { Err("exceeded max depth".to_owned()) } else { Ok(()) }
    }
}
