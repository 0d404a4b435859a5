//! Defaults of webhooks and admission policies.
//!
//! Models pkg/apis/admissionregistration/v1/defaults.go.
use super::{absent, child, child_or_new, each, text};
use crate::tree::{Object, Tree};

pub(super) fn apply(kind: &str, object: &mut Object) {
    match kind {
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            for webhook in each(object, "webhooks") {
                absent(webhook, "failurePolicy", "Fail");
                absent(webhook, "timeoutSeconds", 10);
                if kind == "MutatingWebhookConfiguration" {
                    absent(webhook, "reinvocationPolicy", "Never");
                }
                matching(webhook);
                each(webhook, "rules").for_each(rule);
                if let Some(service) = child(webhook, "clientConfig").and_then(|c| child(c, "service")) {
                    absent(service, "port", 443);
                }
            }
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let spec = child_or_new(object, "spec");
            absent(spec, "failurePolicy", "Fail");
            child(spec, "matchConstraints").into_iter().for_each(match_resources);
            for variable in each(spec, "validations") {
                if text(variable, "reason").is_empty() {
                    variable.remove("reason");
                }
            }
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            child(child_or_new(object, "spec"), "matchResources").into_iter().for_each(match_resources);
        }
        _ => {}
    }
}

fn matching(object: &mut Object) {
    absent(object, "matchPolicy", "Equivalent");
    absent(object, "namespaceSelector", Tree::object());
    absent(object, "objectSelector", Tree::object());
}

fn match_resources(resources: &mut Object) {
    matching(resources);
    for list in ["resourceRules", "excludeResourceRules"] {
        each(resources, list).for_each(rule);
    }
}

fn rule(rule: &mut Object) {
    absent(rule, "scope", "*");
}
