//! Validating- and MutatingAdmissionPolicies, and their bindings.
//!
//! Models pkg/apis/admissionregistration/validation/validation.go.
use super::check::*;
use super::expressions::{self, Stored, compiled};
use super::{conditions, webhooks};
use crate::admission::{Compiler, Returns, Speaks};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::registry::split_api_version;
use crate::tree::Tree;

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const VALUE_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
/// Nothing is left of an object that is deleted.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// Names with this end belong to configurations in files. Models static_suffix.go.
pub(super) fn new_name(errors: &mut Errors, new: &Tree) {
    const STATIC: &str = ".static.k8s.io";
    let name = crate::meta::name(new);
    if name.ends_with(STATIC) {
        let detail =
            format!("names ending with {STATIC:?} are reserved for static manifest-based configurations and cannot be managed via the API");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
}

pub(super) fn policy(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    let old_spec = old.map(|old| at(old, "spec"));
    let path = Path::new("spec");
    supported_or_required(errors, spec, "failurePolicy", &["Fail", "Ignore"], &path);
    let has_params = set(spec, "paramKind").is_some();
    if let Some(kind) = set(spec, "paramKind") {
        param_kind(errors, kind, &path.child("paramKind"));
    }
    let is_mutating = kind == "MutatingAdmissionPolicy";
    let constraints_path = path.child("matchConstraints");
    match set(spec, "matchConstraints") {
        None => errors.push(FieldError::required(constraints_path, "")),
        Some(constraints) => {
            match_resources(errors, constraints, &constraints_path);
            if list(constraints, "resourceRules").is_empty() {
                errors.push(FieldError::required(constraints_path.child("resourceRules"), ""));
            }
            if is_mutating {
                mutating_operations(errors, constraints, &constraints_path);
            }
        }
    }
    // Conditions that mean what they meant are not looked at again.
    let keeps = |key: &str| old_spec.is_some_and(|old| same_at(spec, old, key));
    if !(keeps("paramKind") && keeps("matchConditions")) {
        let stored = expressions_of(old_spec, "matchConditions", "expression");
        expressions::match_conditions(errors, list(spec, "matchConditions"), has_params, &stored, &path.child("matchConditions"));
    }
    let variables = list(spec, "variables");
    let mut compiler = if is_mutating || !variables.is_empty() { Compiler::composing() } else { Compiler::plain() };
    let stored = if is_mutating { Stored::default() } else { expressions_of(old_spec, "validations", "expression") };
    for (i, variable) in variables.iter().enumerate() {
        expressions::variable(errors, &mut compiler, variable, has_params, &stored, &path.child("variables").index(i));
    }
    if is_mutating {
        mutations(errors, &compiler, spec, old_spec, &path);
        supported_or_required(errors, spec, "reinvocationPolicy", &["IfNeeded", "Never"], &path);
    } else {
        validations(errors, &compiler, new, old_spec, &path);
    }
}

fn supported_or_required(errors: &mut Errors, tree: &Tree, key: &str, values: &[&str], path: &Path) {
    match set(tree, key) {
        None => errors.push(FieldError::required(path.child(key), "")),
        Some(value) => supported(errors, value.as_str().unwrap_or(""), values, &path.child(key)),
    }
}

fn expressions_of<'t>(spec: Option<&'t Tree>, key: &str, field: &str) -> Stored<'t> {
    Stored::of(spec.into_iter().flat_map(|spec| list(spec, key)).map(|item| text(item, field)).filter(|text| !text.is_empty()))
}

fn param_kind(errors: &mut Errors, kind: &Tree, path: &Path) {
    let (version_path, version) = (path.child("apiVersion"), text(kind, "apiVersion"));
    let (group, number) = match version {
        "/" => ("", ""),
        version => split_api_version(version),
    };
    if version.is_empty() {
        errors.push(FieldError::required(version_path, ""));
    } else if version != "/" && version.matches('/').count() > 1 {
        errors.push(FieldError::invalid(version_path, version, format!("unexpected GroupVersion string: {version}")));
    } else {
        let texts = if group.is_empty() { Vec::new() } else { names::dns1123_subdomain(group) };
        if !texts.is_empty() {
            errors.push(FieldError::invalid(version_path, group, texts.join(",")));
        }
        if number.is_empty() {
            errors.push(FieldError::invalid(version_path, version, "version must be specified"));
        } else {
            let texts = names::dns1035_label(number);
            if !texts.is_empty() {
                errors.push(FieldError::invalid(version_path, number, texts.join(",")));
            }
        }
    }
    let (kind_path, kind) = (path.child("kind"), text(kind, "kind"));
    if kind.is_empty() {
        errors.push(FieldError::required(kind_path, ""));
        return;
    }
    let texts = names::dns1035_label(&kind.to_lowercase());
    if !texts.is_empty() {
        errors.push(FieldError::invalid(kind_path, kind, format!("may have mixed case, but should otherwise match: {}", texts.join(","))));
    }
}

fn match_resources(errors: &mut Errors, resources: &Tree, path: &Path) {
    supported_or_required(errors, resources, "matchPolicy", &["Equivalent", "Exact"], path);
    for key in ["namespaceSelector", "objectSelector"] {
        match set(resources, key) {
            None => errors.push(FieldError::required(path.child(key), "")),
            Some(selector) => label_selector(errors, selector, &path.child(key)),
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        let rules = path.child(key);
        for (i, rule) in list(resources, key).iter().enumerate() {
            let path = rules.index(i);
            let (names, names_path) = (strings(rule, "resourceNames"), path.child("resourceNames"));
            let again = repeated(&names);
            for (i, name) in names.iter().enumerate() {
                invalid(errors, &names_path.index(i), name, names::path_segment(name));
                if again[i] {
                    errors.push(FieldError::duplicate(names_path.index(i), *name));
                }
            }
            webhooks::operations(errors, rule, &path);
            webhooks::rule(errors, rule, &path);
        }
    }
}

fn mutating_operations(errors: &mut Errors, resources: &Tree, path: &Path) {
    let rules = path.child("resourceRules");
    let path = rules.child("operations");
    for operation in list(resources, "resourceRules").iter().flat_map(|rule| strings(rule, "operations")) {
        supported(errors, operation, &MUTATING_OPERATIONS, &path);
    }
}

fn validations(errors: &mut Errors, compiler: &Compiler, new: &Tree, old: Option<&Tree>, path: &Path) {
    let spec = at(new, "spec");
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    let has_params = set(spec, "paramKind").is_some();
    if validations.is_empty() && annotations.is_empty() {
        for key in ["validations", "auditAnnotations"] {
            errors.push(FieldError::required(path.child(key), "validations or auditAnnotations must contain at least one item"));
        }
        return;
    }
    let stored = expressions_of(old, "validations", "expression");
    let stored_messages = expressions_of(old, "validations", "messageExpression");
    let all = path.child("validations");
    for (i, one) in validations.iter().enumerate() {
        let path = all.index(i);
        let expression = text(one, "expression");
        if expression.trim().is_empty() {
            errors.push(FieldError::required(path.child("expression"), "expression is not specified"));
        } else {
            let speaks = Speaks { params: has_params, authorizer: true, patches: false };
            let result = compiler.compile(expression, speaks, Returns::Bool, stored.age(expression));
            compiled(errors, result, expression, &path.child("expression"));
        }
        let by_expression = text(one, "messageExpression");
        if !by_expression.is_empty() && by_expression.trim().is_empty() {
            errors.push(FieldError::invalid(path.child("messageExpression"), by_expression, "must be non-empty if specified"));
        } else if !by_expression.is_empty() {
            let speaks = Speaks { params: has_params, ..Speaks::default() };
            let result = compiler.compile(by_expression, speaks, Returns::String, stored_messages.age(by_expression));
            compiled(errors, result, by_expression, &path.child("messageExpression"));
        }
        let message = text(one, "message");
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(path.child("message"), message, "must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(FieldError::invalid(path.child("message"), message, "must not contain line breaks"));
        }
        if let Some(reason) = set(one, "reason") {
            supported(errors, reason.as_str().unwrap_or(""), &REASONS, &path.child("reason"));
        }
    }
    let path = path.child("auditAnnotations");
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid(path, at(spec, "auditAnnotations"), detail));
    }
    let stored = expressions_of(old, "auditAnnotations", "valueExpression");
    let again = repeated(annotations.iter().map(|item| text(item, "key")));
    for (i, annotation) in annotations.iter().enumerate() {
        let path = path.index(i);
        audit_annotation(errors, compiler, new, annotation, &stored, &path);
        let key = text(annotation, "key");
        if again[i] {
            errors.push(FieldError::duplicate(path.child("key"), key));
        }
    }
}

fn audit_annotation(errors: &mut Errors, compiler: &Compiler, policy: &Tree, annotation: &Tree, stored: &Stored, path: &Path) {
    let (key, path_of_key) = (text(annotation, "key"), path.child("key"));
    match crate::meta::name(policy) {
        "" => errors.push(FieldError::invalid(path_of_key, key, "requires metadata.name be non-empty")),
        name => label_name(errors, &format!("{name}/{key}"), &path_of_key),
    }
    let (value, path) = (text(annotation, "valueExpression"), path.child("valueExpression"));
    match value.trim() {
        "" => errors.push(FieldError::required(path, "valueExpression is not specified")),
        trimmed if trimmed.len() > VALUE_EXPRESSION_BYTES_MAX => {
            errors.push(FieldError::required(path, format!("must not exceed {VALUE_EXPRESSION_BYTES_MAX} bytes in length")));
        }
        trimmed => {
            let speaks = Speaks { params: set(at(policy, "spec"), "paramKind").is_some(), authorizer: true, patches: false };
            compiled(errors, compiler.compile(trimmed, speaks, Returns::StringOrNull, stored.age(value)), value, &path);
        }
    }
}

fn mutations(errors: &mut Errors, compiler: &Compiler, spec: &Tree, old: Option<&Tree>, path: &Path) {
    let mutations = list(spec, "mutations");
    let all = path.child("mutations");
    if mutations.is_empty() {
        errors.push(FieldError::required(all, "mutations must contain at least one item"));
    }
    let before = || old.into_iter().flat_map(|old| list(old, "mutations"));
    // Upstream looks here for JSON patches, too.
    let stored = Stored::of(before().map(|mutation| text(at(mutation, "applyConfiguration"), "expression")).filter(|text| !text.is_empty()));
    let speaks = Speaks { params: set(spec, "paramKind").is_some(), authorizer: true, patches: true };
    for (i, mutation) in mutations.iter().enumerate() {
        let path = all.index(i);
        let kind = text(mutation, "patchType");
        let (mine, other, returns) = match kind {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Returns::Object),
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Returns::JsonPatches),
            "" => {
                errors.push(FieldError::required(path.child("patchType"), ""));
                continue;
            }
            _ => {
                errors.push(FieldError::not_supported(path.child("patchType"), kind, &["ApplyConfiguration", "JSONPatch"]));
                continue;
            }
        };
        let mine_path = path.child(mine);
        match set(mutation, mine) {
            None => errors.push(FieldError::required(mine_path, format!("must be specified when patchType is {kind}"))),
            Some(patch) => {
                let path = mine_path.child("expression");
                match text(patch, "expression").trim() {
                    "" => errors.push(FieldError::required(path, "")),
                    trimmed => {
                        let age = stored.age(text(patch, "expression"));
                        compiled(errors, compiler.compile(trimmed, speaks, returns, age), trimmed, &path);
                    }
                }
            }
        }
        if set(mutation, other).is_some() {
            let detail = format!("must not be specified when patchType is {kind}");
            errors.push(FieldError::invalid(path.child(other), format!("{{{other}}}"), detail));
        }
    }
}

pub(super) fn binding(errors: &mut Errors, kind: &str, new: &Tree) {
    let spec = at(new, "spec");
    let path = Path::new("spec");
    match text(spec, "policyName") {
        "" => errors.push(FieldError::required(path.child("policyName"), "")),
        name => dns_subdomain(errors, name, &path.child("policyName")),
    }
    if let Some(params) = set(spec, "paramRef") {
        param_ref(errors, params, &path.child("paramRef"));
    }
    let is_mutating = kind == "MutatingAdmissionPolicyBinding";
    if let Some(resources) = set(spec, "matchResources") {
        match_resources(errors, resources, &path.child("matchResources"));
        if is_mutating {
            mutating_operations(errors, resources, &path.child("matchResources"));
        }
    }
    if !is_mutating {
        validation_actions(errors, spec, &path.child("validationActions"));
    }
}

fn param_ref(errors: &mut Errors, params: &Tree, path: &Path) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (text(params, "name"), set(params, "selector"));
    if !name.is_empty() {
        invalid(errors, &path.child("name"), name, names::path_segment(name));
        if selector.is_some() {
            errors.push(FieldError::forbidden(path.child("name"), EXCLUSIVE));
        }
    }
    if let Some(selector) = selector {
        label_selector(errors, selector, &path.child("selector"));
        if !name.is_empty() {
            errors.push(FieldError::forbidden(path.child("selector"), EXCLUSIVE));
        }
    }
    if name.is_empty() && selector.is_none() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    one_of(errors, text(params, "parameterNotFoundAction"), &["Deny", "Allow"], &path.child("parameterNotFoundAction"));
}

fn validation_actions(errors: &mut Errors, spec: &Tree, path: &Path) {
    let actions = strings(spec, "validationActions");
    let again = repeated(&actions);
    for (i, action) in actions.iter().enumerate() {
        supported(errors, action, &ACTIONS, &path.index(i));
        if again[i] {
            errors.push(FieldError::duplicate(path.index(i), *action));
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers \
                      serves no purpose)";
        errors.push(FieldError::invalid(path, at(spec, "validationActions"), detail));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

pub(super) fn status(errors: &mut Errors, new: &Tree) {
    let status = at(new, "status");
    let path = Path::new("status");
    let (checking, warnings) = (path.child("typeChecking"), list(at(status, "typeChecking"), "expressionWarnings"));
    let all = checking.child("expressionWarnings");
    for (i, warning) in warnings.iter().enumerate() {
        require(errors, warning, "warning", &all.index(i));
        if text(warning, "fieldRef").trim().is_empty() {
            errors.push(FieldError::required(all.index(i).child("fieldRef"), ""));
        }
    }
    conditions::check(errors, list(status, "conditions"), &path.child("conditions"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#""failurePolicy":"Fail","matchConstraints":{"matchPolicy":"Equivalent","namespaceSelector":{},"objectSelector":{},
        "resourceRules":[{"operations":["CREATE"],"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments"]}]}"#;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    #[track_caller]
    fn check(kind: &str, spec: &str, expected: &[&str]) {
        let new = tree(&format!(r#"{{"metadata":{{"name":"p"}},"spec":{{{spec}}}}}"#));
        let mut errors = Errors::new();
        match kind.ends_with("Binding") {
            true => binding(&mut errors, kind, &new),
            false => policy(&mut errors, kind, &new, None),
        }
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.len() == expected.len() && texts.iter().zip(expected).all(|(t, e)| t.contains(e)), "{texts:#?}");
    }

    #[test]
    fn a_validating_policy_says_what_where_and_why() {
        let kind = "ValidatingAdmissionPolicy";
        check(kind, &format!(r#"{SPEC},"validations":[{{"expression":"object.spec.replicas > 1"}}]"#), &[]);
        check(
            kind,
            SPEC,
            &[
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value",
            ],
        );
        check(
            kind,
            &format!(r#"{SPEC},"validations":[{{"expression":"object.","message":" ","reason":"Gone"}},{{"expression":"1"}}]"#),
            &[
                "spec.validations[0].expression: Invalid value: \"object.\": compilation failed: ERROR: <input>:1:8: Syntax error",
                "spec.validations[0].message: Invalid value: \" \": must be non-empty if specified",
                r#"spec.validations[0].reason: Unsupported value: "Gone": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge""#,
                r#"spec.validations[1].expression: Invalid value: "1": must evaluate to bool but got int"#,
            ],
        );
        check(
            kind,
            &format!(
                r#"{SPEC},"paramKind":{{"apiVersion":"a/b/c","kind":"K"}},"matchConditions":[{{"name":"x","expression":"params.a == 1"}},{{"name":"x","expression":""}}],
                "variables":[{{"name":"a-b","expression":"1"}},{{"name":"ok","expression":"'a'"}}],
                "auditAnnotations":[{{"key":"k","valueExpression":"variables.ok"}},{{"key":"k","valueExpression":"1"}}]"#
            ),
            &[
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.matchConditions[1].expression: Required value",
                "spec.matchConditions[1].name: Duplicate value: \"x\"",
                "spec.variables[0].name: Invalid value: \"a-b\": must be a valid CEL identifier",
                "spec.auditAnnotations[1].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
                "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
            ],
        );
    }

    #[test]
    fn a_mutating_policy_has_patches_of_one_type() {
        let kind = "MutatingAdmissionPolicy";
        let of = |mutation: &str| format!(r#"{SPEC},"reinvocationPolicy":"Never","mutations":[{mutation}]"#);
        check(kind, &of(r#"{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{spec: Object.spec{replicas: 3}}"}}"#), &[]);
        check(kind, &of(r#"{"patchType":"JSONPatch","jsonPatch":{"expression":"[JSONPatch{op: 'remove', path: '/a'}]"}}"#), &[]);
        check(
            kind,
            &of(r#"{"patchType":"JSONPatch","applyConfiguration":{"expression":"Object{}"}}"#),
            &[
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            ],
        );
        check(
            kind,
            &of(r#"{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"{'a': 1}"}}"#),
            &["must evaluate to Object but got map(string, int)"],
        );
        let deletes = of("").replace("CREATE", "DELETE");
        check(
            kind,
            &deletes,
            &[
                r#"spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE""#,
                "spec.mutations: Required value: mutations must contain at least one item",
            ],
        );
    }

    #[test]
    fn a_binding_names_its_policy_and_what_to_do() {
        let kind = "ValidatingAdmissionPolicyBinding";
        check(kind, r#""policyName":"p","validationActions":["Deny","Audit"]"#, &[]);
        check(
            kind,
            r#""paramRef":{"name":"x","selector":{}},"validationActions":["Deny","Warn","Deny"]"#,
            &[
                "spec.policyName: Required value",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Required value",
                "spec.validationActions[2]: Duplicate value: \"Deny\"",
                "must not contain both Deny and Warn",
            ],
        );
        check("MutatingAdmissionPolicyBinding", r#""policyName":"p""#, &[]);
    }
}
