//! What nodes and pods use. Models metrics-server pkg/api/table.go.
use super::access::text;
use super::{Column, NAME, column};
use crate::tree::Tree;

pub(super) const GROUP: &str = "metrics.k8s.io";
pub(super) static COLUMNS: [Column; 4] =
    [NAME, column("cpu", "string", "", ""), column("memory", "string", "", ""), column("Window", "string", "duration", "")];

/// A pod uses what its containers use.
pub(super) fn cells(object: &Tree) -> Vec<Tree> {
    let amount = |name: &str| {
        let own = object.at(&["usage", name]).into_iter();
        let all = own.chain(object.array_at(&["containers"]).iter().filter_map(|c| c.at(&["usage", name])));
        all.filter_map(crate::quantity::from_tree).reduce(|a, b| a + b).map_or_else(|| "0".into(), Tree::from)
    };
    vec![text(object, &["metadata", "name"]), amount("cpu"), amount("memory"), text(object, &["window"])]
}
