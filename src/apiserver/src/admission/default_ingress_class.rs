//! An Ingress that names no class gets the default one.
//!
//! Models plugin/pkg/admission/network/defaultingressclass/admission.go.
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

pub fn admit(cache: &Cache, request: &mut Request) {
    if !request.is("networking.k8s.io", "ingresses") || request.operation != Operation::Create {
        return;
    }
    let named = request.object.at(&["spec", "ingressClassName"]).is_some_and(|name| !name.is_null());
    if named || api::meta::annotation(&request.object, "kubernetes.io/ingress.class").is_some() {
        return;
    }
    let classes = cache.list("networking.k8s.io", "ingressclasses", None);
    let mut classes: Vec<Tree> = classes.iter().map(|class| class.tree()).collect();
    classes.retain(|class| api::meta::annotation(class, IS_DEFAULT) == Some("true"));
    // The newest; of equal age the first by name.
    classes.sort_by(|a, b| {
        let age = api::meta::creation_timestamp(b).cmp(api::meta::creation_timestamp(a));
        age.then_with(|| api::meta::name(a).cmp(api::meta::name(b)))
    });
    if let Some(class) = classes.first() {
        request.object.set(&["spec", "ingressClassName"], api::meta::name(class));
    }
}
