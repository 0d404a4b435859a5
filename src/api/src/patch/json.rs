//! JSON patch, RFC 6902, with the limits and texts of the library that upstream uses (evanphx/json-patch v4).
use super::PatchError;
use super::depth::Depth;
use crate::schema::go_name;
use crate::tree::Tree;

/// Upstream's bound on the number of operations in one patch.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// What `copy` operations of one patch may add; upstream bounds it by the size of a request body.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What the API server says of a patch that it decodes with an eye on unknown fields: complaints, or why it is none.
///
/// Models k8s.io/apiserver/pkg/endpoints/handlers/patch.go jsonPatchOp.
pub fn check_json_patch(patch: &Tree) -> Result<Vec<String>, PatchError> {
    let wrong = |found: &Tree, wanted: &str| {
        Err(PatchError::BadRequest(format!("error decoding patch: json: cannot unmarshal {} into Go {wanted}", go_name(found))))
    };
    let Some(operations) = patch.as_array() else {
        return if patch.is_null() { Ok(Vec::new()) } else { wrong(patch, "value of type []handlers.jsonPatchOp") };
    };
    let mut complaints = Vec::new();
    for (i, operation) in operations.iter().enumerate() {
        let Some(fields) = operation.as_object() else {
            if operation.is_null() {
                continue;
            }
            return wrong(operation, "value of type handlers.jsonPatchOp");
        };
        for (key, value) in fields.iter() {
            match key {
                "value" => {}
                "op" | "path" | "from" if value.is_null() || value.as_str().is_some() => {}
                "op" | "path" | "from" => return wrong(value, &format!("struct field jsonPatchOp.{key} of type string")),
                _ => complaints.push(format!("json patch unknown field \"[{i}].{key}\"")),
            }
        }
    }
    Ok(complaints)
}

/// Applies `patch`, a list of operations. On an error `target` may be half changed: work on a copy.
pub fn json_patch(target: &mut Tree, patch: &Tree) -> Result<(), PatchError> {
    let wrong = |found: &Tree, wanted: &str| {
        PatchError::BadRequest(format!("json: cannot unmarshal {} into Go value of type jsonpatch.{wanted}", go_name(found)))
    };
    let operations = match patch {
        Tree::Null => &[][..],
        other => other.as_array().ok_or_else(|| wrong(other, "Patch"))?,
    };
    if let Some(other) = operations.iter().find(|operation| operation.as_object().is_none() && !operation.is_null()) {
        return Err(wrong(other, "Operation"));
    }
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let mut copied_bytes = 0;
    let mut depth = Depth::of(target);
    for operation in operations {
        apply(target, operation, &mut copied_bytes).and_then(|()| depth.after(operation, target)).map_err(PatchError::Unprocessable)?;
    }
    Ok(())
}

/// The text of a field; for what is no text the words that the operations differ in are the caller's.
fn pointer<'o>(operation: &'o Tree, field: &str) -> Result<&'o str, String> {
    match operation.get(field) {
        Some(Tree::String(path)) => Ok(path),
        None | Some(Tree::Null) if field == "from" => Err("operation, missing from field: missing value".to_owned()),
        None | Some(Tree::Null) => Err("operation missing path field: missing value".to_owned()),
        Some(other) => Err(format!("json: cannot unmarshal {} into Go value of type string", go_name(other))),
    }
}

fn apply(target: &mut Tree, operation: &Tree, copied_bytes: &mut usize) -> Result<(), String> {
    let kind = operation.get("op").and_then(Tree::as_str).unwrap_or("unknown");
    let decoded = |field: &str| pointer(operation, field).map_err(|why| format!("{kind} operation failed to decode {field}: {why}"));
    // These do not say what is wrong with a path.
    let decoded_or_missing = || pointer(operation, "path").map_err(|_| format!("{kind} operation failed to decode path: missing value"));
    let value = || operation.get("value").cloned().unwrap_or_default();
    match kind {
        "add" => {
            let path = decoded_or_missing()?;
            let missing = || format!("add operation does not apply: doc is missing path: \"{path}\": missing value");
            let (container, key) = find(target, path).ok_or_else(missing)?;
            add(container, &key, value()).map_err(|e| format!("error in add for path: '{path}': {e}"))
        }
        "remove" => {
            let path = decoded_or_missing()?;
            let missing = || format!("remove operation does not apply: doc is missing path: \"{path}\": missing value");
            let (container, key) = find(target, path).ok_or_else(missing)?;
            remove(container, &key).map(drop).map_err(|e| format!("error in remove for path: '{path}': {e}"))
        }
        "replace" => {
            let path = decoded("path")?;
            if path.is_empty() {
                let value = value();
                if !matches!(value, Tree::Object(_) | Tree::Array(_)) {
                    return Err("replace operation value must be object or array: %!w(<nil>)".to_owned());
                }
                *target = value;
                return Ok(());
            }
            let missing = || format!("replace operation does not apply: doc is missing path: {path}: missing value");
            let (container, key) = find(target, path).ok_or_else(missing)?;
            match container {
                // The library asks arrays alone whether there is anything to replace.
                Tree::Object(object) => drop(object.insert(key, value())),
                _ => {
                    let missing = |_| format!("replace operation does not apply: doc is missing key: {path}: missing value");
                    *get_mut(container, &key).map_err(missing)? = value();
                }
            }
            Ok(())
        }
        "move" => {
            let from = decoded("from")?;
            let missing = || format!("move operation does not apply: doc is missing from path: {from}: missing value");
            let (container, key) = find(target, from).ok_or_else(missing)?;
            let moved = remove(container, &key).map_err(|e| format!("error in move for path: '{key}': {e}"))?;
            let path = decoded("path")?;
            let missing = || format!("move operation does not apply: doc is missing destination path: {path}: missing value");
            let (container, key) = find(target, path).ok_or_else(missing)?;
            add(container, &key, moved).map_err(|e| format!("error in move for path: '{path}': {e}"))
        }
        "copy" => {
            let from = decoded("from")?;
            let missing = || format!("copy operation does not apply: doc is missing from path: {from}: missing value");
            let (container, key) = find(target, from).ok_or_else(missing)?;
            // What an object does not have is copied as null.
            let copied = match container {
                Tree::Object(object) => object.get(&key).cloned().unwrap_or_default(),
                _ => get_mut(container, &key).map_err(|e| format!("error in copy for from: '{from}': {e}"))?.clone(),
            };
            let path = decoded_or_missing()?;
            let missing = || format!("copy operation does not apply: doc is missing destination path: {path}: missing value");
            let (container, key) = find(target, path).ok_or_else(missing)?;
            *copied_bytes += copied.to_json().len();
            if *copied_bytes > COPIED_BYTES_MAX {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the limit {COPIED_BYTES_MAX}"
                ));
            }
            add(container, &key, copied).map_err(|e| format!("error while adding value during copy: {e}"))
        }
        "test" => {
            let path = decoded("path")?;
            let failed = || format!("testing value {path} failed: test failed");
            if path.is_empty() {
                return if *target == value() { Ok(()) } else { Err(failed()) };
            }
            let missing = || format!("test operation does not apply: is missing path: {path}: missing value");
            let (container, key) = find(target, path).ok_or_else(missing)?;
            let found = match container {
                Tree::Object(object) => object.get(&key).unwrap_or(&Tree::Null),
                _ => get_mut(container, &key).map_err(|e| format!("error in test for path: '{path}': {e}"))?,
            };
            if *found == value() { Ok(()) } else { Err(failed()) }
        }
        _ => Err(format!("Unexpected kind: {kind}")),
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// The container that the last token of `path` points into.
fn find<'t>(target: &'t mut Tree, path: &str) -> Option<(&'t mut Tree, String)> {
    let (way, last) = path.rsplit_once('/')?;
    let mut at = target;
    for token in way.split('/').skip(1) {
        at = get_mut(at, &unescape(token)).ok()?;
    }
    matches!(at, Tree::Object(_) | Tree::Array(_)).then(|| (at, unescape(last)))
}

/// Negative indices count from the end, as the library has it by default.
fn position(key: &str, len: usize) -> Result<usize, String> {
    let index: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing \"{key}\": invalid syntax"))?;
    let at = if index < 0 { index + len as i64 } else { index };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < len)
        .ok_or_else(|| format!("Unable to access invalid index: {index}: invalid index referenced"))
}

fn get_mut<'t>(container: &'t mut Tree, key: &str) -> Result<&'t mut Tree, String> {
    match container {
        Tree::Object(object) => object.get_mut(key).ok_or_else(|| format!("unable to get nonexistent key: {key}: missing value")),
        Tree::Array(items) => {
            let at = position(key, items.len())?;
            Ok(&mut items[at])
        }
        _ => Err("missing value".to_owned()),
    }
}

fn add(container: &mut Tree, key: &str, value: Tree) -> Result<(), String> {
    match container {
        Tree::Object(object) => {
            object.insert(key, value);
        }
        Tree::Array(items) if key == "-" => items.push(value),
        Tree::Array(items) => {
            let index: i64 = key
                .parse()
                .map_err(|_| format!("value was not a proper array index: '{key}': strconv.Atoi: parsing \"{key}\": invalid syntax"))?;
            // One more than the length is allowed: that is the place after the last element.
            let len_after = items.len() as i64 + 1;
            let at = if index < 0 { index + len_after } else { index };
            match usize::try_from(at) {
                Ok(at) if at <= items.len() => items.insert(at, value),
                _ => return Err(format!("Unable to access invalid index: {index}: invalid index referenced")),
            }
        }
        _ => return Err("missing value".to_owned()),
    }
    Ok(())
}

fn remove(container: &mut Tree, key: &str) -> Result<Tree, String> {
    match container {
        Tree::Object(object) => object.remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value")),
        Tree::Array(items) => position(key, items.len()).map(|at| items.remove(at)),
        _ => Err("missing value".to_owned()),
    }
}
