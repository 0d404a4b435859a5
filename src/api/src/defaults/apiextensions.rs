//! Defaults of CustomResourceDefinitions and APIServices.
//!
//! Models apiextensions-apiserver/pkg/apis/apiextensions/v1/defaults.go and kube-aggregator/pkg/apis/apiregistration/v1/defaults.go.
use super::{absent, child, child_or_new, text, zero};
use crate::tree::{Object, Tree};

pub(super) fn apply(kind: &str, object: &mut Object) {
    let spec = child_or_new(object, "spec");
    match kind {
        "APIService" => {
            if let Some(service) = child(spec, "service") {
                absent(service, "port", 443);
            }
        }
        "CustomResourceDefinition" => {
            let names = child_or_new(spec, "names");
            let name = text(names, "kind").to_owned();
            zero(names, "singular", name.to_lowercase());
            if !name.is_empty() {
                zero(names, "listKind", format!("{name}List"));
            }
            let conversion = spec.entry("conversion", Tree::object).make_object();
            zero(conversion, "strategy", "None");
            let service = child(conversion, "webhook").and_then(|w| child(w, "clientConfig")).and_then(|c| child(c, "service"));
            if let Some(service) = service {
                absent(service, "port", 443);
            }
        }
        _ => {}
    }
}
