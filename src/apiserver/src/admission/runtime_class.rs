//! What a RuntimeClass adds to its pods: overhead, node selector, tolerations.
//!
//! Models plugin/pkg/admission/runtimeclass/admission.go.
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

const NOT_DEFINED: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
const OTHER: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn is_asked(request: &Request) -> bool {
    request.is("", "pods") && request.operation == Operation::Create
}

/// The class of the pod; `None`: it names none.
fn class(cache: &Cache, request: &Request) -> Result<Option<Tree>, Status> {
    let Some(name) = request.object.at(&["spec", "runtimeClassName"]).and_then(Tree::as_str) else { return Ok(None) };
    match cache.get("node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(class.tree())),
        None => Err(request.forbidden(format!("pod rejected: RuntimeClass \"{name}\" not found"))),
    }
}

fn defined(class: &Tree) -> Option<&Tree> {
    class.at(&["overhead", "podFixed"]).filter(|overhead| !overhead.is_null())
}

fn overhead(request: &Request) -> Option<&Tree> {
    request.object.at(&["spec", "overhead"]).filter(|overhead| !overhead.is_null())
}

/// A pod is valid before it may be refused for an overhead that no class gives it.
pub fn validate(cache: &Cache, request: &Request) -> Result<(), Status> {
    if !is_asked(request) {
        return Ok(());
    }
    let class = class(cache, request)?;
    match (class.as_ref().and_then(defined), overhead(request)) {
        (Some(defined), given) if !given.is_some_and(|given| same_amounts(defined, given)) => Err(request.forbidden(OTHER)),
        (None, Some(_)) => Err(request.forbidden(NOT_DEFINED)),
        _ => Ok(()),
    }
}

pub fn admit(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    if !is_asked(request) {
        return Ok(());
    }
    let Some(class) = class(cache, request)? else { return Ok(()) };
    if let Some(defined) = defined(&class) {
        let is_given = |given: &&Tree| given.as_object().is_some_and(|given| !given.is_empty());
        if overhead(request).filter(is_given).is_some_and(|given| !same_amounts(defined, given)) {
            return Err(request.forbidden(OTHER));
        }
        request.object.set(&["spec", "overhead"], defined.clone());
    }
    let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Tree::as_object);
    for (key, value) in selector.into_iter().flat_map(|selector| selector.iter()) {
        let value = value.as_str().unwrap_or("");
        let given = request.object.at(&["spec", "nodeSelector", key]).and_then(Tree::as_str);
        if let Some(given) = given.filter(|given| *given != value) {
            return Err(request.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
            )));
        }
        request.object.set(&["spec", "nodeSelector", key], value);
    }
    let tolerations = class.array_at(&["scheduling", "tolerations"]);
    if !tolerations.is_empty() {
        let mut all = request.object.array_at(&["spec", "tolerations"]).to_vec();
        all.extend(tolerations.iter().filter(|t| !all.contains(t)).cloned().collect::<Vec<_>>());
        request.object.set(&["spec", "tolerations"], Tree::Array(all));
    }
    Ok(())
}

fn same_amounts(a: &Tree, b: &Tree) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    a.len() == b.len()
        && a.iter().all(|(key, amount)| b.get(key).and_then(api::quantity::from_tree) == api::quantity::from_tree(amount))
}
