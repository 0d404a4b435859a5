//! What a ValidatingAdmissionPolicy cannot mean, judged by the schemas of the kinds that it names.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go. Pure: the caller knows which kinds there are.
use cel::{Declared, Environment};

use super::{Age, Compiler, types};
use crate::cel_types;
use crate::registry::{GroupVersionKind, Resource, ResourceRef};
use crate::tree::Tree;

/// As upstream: more kinds than these are not looked at.
const KINDS_PER_RULE_MAX: usize = 10;

/// An entry of `status.typeChecking.expressionWarnings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    pub text: String,
}

/// The kinds that a policy's rules name without wildcard, by group, version and kind. `served`: all there are.
pub fn types_to_check<'r>(policy: &Tree, served: impl Fn() -> Box<dyn Iterator<Item = ResourceRef> + 'r>) -> Vec<ResourceRef> {
    let mut found: Vec<ResourceRef> = Vec::new();
    'rules: for rule in policy.array_at(&["spec", "matchConstraints", "resourceRules"]) {
        let words = |key: &str| -> Vec<&str> {
            let mut words: Vec<&str> = rule.array_at(&[key]).iter().filter_map(Tree::as_str).collect();
            words.sort_unstable();
            words
        };
        let (groups, versions, mut resources) = (words("apiGroups"), words("apiVersions"), words("resources"));
        resources.retain(|resource| !resource.contains(['*', '/']));
        if groups.iter().chain(&versions).any(|word| word.contains('*')) {
            continue;
        }
        let mut count = 0;
        for (group, version, resource) in product(&groups, &versions, &resources) {
            for hit in served().filter(|of| is_named(of, group, version, resource)) {
                if !found.iter().any(|known| known.gvk() == hit.gvk()) {
                    found.push(hit);
                }
                count += 1;
                if count == KINDS_PER_RULE_MAX {
                    break 'rules;
                }
            }
        }
    }
    found.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    found
}

fn product<'a>(groups: &'a [&'a str], versions: &'a [&'a str], resources: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    groups.iter().flat_map(move |group| versions.iter().flat_map(move |version| resources.iter().map(move |resource| (*group, *version, *resource))))
}

/// As a RESTMapper finds kinds: a group that is not named is any.
fn is_named(of: &Resource, group: &str, version: &str, resource: &str) -> bool {
    (group.is_empty() || of.group == group) && of.version == version && (of.plural == resource || of.singular == resource)
}

/// What the expressions of a policy cannot mean. `params`: the resource of `spec.paramKind`, where it is known.
pub fn type_check(policy: &Tree, kinds: &[ResourceRef], params: Option<&Resource>) -> Vec<Warning> {
    // Told apart by numbers: params may be of the same kind.
    let declared = |of: &Resource, number: u8| cel_types::of_resource(of, &format!("{}{number}", of.kind));
    let kinds: Vec<(GroupVersionKind, Declared)> = kinds.iter().filter_map(|of| Some((of.gvk(), declared(of, 0)?))).collect();
    let has_params = policy.at(&["spec", "paramKind"]).is_some_and(|kind| !kind.is_null());
    let params = has_params.then(|| params.and_then(|of| declared(of, 1)).unwrap_or(Declared::any()));
    let checks: Vec<Check> = kinds.iter().map(|(kind, of)| Check::new(policy, kind, of, params.as_ref())).collect();
    let mut warnings = Vec::new();
    for (i, validation) in policy.array_at(&["spec", "validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.str_at(&[field]);
            if field == "messageExpression" && text.is_empty() {
                continue;
            }
            let problems: Vec<String> = checks.iter().filter_map(|check| check.problem(text)).collect();
            if !problems.is_empty() {
                warnings.push(Warning { field: format!("spec.validations[{i}].{field}"), text: problems.join("\n") });
            }
        }
    }
    warnings
}

/// Checks expressions against one kind.
struct Check {
    kind: GroupVersionKind,
    environment: Environment,
    variables: Compiler,
}

impl Check {
    fn new(policy: &Tree, kind: &GroupVersionKind, object: &Declared, params: Option<&Declared>) -> Self {
        let mut environment = Environment::base(Age::Stored.version())
            .with_variable("object", object.clone())
            .with_variable("oldObject", object.clone())
            .with_variable("namespaceObject", types::namespace().clone())
            .with_variable("request", types::request().clone())
            .with_variable("authorizer", Declared::authorizer());
        if let Some(params) = params {
            environment = environment.with_variable("params", params.clone());
        }
        let mut variables = Compiler::composing();
        for variable in policy.array_at(&["spec", "variables"]) {
            let text = variable.str_at(&["expression"]);
            let compiled = variables.with_variables(environment.clone(), text).compile(text);
            variables.declare(variable.str_at(&["name"]), compiled.as_ref().ok().map(cel::Program::output_type));
        }
        Self { kind: kind.clone(), environment, variables }
    }

    fn problem(&self, text: &str) -> Option<String> {
        let issues = self.variables.with_variables(self.environment.clone(), text).compile(text).err()?;
        let GroupVersionKind { group, version, kind } = &self.kind;
        Some(format!("{group}/{version}, Kind={kind}: {issues}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn served() -> Box<dyn Iterator<Item = ResourceRef>> {
        Box::new(Registry::get().served().map(ResourceRef::from))
    }

    fn policy(rules: &str, validations: &str) -> Tree {
        let json = format!(r#"{{"spec":{{"matchConstraints":{{"resourceRules":[{rules}]}},"validations":[{validations}]}}}}"#);
        Tree::from_json(json.as_bytes()).unwrap()
    }

    const DEPLOYMENTS: &str = r#"{"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments","deployments/scale"]}"#;

    #[test]
    fn kinds_are_those_named_without_wildcard() {
        let names = |rules: &str| {
            let found = types_to_check(&policy(rules, ""), served);
            found.iter().map(|of| format!("{} {}", of.api_version(), of.kind)).collect::<Vec<_>>()
        };
        assert_eq!(names(DEPLOYMENTS), ["apps/v1 Deployment"]);
        assert_eq!(names(r#"{"apiGroups":["apps"],"apiVersions":["*"],"resources":["deployments"]}"#), [""; 0]);
        let two = r#"{"apiGroups":[""],"apiVersions":["v1"],"resources":["secrets","pods"]},{"apiGroups":["batch"],"apiVersions":["v1"],"resources":["jobs","*"]}"#;
        assert_eq!(names(two), ["v1 Pod", "v1 Secret", "batch/v1 Job"]);
    }

    #[test]
    fn what_the_types_forbid_is_told() {
        let policy = policy(DEPLOYMENTS, r#"{"expression":"object.spec.replicas > '1'","messageExpression":"'r: ' + object.spec.replicas"},{"expression":"object.spec.replicas > 1"}"#);
        let warnings = type_check(&policy, &types_to_check(&policy, served), None);
        let fields: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
        let start = "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object";
        assert!(warnings[0].text.starts_with(start) && warnings[0].text.ends_with("^\n"), "{}", warnings[0].text);
        assert!(warnings[1].text.contains("found no matching overload for '_+_' applied to '(string, int)'"));
    }
}
