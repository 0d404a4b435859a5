//! JSON merge patch, RFC 7396.
use crate::tree::Tree;

/// Merges `patch` into `target`: `null` removes, objects merge, everything else replaces.
pub fn merge_patch(target: &mut Tree, patch: Tree) {
    let Tree::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let target = target.make_object();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge_patch(target.entry(&key, || Tree::Null), value);
        }
    }
}
