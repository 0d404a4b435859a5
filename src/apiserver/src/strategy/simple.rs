//! Kinds whose strategy is a few lines.
use api::meta;
use api::tree::Tree;
use api::validation::warnings::{address, range};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Secrets: `stringData` is written into `data` and never kept. Models pkg/apis/core/v1/conversion.go Convert_v1_Secret_To_core_Secret.
pub fn merge_string_data(object: &mut Tree) {
    let Some(Tree::Object(strings)) = object.remove(&["stringData"]) else { return };
    for (key, value) in strings.iter() {
        object.set(&["data", key], STANDARD.encode(value.as_str().unwrap_or("")));
    }
}

/// ServiceAccounts refer to secrets of their namespace by name. Models pkg/registry/core/serviceaccount/strategy.go cleanSecretReferences.
pub fn keep_names_of_secrets(account: &mut Tree) {
    for secret in account.at_mut(&["secrets"]).and_then(Tree::as_array_mut).into_iter().flatten() {
        secret.make_object().retain(|key, _| key == "name");
    }
}

/// Models pkg/api/service/warnings.go.
pub fn service_warnings(object: &Tree) -> Vec<String> {
    let text = |key: &str| object.str_at(&["spec", key]);
    let has_external = !object.array_at(&["spec", "externalIPs"]).is_empty();
    let (is_headless, is_name) = (text("clusterIP") == "None" && text("type") == "ClusterIP", text("type") == "ExternalName");
    let mut out = Vec::new();
    if api::meta::annotations(object).contains_key("service.kubernetes.io/topology-aware-hints") {
        let new = "service.kubernetes.io/topology-mode";
        out.push(format!("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use {new} instead"));
    }
    let strings = |key: &'static str| object.array_at(&["spec", key]).iter().filter_map(Tree::as_str).enumerate();
    let given = if matches!(text("clusterIP"), "" | "None") { Vec::new() } else { strings("clusterIPs").map(|one| ("clusterIPs", one)).collect() };
    let addresses = given.into_iter().chain(strings("externalIPs").map(|one| ("externalIPs", one)));
    out.extend(addresses.filter_map(|(key, (i, value))| address(&format!("spec.{key}[{i}]"), value)));
    out.extend(address("spec.loadBalancerIP", text("loadBalancerIP")));
    out.extend(strings("loadBalancerSourceRanges").flat_map(|(i, value)| range(&format!("spec.loadBalancerSourceRanges[{i}]"), value)));
    let mut warn = |holds: bool, warning: &str| {
        if holds {
            out.push(warning.to_owned());
        }
    };
    warn(is_headless && !text("loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services");
    warn(is_headless && has_external, "spec.externalIPs is ignored for headless services");
    warn(is_headless && text("sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services");
    warn(has_external && !is_headless && !is_name, "spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    warn(is_name && has_external, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    warn(!is_name && !text("externalName").is_empty(), "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    let close = text("trafficDistribution") == "PreferClose";
    warn(close, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    out
}

/// Models pkg/registry/networking/ingress/strategy.go.
pub fn ingress_warnings(object: &Tree) -> Vec<String> {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let is_old = object.at(&["metadata", "annotations", CLASS]).is_some() && object.at(&["spec", "ingressClassName"]).is_none_or(Tree::is_null);
    is_old.then(|| format!("annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead")).into_iter().collect()
}

/// Of a ResourceSlice. Models pkg/registry/resource/resourceslice/strategy.go.
pub fn driver_warnings(object: &Tree) -> Vec<String> {
    let driver = object.str_at(&["spec", "driver"]);
    let quoted = api::field_error::quote(driver);
    let warning = format!("spec.driver: driver names should be lowercase; {quoted} contains uppercase characters");
    (driver != driver.to_lowercase()).then_some(warning).into_iter().collect()
}

/// Of what makes pods from `spec.template`.
pub fn template_warnings(object: &Tree, is_new: bool) -> Vec<String> {
    let Some(template) = object.at(&["spec", "template"]) else { return Vec::new() };
    let warnings = api::validation::pod_warnings(template, "spec.template");
    match meta::kind(object) {
        "Deployment" | "ReplicaSet" | "ReplicationController" if is_new => with_name_warning("Pod names and hostnames", object, warnings),
        _ => warnings,
    }
}

/// Names that are no labels of DNS make surprising host names.
pub fn with_name_warning(used_in: &str, object: &Tree, more: Vec<String>) -> Vec<String> {
    let wrong = api::names::dns1123_label(meta::name(object)).join(" ");
    let warning = format!("metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{wrong}]");
    (!wrong.is_empty()).then_some(warning).into_iter().chain(more).collect()
}
