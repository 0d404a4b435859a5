//! Strategic merge patch: lists merge by key, and directives say what to do otherwise.
//!
//! Models apimachinery/pkg/util/strategicpatch/patch.go with `MergeParallelList` and `IgnoreUnmatchedNulls` set, which is how the API
//! server applies patches. A field that the schema does not know is taken as it is: decoding reports it.
use std::collections::{HashMap, HashSet};

use super::PatchError;
use crate::schema::go_name;
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
    let patch = match patch {
        Tree::Object(patch) => patch,
        Tree::Null => return Ok(()),
        other => {
            let text = format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", go_name(&other));
            return Err(PatchError::BadRequest(text));
        }
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

/// Models mergepatch.ErrBadArgType.
fn no_list(found: &Tree) -> PatchError {
    PatchError::Internal(format!("expected a []interface {{}}, but received a {}", go_type(found)))
}

/// The type of what Go decodes JSON into.
fn go_type(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "%!s(<nil>)",
        Tree::Bool(_) => "bool",
        Tree::String(_) => "string",
        Tree::Array(_) => "[]interface {}",
        Tree::Object(_) => "map[string]interface {}",
        _ => "int64",
    }
}

fn no_merge_key(item: &Tree, key: &str) -> PatchError {
    PatchError::Internal(format!("map: {} does not contain declared merge key: {key}", go_map(item)))
}

fn unknown_directive(directive: &Tree, map: &Tree) -> PatchError {
    // `%s` of what is no text.
    let shown = match directive {
        Tree::String(text) => text.to_string(),
        Tree::Null => "%!s(<nil>)".to_owned(),
        Tree::Bool(_) | Tree::Object(_) | Tree::Array(_) => format!("%!s({}={})", go_type(directive), go_map(directive)),
        number => format!("%!s(int64={})", go_map(number)),
    };
    PatchError::Internal(format!("unknown patch type: {shown} in map: {}", go_map(map)))
}

/// A value as Go's `%v` prints it.
fn go_map(tree: &Tree) -> String {
    match tree {
        Tree::Object(o) => {
            let mut entries: Vec<String> = o.iter().map(|(k, v)| format!("{k}:{}", go_map(v))).collect();
            entries.sort_unstable();
            format!("map[{}]", entries.join(" "))
        }
        Tree::Array(a) => format!("[{}]", a.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Tree::String(s) => s.to_string(),
        Tree::Null => "<nil>".to_owned(),
        other => String::from_utf8_lossy(&other.to_json()).into_owned(),
    }
}

fn merge_object<S: MergeSchema + ?Sized>(mut original: Object, mut patch: Object, schema: Option<&S>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &Tree::Object(patch.clone()))),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    let (mut changes, mut gone) = (Vec::with_capacity(patch.len()), HashSet::new());
    for (key, value) in patch {
        let Some(name) = key.strip_prefix(DELETE_FROM) else {
            if key.starts_with("$deleteFromPrimitiveList") {
                return Err(PatchError::BadRequest("invalid patch format of primitive list".to_owned()));
            }
            changes.push((key, value));
            continue;
        };
        if value.is_null() {
            gone.insert(name.to_owned());
        } else if let Some(old) = original.get_mut(name) {
            *old = changed(std::mem::take(old), value, schema.and_then(|s| s.field(name)), true)?.unwrap_or_default();
        }
    }
    if !gone.is_empty() {
        original.retain(|key, _| !gone.contains(key));
    }
    original.merge(changes.into_iter().collect(), |key, old, value| match old {
        _ if value.is_null() => Ok(None),
        None => Ok(without_directives(without_nulls(value))),
        Some(old) => changed(old, value, schema.and_then(|s| s.field(key)), false),
    })?;
    Ok(original)
}

/// What `value` makes of a field that is there; nothing where it is a directive.
fn changed<S: MergeSchema + ?Sized>(
    old: Tree,
    value: Tree,
    field: Option<MergeField<'_, S>>,
    is_delete_list: bool,
) -> Result<Option<Tree>, PatchError> {
    Ok(match (old, value) {
        (Tree::Object(_), Tree::Object(new)) if has(field.as_ref().map_or("", |f| f.strategy), "replace") => Some(Tree::Object(new)),
        (Tree::Object(old), Tree::Object(new)) => Some(Tree::Object(merge_object(old, new, field.map(|f| f.schema))?)),
        (Tree::Array(old), Tree::Array(new)) => Some(Tree::Array(merge_list(old, new, field.as_ref(), is_delete_list)?)),
        (old, _) if is_delete_list => Some(old),
        (_, new) => without_directives(without_nulls(new)),
    })
}

fn has(strategy: &str, what: &str) -> bool {
    strategy.split(',').any(|s| s == what)
}

/// `$retainKeys`: what is not named goes; what the patch sets must be named.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = directive.as_array().ok_or_else(bad_retain_keys)?;
    let keys: HashSet<&str> = keys.iter().filter_map(Tree::as_str).collect();
    let named = |key: &str| keys.contains(key);
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
    if !patch.keys().any(|key| key.starts_with("$setElementOrder")) {
        return Ok(());
    }
    let (directives, rest): (Vec<_>, Vec<_>) = std::mem::take(patch).into_iter().partition(|(key, _)| key.starts_with("$setElementOrder"));
    *patch = rest.into_iter().collect();
    let (mut done, mut added) = (HashSet::new(), Vec::new());
    for (directive, order) in &directives {
        let order = order.as_array().ok_or_else(|| no_list(order))?;
        let name = directive.strip_prefix(SET_ORDER).ok_or_else(bad_order)?;
        let field = schema.and_then(|s| s.field(name));
        let key = field.as_ref().map_or("", |f| f.merge_key);
        let in_patch = patch.get_mut(name).map(std::mem::take);
        if in_patch.is_some() {
            done.insert(name);
        }
        let patch_list = match in_patch {
            None => None,
            Some(Tree::Array(items)) => Some(items),
            Some(other) => return Err(no_list(&other)),
        };
        if let Some(items) = &patch_list {
            check_order(items, order, key)?;
        }
        let place = original.get_mut(name);
        let is_there = place.is_some();
        let server = match place.map(std::mem::take) {
            Some(Tree::Array(items)) => Some(items),
            None => None,
            Some(other) => return Err(no_list(&other)),
        };
        let server_order = server.clone().unwrap_or_default();
        let merged = match (server, patch_list) {
            (None, None) => continue,
            (Some(server), None) => server,
            (None, Some(items)) => items.into_iter().filter_map(without_directives).collect(),
            (Some(server), Some(items)) => merge_list(server, items, field.as_ref(), false)?,
        };
        let merged = Tree::Array(ordered(merged, order, &server_order, key)?);
        match original.get_mut(name).filter(|_| is_there) {
            Some(place) => *place = merged,
            None => added.push((name, merged)),
        }
    }
    patch.retain(|key, _| !done.contains(key));
    original.merge(added.into_iter().collect(), |_, _, list| Ok(Some(list)))
}

/// Whether the patch's items come in the order that the directive gives, all of them named by it.
fn check_order(items: &[Tree], order: &[Tree], key: &str) -> Result<(), PatchError> {
    if items.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in items.iter().filter(|i| i.get(DIRECTIVE).is_none()) {
        let mut found = false;
        for other in rest.by_ref() {
            has_merge_key(item, key)?;
            has_merge_key(other, key)?;
            found = same(other, item, key);
            if found {
                break;
            }
        }
        if !found {
            return Err(PatchError::Internal(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_map(&Tree::Array(items.to_vec())),
                go_map(&Tree::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

fn has_merge_key(item: &Tree, key: &str) -> Result<(), PatchError> {
    match item {
        _ if key.is_empty() => Ok(()),
        Tree::Object(object) if object.get(key).is_some() => Ok(()),
        Tree::Object(_) => Err(no_merge_key(item, key)),
        other => Err(PatchError::Internal(format!("expected a map[string]interface {{}}, but received a {}", go_type(other)))),
    }
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
            let deleted: HashSet<Vec<u8>> = patch.iter().map(Tree::to_json).collect();
            return Ok(original.into_iter().filter(|i| !deleted.contains(&i.to_json())).collect());
        }
        let mut seen: HashSet<Vec<u8>> = HashSet::with_capacity(original.len() + patch.len());
        let merged: Vec<Tree> = original.iter().chain(&patch).filter(|item| seen.insert(item.to_json())).cloned().collect();
        return ordered(merged, &patch, &original, "");
    }
    let key = field.merge_key;
    if key.is_empty() {
        return Err(PatchError::Internal("cannot merge lists without merge key for type struct".to_owned()));
    }
    let (mut merged, patch) = apply_list_directives(original, patch, key)?;
    let server_order: Vec<Tree> = merged.clone();
    let mut named = Vec::with_capacity(patch.len());
    let mut places = Places::of(&merged, key);
    for item in patch {
        let Some(id) = item.get(key).cloned() else { return Err(no_merge_key(&item, key)) };
        named.push(Tree::Object([(key, id.clone())].into_iter().collect()));
        match places.of_id(&id) {
            Some(place) => {
                let slot = &mut merged[place];
                let old = std::mem::take(slot.make_object());
                let Tree::Object(new) = item else { continue };
                *slot = Tree::Object(merge_object(old, new, field.schema.items())?);
            }
            None => {
                places.add(&id, merged.len());
                merged.push(item);
            }
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
    let mut deleted: HashSet<Vec<u8>> = HashSet::new();
    for item in patch {
        match item.get(DIRECTIVE).map(|d| (d, d.as_str())) {
            None => rest.push(item),
            Some((_, Some("delete"))) => {
                let Some(id) = item.get(key) else { return Err(no_merge_key(&item, key)) };
                deleted.insert(id.to_json());
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(PatchError::Internal("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some((directive, _)) => return Err(unknown_directive(directive, &item)),
        }
    }
    if !deleted.is_empty() {
        original.retain(|item| item.get(key).is_none_or(|id| !deleted.contains(&id.to_json())));
    }
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

/// Puts `merged` in order: `$setElementOrder` or the patch's order first, then the server's, keeping the server's relative order.
fn ordered(merged: Vec<Tree>, order: &[Tree], server_order: &[Tree], key: &str) -> Result<Vec<Tree>, PatchError> {
    if !key.is_empty()
        && let Some(item) = merged.iter().find(|i| i.get(key).is_none()) {
            return Err(no_merge_key(item, key));
        }
    let (in_order, on_server) = (Places::of(order, key), Places::of(server_order, key));
    let (mut patched, mut server) = (Vec::new(), Vec::new());
    for item in merged {
        let on_server = on_server.of_item(&item, key);
        match in_order.of_item(&item, key) {
            Some(place) => patched.push((place, on_server, item)),
            None => server.push((on_server, item)),
        }
    }
    patched.sort_by_key(|(place, ..)| *place);
    // Those that the server does not have come first.
    server.sort_by_key(|(place, _)| *place);
    let mut out = Vec::with_capacity(patched.len() + server.len());
    let (mut patched, mut server) = (patched.into_iter().peekable(), server.into_iter().peekable());
    loop {
        let server_first = match (server.peek(), patched.peek()) {
            (None, None) => return Ok(out),
            (Some((Some(s), _)), Some((_, Some(p), _))) => s < p,
            (Some(_), Some(_)) => false,
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        out.extend(if server_first { server.next().map(|(_, item)| item) } else { patched.next().map(|(.., item)| item) });
    }
}

/// Where in a list the items are, each by its merge key, or as a whole where there is no key: lists of strangers are long.
struct Places(HashMap<Vec<u8>, usize>);

impl Places {
    fn of(list: &[Tree], key: &str) -> Self {
        let mut places = Places(HashMap::with_capacity(list.len()));
        for (place, item) in list.iter().enumerate() {
            if let Some(id) = id_of(item, key) {
                places.add(id, place);
            }
        }
        places
    }

    /// The first of equal ones counts.
    fn add(&mut self, id: &Tree, place: usize) {
        self.0.entry(id.to_json()).or_insert(place);
    }

    fn of_id(&self, id: &Tree) -> Option<usize> {
        self.0.get(&id.to_json()).copied()
    }

    fn of_item(&self, item: &Tree, key: &str) -> Option<usize> {
        id_of(item, key).and_then(|id| self.of_id(id))
    }
}

fn id_of<'t>(item: &'t Tree, key: &str) -> Option<&'t Tree> {
    if key.is_empty() { Some(item) } else { item.get(key) }
}

/// A value that is taken whole; nothing where it is a directive. Models removeDirectives.
fn without_directives(value: Tree) -> Option<Tree> {
    match value {
        Tree::Object(object) if object.get(DIRECTIVE).is_some() => None,
        Tree::Object(object) => {
            let kept = object.into_iter().filter_map(|(key, value)| without_directives(value).map(|value| (key, value)));
            Some(Tree::Object(kept.collect()))
        }
        Tree::Array(items) => Some(Tree::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// Fields that are null are left out. Models discardNullValuesFromPatch.
fn without_nulls(value: Tree) -> Tree {
    match value {
        Tree::Object(object) => {
            let kept = object.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, without_nulls(value)));
            Tree::Object(kept.collect())
        }
        Tree::Array(items) => Tree::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
