//! Nodes. Models pkg/registry/core/node/strategy.go.
use api::tree::Tree;

/// The first CIDR stands alone, too, and there it counts. Models pkg/apis/core/v1/conversion.go Convert_v1_NodeSpec_To_core_NodeSpec and back.
pub fn agree_on_cidrs(node: &mut Tree) {
    let first = node.array_at(&["spec", "podCIDRs"]).first().and_then(Tree::as_str).unwrap_or("").to_owned();
    let alone = node.str_at(&["spec", "podCIDR"]).to_owned();
    if alone.is_empty() && !first.is_empty() {
        node.set(&["spec", "podCIDR"], first);
    } else if alone != first {
        node.set(&["spec", "podCIDRs"], Tree::Array(vec![alone.into()]));
    }
}

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
