//! A pod stays five minutes on a node that is lost, if it does not say otherwise.
//!
//! Models plugin/pkg/admission/defaulttolerationseconds/admission.go.
use api::tree::{Object, Tree};

use super::{Operation, Request};

const SECONDS: i64 = 300;

pub fn admit(request: &mut Request) {
    if !request.is("", "pods") || !matches!(request.operation, Operation::Create | Operation::Update) {
        return;
    }
    let tolerates = |taint: &str| {
        request.object.array_at(&["spec", "tolerations"]).iter().any(|toleration| {
            let (key, effect) = (toleration.str_at(&["key"]), toleration.str_at(&["effect"]));
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        })
    };
    let taints = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
    let missing: Vec<&str> = taints.into_iter().filter(|taint| !tolerates(taint)).collect();
    if missing.is_empty() {
        return;
    }
    let spec = request.object.make_object().entry("spec", Tree::object).make_object();
    let tolerations = spec.entry("tolerations", || Tree::Array(Vec::new()));
    if tolerations.is_null() {
        *tolerations = Tree::Array(Vec::new());
    }
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for taint in missing {
        let mut toleration: Object =
            [("key", taint), ("operator", "Exists"), ("effect", "NoExecute")].into_iter().collect();
        toleration.insert("tolerationSeconds", SECONDS);
        tolerations.push(toleration.into());
    }
}
