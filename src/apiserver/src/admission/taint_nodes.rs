//! A new node takes no pods until the node controller has seen it Ready.
//!
//! Models plugin/pkg/admission/nodetaint/admission.go.
use api::tree::{Object, Tree};

use super::{Operation, Request};

pub fn admit(request: &mut Request) {
    if !request.is("", "nodes") || request.operation != Operation::Create {
        return;
    }
    let spec = request.object.make_object().entry("spec", Tree::object).make_object();
    let taints = spec.entry("taints", || Tree::Array(Vec::new()));
    if taints.is_null() {
        *taints = Tree::Array(Vec::new());
    }
    let Some(taints) = taints.as_array_mut() else { return };
    let (key, effect) = ("node.kubernetes.io/not-ready", "NoSchedule");
    if !taints.iter().any(|taint| taint.str_at(&["key"]) == key && taint.str_at(&["effect"]) == effect) {
        taints.push([("key", key), ("effect", effect)].into_iter().collect::<Object>().into());
    }
}
