//! From kubectl's client-side apply to server-side apply: what its annotation says was kubectl's is no conflict, and the annotation is kept up.
//!
//! Models apimachinery/pkg/util/managedfields/internal/{lastappliedmanager,lastappliedupdater,lastapplied}.go.
use super::set::Set;
use super::types::Type;
use super::{check, compare, fields};
use crate::meta;
use crate::tree::Tree;

/// Only for kubectl; others do not know the annotation.
pub const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// As validation allows for all annotations together.
const SIZE_MAX: usize = 256 * 1024;

/// The paths that kubectl applied from the client's side, and that are still as it did.
pub fn allowed(ty: Type<'_>, api_version: &str, live: &Tree) -> Option<Set> {
    let text = meta::annotation(live, ANNOTATION).filter(|text| !text.is_empty())?;
    check::check(ty, live).ok()?;
    let last = Tree::from_json(text.as_bytes()).ok()?;
    if meta::api_version(&last) != api_version {
        return None;
    }
    check::check(ty, &last).ok()?;
    let found = compare::compare(ty, &last, live).ok()?;
    let set = fields::paths(ty, &last).ok()?;
    Some(set.difference(&found.modified).difference(&found.added).difference(&found.removed))
}

/// Writes what was applied to the annotation, where there is one.
pub fn renew(object: &mut Tree, config: &Tree) {
    if meta::annotation(object, ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    config.remove(&["metadata", "annotations", ANNOTATION]);
    let text = format!("{}\n", escaped(&String::from_utf8_lossy(&config.to_json())));
    let others = meta::annotations(object).iter().filter(|(key, _)| *key != ANNOTATION);
    let size: usize = others.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size + ANNOTATION.len() + text.len() > SIZE_MAX {
        meta::remove_annotation(object, ANNOTATION);
    } else {
        meta::set_annotation(object, ANNOTATION, &text);
    }
}

/// As Go's encoder writes JSON that may stand in HTML.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}
