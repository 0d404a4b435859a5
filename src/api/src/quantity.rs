//! Quantities in trees. What they are is `cel`'s, whose functions count with them too.
pub use cel::quantity::{Format, Quantity, QuantityError};

use crate::tree::Tree;

/// The quantity in a JSON value: a string or a bare number. `None` for other types or malformed text.
pub fn from_tree(tree: &Tree) -> Option<Quantity> {
    match tree {
        Tree::String(s) => Quantity::parse(s.trim()).ok(),
        Tree::Integer(i) => Some(Quantity::from_whole(*i, Format::DecimalSi)),
        Tree::Float(f) => Quantity::parse(&f.to_string()).ok(),
        _ => None,
    }
}

impl From<Quantity> for Tree {
    fn from(quantity: Quantity) -> Tree {
        Tree::from(quantity.to_string())
    }
}
