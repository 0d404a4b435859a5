//! Kinds whose strategy is a few lines.
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Secrets: `stringData` is written into `data` and never kept. Models pkg/apis/core/v1/conversion.go Convert_v1_Secret_To_core_Secret.
pub fn merge_string_data(object: &mut Tree) {
    let Some(Tree::Object(strings)) = object.remove(&["stringData"]) else { return };
    for (key, value) in strings.iter() {
        object.set(&["data", key], STANDARD.encode(value.as_str().unwrap_or("")));
    }
}

/// Models pkg/api/service/warnings.go, the part about sessions and external IPs.
pub fn service_warnings(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    if object.str_at(&["spec", "clusterIP"]) == "None" && object.str_at(&["spec", "sessionAffinity"]) == "ClientIP" {
        warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
    }
    if !object.str_at(&["spec", "loadBalancerIP"]).is_empty() && object.str_at(&["spec", "type"]) != "LoadBalancer" {
        warnings.push("spec.loadBalancerIP is ignored when Service type is not LoadBalancer".to_owned());
    }
    warnings
}
