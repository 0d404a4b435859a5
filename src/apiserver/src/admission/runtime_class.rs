//! What a RuntimeClass adds to its pods: overhead, node selector, tolerations.
//!
//! Models plugin/pkg/admission/runtimeclass/admission.go.
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

pub fn admit(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    if !request.is("", "pods") || request.operation != Operation::Create {
        return Ok(());
    }
    let overhead = request.object.at(&["spec", "overhead"]).filter(|o| !o.is_null()).cloned();
    let name = request.object.str_at(&["spec", "runtimeClassName"]).to_owned();
    if name.is_empty() {
        let set = overhead.is_some_and(|o| o.as_object().is_some_and(|o| !o.is_empty()));
        return if set {
            Err(request.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
        } else {
            Ok(())
        };
    }
    let Some(class) = cache.get("node.k8s.io", "runtimeclasses", "", &name) else {
        return Err(request.forbidden(format!("pod rejected: RuntimeClass \"{name}\" not found")));
    };
    let class = class.tree();
    let defined = class.at(&["overhead", "podFixed"]).filter(|o| !o.is_null());
    match (defined, overhead) {
        (Some(defined), Some(given)) if !same_amounts(defined, &given) => {
            return Err(request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
        (Some(defined), _) => request.object.set(&["spec", "overhead"], defined.clone()),
        (None, Some(given)) if given.as_object().is_some_and(|o| !o.is_empty()) => {
            return Err(request.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"));
        }
        (None, _) => {}
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
