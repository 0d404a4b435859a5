//! Strategic merge patch: lists merge by key, and directives say what to do otherwise.
//!
//! Models apimachinery/pkg/util/strategicpatch/patch.go with `MergeParallelList` and `IgnoreUnmatchedNulls` set, which is how the API
//! server applies patches. A field that the schema does not know is taken as it is: decoding reports it.
use super::PatchError;
use crate::tree::{Object, Tree};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// What the merge must know of a field.
pub struct MergeField<'s, S: ?Sized> {
    /// The schema of the field's value.
    pub schema: &'s S,
    /// `merge`, `replace`, `retainKeys`, `merge,retainKeys` or nothing.
    pub strategy: &'s str,
    pub merge_key: &'s str,
}

/// What the merge must know of a type.
pub trait MergeSchema {
    /// A field of an object; of a map every key has the schema of its values.
    fn field(&self, name: &str) -> Option<MergeField<'_, Self>>;
    /// The schema of a list's items.
    fn items(&self) -> Option<&Self>;
}

/// Merges `patch` into `original`.
pub fn strategic_merge_with<S: MergeSchema + ?Sized>(original: &mut Tree, patch: Tree, schema: &S) -> Result<(), PatchError> {
    let (Tree::Object(_), Tree::Object(patch)) = (&*original, patch) else {
        return Err(PatchError::BadRequest("invalid JSON document".to_owned()));
    };
    let target = std::mem::take(original.make_object());
    *original = Tree::Object(merge_object(target, patch, Some(schema))?);
    Ok(())
}

fn bad_retain_keys() -> PatchError {
    PatchError::BadRequest("invalid patch format of retainKeys".to_owned())
}

fn bad_order() -> PatchError {
    PatchError::BadRequest("invalid patch format of setElementOrder list".to_owned())
}

fn no_merge_key(item: &Tree, key: &str) -> PatchError {
    PatchError::Internal(format!("map: {} does not contain declared merge key: {key}", go_map(item)))
}

fn unknown_directive(directive: &Tree, map: &Tree) -> PatchError {
    PatchError::Internal(format!("unknown patch type: {} in map: {}", go_map(directive), go_map(map)))
}

/// A value as Go's `%v` prints it.
fn go_map(tree: &Tree) -> String {
    match tree {
        Tree::Object(o) => {
            let entries: Vec<String> = o.iter().map(|(k, v)| format!("{k}:{}", go_map(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Tree::Array(a) => format!("[{}]", a.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Tree::String(s) => s.to_string(),
        Tree::Null => "<nil>".to_owned(),
        other => String::from_utf8_lossy(&other.to_json()).into_owned(),
    }
}

fn merge_object<S: MergeSchema + ?Sized>(mut original: Object, mut patch: Object, schema: Option<&S>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&directive, &Tree::Object(patch))),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        let (key, is_delete_list) = match key.strip_prefix(DELETE_FROM) {
            Some(field) => (field, true),
            None if key.starts_with("$deleteFromPrimitiveList") => {
                return Err(PatchError::BadRequest("invalid patch format of primitive list".to_owned()));
            }
            None => (&*key, false),
        };
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let Some(old) = original.get_mut(key) else {
            if !is_delete_list {
                original.insert(key, without_directives(value)?);
            }
            continue;
        };
        let field = schema.and_then(|s| s.field(key));
        match (&mut *old, value) {
            (Tree::Object(old_object), Tree::Object(new)) => {
                let strategy = field.as_ref().map_or("", |f| f.strategy);
                *old_object = if has(strategy, "replace") {
                    new
                } else {
                    merge_object(std::mem::take(old_object), new, field.map(|f| f.schema))?
                };
            }
            (Tree::Array(old_items), Tree::Array(new)) => {
                *old_items = merge_list(std::mem::take(old_items), new, field.as_ref(), is_delete_list)?;
            }
            (_, new) if !is_delete_list => *old = without_directives(new)?,
            _ => {}
        }
    }
    Ok(original)
}

fn has(strategy: &str, what: &str) -> bool {
    strategy.split(',').any(|s| s == what)
}

/// `$retainKeys`: what is not named goes; what the patch sets must be named.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = directive.as_array().ok_or_else(bad_retain_keys)?;
    let named = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let unnamed = |(key, value): (&str, &Tree)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !named(key)
    };
    if patch.iter().any(unnamed) {
        return Err(bad_retain_keys());
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// `$setElementOrder/field`: merges that list and puts it in the given order.
fn merge_ordered_lists<S: MergeSchema + ?Sized>(original: &mut Object, patch: &mut Object, schema: Option<&S>) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with("$setElementOrder")).map(str::to_owned).collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let order = order.as_array().ok_or_else(bad_order)?;
        let name = directive.strip_prefix(SET_ORDER).ok_or_else(bad_order)?;
        let field = schema.and_then(|s| s.field(name));
        let key = field.as_ref().map_or("", |f| f.merge_key);
        let patch_list = match patch.remove(name) {
            None => None,
            // A null deletes the list; nothing is left to order.
            Some(Tree::Null) => {
                original.remove(name);
                continue;
            }
            Some(Tree::Array(items)) => Some(items),
            Some(_) => return Err(bad_order()),
        };
        if let Some(items) = &patch_list {
            check_order(items, order, key)?;
        }
        let server = match original.remove(name) {
            Some(Tree::Array(items)) => Some(items),
            Some(Tree::Null) | None => None,
            Some(_) => return Err(bad_order()),
        };
        let server_order = server.clone().unwrap_or_default();
        let merged = match (server, patch_list) {
            (None, None) => continue,
            (Some(server), None) => server,
            (None, Some(items)) => match without_directives(Tree::Array(items))? {
                Tree::Array(items) => items,
                _ => Vec::new(),
            },
            (Some(server), Some(items)) => merge_list(server, items, field.as_ref(), false)?,
        };
        original.insert(name, Tree::Array(ordered(merged, order, &server_order, key)?));
    }
    Ok(())
}

/// Whether the patch's items come in the order that the directive gives, all of them named by it.
fn check_order(items: &[Tree], order: &[Tree], key: &str) -> Result<(), PatchError> {
    if items.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in items.iter().filter(|i| i.get(DIRECTIVE).is_none()) {
        if !rest.any(|o| same(o, item, key)) {
            return Err(PatchError::Internal(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_map(&Tree::Array(items.to_vec())),
                go_map(&Tree::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

fn same(a: &Tree, b: &Tree, key: &str) -> bool {
    if key.is_empty() { a == b } else { matches!((a.get(key), b.get(key)), (Some(a), Some(b)) if a == b) }
}

fn merge_list<S: MergeSchema + ?Sized>(
    original: Vec<Tree>,
    patch: Vec<Tree>,
    field: Option<&MergeField<'_, S>>,
    is_delete_list: bool,
) -> Result<Vec<Tree>, PatchError> {
    let Some(field) = field.filter(|f| has(f.strategy, "merge")) else {
        return Ok(patch);
    };
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    check_types(&original, &patch)?;
    let is_objects = original.iter().chain(&patch).any(|i| i.as_object().is_some());
    if !is_objects {
        if is_delete_list {
            return Ok(original.into_iter().filter(|i| !patch.contains(i)).collect());
        }
        let mut merged: Vec<Tree> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return ordered(merged, &patch, &original, "");
    }
    let key = field.merge_key;
    if key.is_empty() {
        return Err(PatchError::Internal("cannot merge lists without merge key for type struct".to_owned()));
    }
    let (mut merged, patch) = apply_list_directives(original, patch, key)?;
    let server_order: Vec<Tree> = merged.clone();
    let mut named = Vec::with_capacity(patch.len());
    for item in patch {
        let Some(id) = item.get(key).cloned() else { return Err(no_merge_key(&item, key)) };
        named.push(Tree::Object([(key, id.clone())].into_iter().collect()));
        match merged.iter_mut().find(|i| i.get(key) == Some(&id)) {
            Some(slot) => {
                let old = std::mem::take(slot.make_object());
                let Tree::Object(new) = item else { continue };
                *slot = Tree::Object(merge_object(old, new, field.schema.items())?);
            }
            None => merged.push(without_directives(item)?),
        }
    }
    ordered(merged, &named, &server_order, key)
}

fn check_types(original: &[Tree], patch: &[Tree]) -> Result<(), PatchError> {
    let mut kind = None;
    for item in original.iter().chain(patch) {
        if matches!(item, Tree::Array(_)) {
            return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
        }
        if *kind.get_or_insert(item.type_name()) != item.type_name() {
            let lists = format!("[{} {}]", go_map(&Tree::Array(original.to_vec())), go_map(&Tree::Array(patch.to_vec())));
            return Err(PatchError::Internal(format!("list element types are not identical: {lists}")));
        }
    }
    Ok(())
}

/// Carries out the items that are directives (`$patch: delete`, `$patch: replace`); returns what is left of both lists.
fn apply_list_directives(mut original: Vec<Tree>, patch: Vec<Tree>, key: &str) -> Result<(Vec<Tree>, Vec<Tree>), PatchError> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE).map(|d| (d, d.as_str())) {
            None => rest.push(item),
            Some((_, Some("delete"))) => {
                let Some(id) = item.get(key) else { return Err(no_merge_key(&item, key)) };
                original.retain(|i| i.get(key) != Some(id));
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(PatchError::Internal("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some((directive, _)) => return Err(unknown_directive(directive, &item)),
        }
    }
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

/// Puts `merged` in order: `$setElementOrder` or the patch's order first, then the server's, keeping the server's relative order.
fn ordered(merged: Vec<Tree>, order: &[Tree], server_order: &[Tree], key: &str) -> Result<Vec<Tree>, PatchError> {
    let index = |list: &[Tree], item: &Tree| list.iter().position(|o| same(o, item, key));
    if !key.is_empty()
        && let Some(item) = merged.iter().find(|i| i.get(key).is_none()) {
            return Err(no_merge_key(item, key));
        }
    let (mut patched, mut server): (Vec<Tree>, Vec<Tree>) = merged.into_iter().partition(|i| index(order, i).is_some());
    patched.sort_by_key(|i| index(order, i));
    server.sort_by_key(|i| index(server_order, i).map_or(-1, |i| i as i64));
    let mut out = Vec::with_capacity(patched.len() + server.len());
    let (mut patched, mut server) = (patched.into_iter().peekable(), server.into_iter().peekable());
    loop {
        let server_first = match (server.peek(), patched.peek()) {
            (None, None) => return Ok(out),
            (Some(s), Some(p)) => matches!((index(server_order, s), index(server_order, p)), (Some(s), Some(p)) if s < p),
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        out.extend(if server_first { server.next() } else { patched.next() });
    }
}

/// A value that is taken whole: directives mean nothing in it, and nulls are left out.
fn without_directives(value: Tree) -> Result<Tree, PatchError> {
    Ok(match value {
        Tree::Object(mut object) => {
            match object.remove(DIRECTIVE).as_ref().map(|d| (d, d.as_str())) {
                Some((_, Some("delete"))) => return Ok(Tree::object()),
                Some((_, Some("replace" | "merge"))) | None => {}
                Some((directive, _)) => return Err(unknown_directive(directive, &Tree::Object(object.clone()))),
            }
            let mut out = Object::new();
            for (key, value) in object {
                let is_directive = &*key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
                if !is_directive && !value.is_null() {
                    out.insert(key, without_directives(value)?);
                }
            }
            Tree::Object(out)
        }
        Tree::Array(items) => {
            let items = items.into_iter().filter(|i| i.get(DIRECTIVE).is_none());
            Tree::Array(items.map(without_directives).collect::<Result<_, _>>()?)
        }
        other => other,
    })
}
