//! Defaults of NetworkPolicies, IngressClasses and EndpointSlices.
//!
//! Models pkg/apis/networking/v1/defaults.go and pkg/apis/discovery/v1/defaults.go.
use super::{absent, child, child_or_new, each, is_zero, strings};
use crate::tree::Object;

pub(super) fn apply(kind: &str, object: &mut Object) {
    match kind {
        "NetworkPolicy" => {
            let spec = child_or_new(object, "spec");
            if spec.get("policyTypes").is_none_or(is_zero) {
                let has_egress = spec.get("egress").is_some_and(|e| !is_zero(e));
                spec.insert("policyTypes", strings(if has_egress { &["Ingress", "Egress"] } else { &["Ingress"] }));
            }
            for rules in ["ingress", "egress"] {
                for rule in each(spec, rules) {
                    for port in each(rule, "ports") {
                        absent(port, "protocol", "TCP");
                    }
                }
            }
            child_or_new(spec, "podSelector");
        }
        "IngressClass" => {
            if let Some(parameters) = child(object, "spec").and_then(|s| child(s, "parameters")) {
                absent(parameters, "scope", "Cluster");
            }
        }
        "Ingress" => {
            child_or_new(child_or_new(object, "status"), "loadBalancer");
        }
        "EndpointSlice" => {
            for port in each(object, "ports") {
                absent(port, "name", "");
                absent(port, "protocol", "TCP");
            }
        }
        _ => {}
    }
}
