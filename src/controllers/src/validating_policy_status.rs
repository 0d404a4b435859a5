//! Tells what the expressions of a ValidatingAdmissionPolicy cannot mean, by the types of the kinds that it names.
//!
//! Models pkg/controller/validatingadmissionpolicystatus/controller.go, v1.37.
//! Reads ValidatingAdmissionPolicy, CustomResourceDefinition. Writes ValidatingAdmissionPolicy/status.
//! Wakes on policies; as upstream, a kind that comes later does not bring about another look.
use std::sync::Arc;

use api::admission::{Warning, type_check, types_to_check};
use api::crd::Definition;
use api::registry::{Registry, ResourceRef, split_api_version};
use api::tree::Tree;
use client::k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use client::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use client::{Client, Controller, Informer, Next, ObjectKey, Patch};
use serde_json::json;

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "validatingadmissionpolicy-status-controller";

struct Context {
    client: Client,
    policies: Informer<ValidatingAdmissionPolicy>,
    definitions: Informer<CustomResourceDefinition>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context { client: cx.client(NAME), policies: cx.informers.get(), definitions: cx.informers.get() });
    let policies = cx.policies.clone();
    Controller::new(NAME, cx).reconciles(&policies).run(|cx, key| async move { reconcile(&cx, &key).await }).await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(policy) = cx.policies.get(key) else { return Ok(Next::Wait) };
    let generation = policy.metadata.generation.unwrap_or(0);
    if generation <= policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0) {
        return Ok(Next::Wait);
    }
    let unusable = |error: serde_json::Error| Failure::Unusable(error.to_string());
    let tree = Tree::from_typed(&*policy).map_err(unusable)?;
    let mut custom: Vec<ResourceRef> = Vec::new();
    for definition in cx.definitions.list() {
        let definition = Tree::from_typed(&*definition).map_err(unusable)?;
        custom.extend(Definition(&definition).resources().into_iter().map(ResourceRef::Custom));
    }
    let status = status(generation, &plan(&tree, &custom));
    let patched = cx.client.patch_status::<ValidatingAdmissionPolicy>(key, &Patch::Merge(status)).await;
    unless_gone(patched).during(|| format!("write what is found of ValidatingAdmissionPolicy {}", key.name))?;
    Ok(Next::Wait)
}

/// What there is to warn of; does nothing.
fn plan(policy: &Tree, custom: &[ResourceRef]) -> Vec<Warning> {
    let served = || Registry::get().served().map(ResourceRef::from).chain(custom.iter().cloned());
    let kinds = types_to_check(policy, || Box::new(served()));
    let kind = policy.at(&["spec", "paramKind"]);
    let params = kind.and_then(|kind| {
        let (group, version) = split_api_version(kind.str_at(&["apiVersion"]));
        served().find(|of| of.group == group && of.version == version && of.kind == kind.str_at(&["kind"]))
    });
    type_check(policy, &kinds, params.as_deref())
}

/// That there is a result says that the policy was looked at, also where there is nothing to warn of.
fn status(generation: i64, warnings: &[Warning]) -> serde_json::Value {
    let listed: Vec<_> = warnings.iter().map(|warning| json!({"fieldRef": warning.field, "warning": warning.text})).collect();
    let listed = if listed.is_empty() { serde_json::Value::Null } else { listed.into() };
    json!({"status": {"observedGeneration": generation, "typeChecking": {"expressionWarnings": listed}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_about_a_custom_kind_is_checked_by_its_schema() {
        let definition = br#"{"metadata":{"name":"crontabs.g.io"},"spec":{"group":"g.io","scope":"Namespaced","names":{"plural":"crontabs","kind":"CronTab"},
            "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
                "spec":{"type":"object","properties":{"replicas":{"type":"integer"}}}}}}}]},
            "status":{"acceptedNames":{"plural":"crontabs","kind":"CronTab"},"conditions":[{"type":"Established","status":"True"}]}}"#;
        let definition = Tree::from_json(definition).unwrap();
        let custom: Vec<ResourceRef> = Definition(&definition).resources().into_iter().map(ResourceRef::Custom).collect();
        let policy = |expression: &str| {
            let json = json!({"spec": {"validations": [{"expression": expression}], "matchConstraints": {"resourceRules": [
                {"apiGroups": ["g.io"], "apiVersions": ["v1"], "resources": ["crontabs"]}]}}});
            Tree::from_typed(&json).unwrap()
        };
        assert_eq!(plan(&policy("object.spec.replicas > 1"), &custom), []);
        let warnings = plan(&policy("object.spec.replicas > '1'"), &custom);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].text.starts_with("g.io/v1, Kind=CronTab: ERROR: <input>:1:22: found no matching overload for '_>_'"));
        assert_eq!(status(2, &[]), json!({"status": {"observedGeneration": 2, "typeChecking": {"expressionWarnings": null}}}));
    }
}
