//! From any document to an object of its kind: what decoding into a Go struct does for built-in kinds, by a structural schema.
//!
//! Models apiextensions-apiserver/pkg/apiserver/customresource_handler.go unstructuredSchemaCoercer and unstructuredDefaulter.
use super::coerce::{self, Malformed};
use super::{Custom, default};
use crate::tree::Tree;

/// An object of its kind.
#[derive(Debug)]
pub struct Coerced {
    pub tree: Tree,
    /// Strict errors, ready to show: `unknown field "spec.foo"`.
    pub unknown: Vec<String>,
}

/// A request's document: unknown fields are dropped and named, defaults filled in. The error is Go's text.
pub fn coerce(custom: &Custom, mut tree: Tree) -> Result<Coerced, String> {
    let mut unknown = Vec::new();
    apply(custom, &mut tree, Malformed::Refused, Nulls::Pruned, &mut unknown)?;
    default::apply(&mut tree, custom.structural());
    Ok(Coerced { tree, unknown: unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect() })
}

/// The same of what an applied configuration made of an object. Models managedfields' use of unstructuredDefaulter: it was never decoded, so its
/// nulls are still there to be validated.
pub fn coerce_applied(custom: &Custom, mut tree: Tree) -> Result<Tree, String> {
    apply(custom, &mut tree, Malformed::Refused, Nulls::Kept, &mut Vec::new())?;
    default::apply(&mut tree, custom.structural());
    Ok(tree)
}

/// A stored object as the schema of today shows it. What was stored under another schema may hold anything.
pub fn from_stored(custom: &Custom, tree: &mut Tree) {
    // Malformed parts are dropped, so nothing is left that could be an error.
    let _ = apply(custom, tree, Malformed::Dropped, Nulls::Pruned, &mut Vec::new());
    default::apply(tree, custom.structural());
}

/// An object of another version as this one shows it: without what it does not know.
pub fn converted(custom: &Custom, tree: &mut Tree) {
    // As above.
    let _ = apply(custom, tree, Malformed::Dropped, Nulls::Pruned, &mut Vec::new());
}

/// What becomes of nulls where the schema allows none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    Pruned,
    Kept,
}

fn apply(custom: &Custom, tree: &mut Tree, malformed: Malformed, nulls: Nulls, unknown: &mut Vec<String>) -> Result<(), String> {
    let schema = custom.structural();
    let metadata = match (tree.remove(&["metadata"]), malformed) {
        (None, _) => None,
        (Some(metadata), Malformed::Refused) => Some(coerce::object_meta(metadata, malformed, unknown, "")?),
        (Some(metadata), Malformed::Dropped) => match coerce::object_meta(metadata.clone(), malformed, unknown, "") {
            Ok(typed) => Some(typed),
            Err(why) => {
                tree.set(&["metadata"], metadata);
                return Err(why);
            }
        },
    };
    default::prune(tree, schema, true, Some(unknown));
    if nulls == Nulls::Pruned {
        default::prune_nulls(tree, Some(schema));
    }
    let result = coerce::embedded(tree, schema, malformed, unknown);
    if let Some(metadata) = metadata {
        tree.set(&["metadata"], metadata);
    }
    result.map_err(|error| error.to_string())
}
