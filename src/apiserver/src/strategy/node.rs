//! Nodes. Models pkg/registry/core/node/strategy.go.
use api::tree::Tree;

/// Pod CIDRs, once given, stay.
pub fn prepare_update(new: &mut Tree, old: &Tree) {
    for field in ["podCIDR", "podCIDRs", "providerID"] {
        let path = ["spec", field];
        if new.at(&path).is_none_or(Tree::is_null)
            && let Some(value) = old.at(&path)
        {
            new.set(&path, value.clone());
        }
    }
}
