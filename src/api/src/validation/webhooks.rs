//! Mutating- and ValidatingWebhookConfigurations.
//!
//! Models pkg/apis/admissionregistration/validation/validation.go and apiserver/pkg/util/webhook/validation.go.
use super::check::*;
use super::expressions::{self, Stored};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
/// What configurations of old versions may still say; such an object can be updated as long as it says so.
const SIDE_EFFECTS_ONCE: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

/// What was let through before and so is let through again.
struct Leniency<'t> {
    side_effects: bool,
    versions: bool,
    names: bool,
    /// No condition differs from those of the stored object.
    conditions: bool,
    expressions: Stored<'t>,
}

impl<'t> Leniency<'t> {
    /// Models mutatingHasNoSideEffects and the like.
    fn of(new: &Tree, old: Option<&'t Tree>) -> Self {
        let hooks = || old.into_iter().flat_map(|old| list(old, "webhooks"));
        let known = |hook: &Tree| strings(hook, "admissionReviewVersions").iter().any(|v| VERSIONS.contains(v));
        let names: Vec<&str> = hooks().map(|hook| text(hook, "name")).collect();
        Self {
            side_effects: hooks().any(|hook| !SIDE_EFFECTS.contains(&text(hook, "sideEffects"))),
            versions: hooks().any(|hook| !known(hook)),
            names: repeated(&names).contains(&true),
            conditions: old.is_some_and(|old| {
                let (new, old) = (list(new, "webhooks"), list(old, "webhooks"));
                new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same_at(new, old, "matchConditions"))
            }),
            expressions: Stored::of(hooks().flat_map(|hook| list(hook, "matchConditions")).map(|condition| text(condition, "expression"))),
        }
    }
}

pub(super) fn configuration(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let lenient = Leniency::of(new, old);
    let all = Path::new("webhooks");
    let hooks = list(new, "webhooks");
    let again = repeated(hooks.iter().map(|item| text(item, "name")));
    for (i, hook) in hooks.iter().enumerate() {
        let path = all.index(i);
        webhook(errors, hook, &lenient, &path);
        versions(errors, hook, &lenient, &path.child("admissionReviewVersions"));
        let name = text(hook, "name");
        if !lenient.names && !name.is_empty() && again[i] {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
    }
}

fn versions(errors: &mut Errors, hook: &Tree, lenient: &Leniency, path: &Path) {
    let versions = strings(hook, "admissionReviewVersions");
    if versions.is_empty() {
        errors.push(FieldError::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    let again = repeated(&versions);
    for (i, version) in versions.iter().enumerate() {
        let path = path.index(i);
        if again[i] {
            errors.push(FieldError::invalid(path, *version, "duplicate version"));
        } else {
            invalid(errors, &path, version, names::dns1035_label(version));
        }
    }
    if !lenient.versions && !versions.iter().any(|v| VERSIONS.contains(v)) {
        errors.push(FieldError::invalid(path, at(hook, "admissionReviewVersions"), "must include at least one of v1, v1beta1"));
    }
}

fn webhook(errors: &mut Errors, hook: &Tree, lenient: &Leniency, path: &Path) {
    full_name(errors, text(hook, "name"), &path.child("name"));
    let rules = path.child("rules");
    for (i, rule) in list(hook, "rules").iter().enumerate() {
        operations(errors, rule, &rules.index(i));
        self::rule(errors, rule, &rules.index(i));
    }
    for (key, values) in
        [("failurePolicy", ["Fail", "Ignore"]), ("matchPolicy", ["Equivalent", "Exact"]), ("reinvocationPolicy", ["IfNeeded", "Never"])]
    {
        if let Some(value) = set(hook, key) {
            supported(errors, value.as_str().unwrap_or(""), &values, &path.child(key));
        }
    }
    let allowed: &[&str] = if lenient.side_effects { &SIDE_EFFECTS_ONCE } else { &SIDE_EFFECTS };
    match set(hook, "sideEffects") {
        None => errors.push(FieldError::required(path.child("sideEffects"), format!("must specify one of {}", allowed.join(", ")))),
        Some(value) => supported(errors, value.as_str().unwrap_or(""), allowed, &path.child("sideEffects")),
    }
    if let Some(seconds) = int(hook, "timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        errors.push(FieldError::invalid(path.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds"));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        label_selector(errors, at(hook, key), &path.child(key));
    }
    client(errors, at(hook, "clientConfig"), &path.child("clientConfig"));
    if !lenient.conditions {
        let conditions = list(hook, "matchConditions");
        expressions::match_conditions(errors, conditions, false, &lenient.expressions, &path.child("matchConditions"));
    }
}

/// Models apimachinery/pkg/util/validation IsFullyQualifiedName.
fn full_name(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let texts = names::dns1123_subdomain(name);
    if !texts.is_empty() {
        errors.push(FieldError::invalid(path, name, texts.join(",")));
    } else if name.split('.').count() < 3 {
        errors.push(FieldError::invalid(path, name, "should be a domain with at least three segments separated by dots"));
    }
}

pub(super) fn operations(errors: &mut Errors, rule: &Tree, path: &Path) {
    let (operations, path) = (strings(rule, "operations"), path.child("operations"));
    if operations.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if operations.len() > 1 && operations.contains(&"*") {
        errors.push(FieldError::invalid(path, at(rule, "operations"), "if '*' is present, must not specify other operations"));
    }
    for (i, operation) in operations.iter().enumerate() {
        supported(errors, operation, &OPERATIONS, &path.index(i));
    }
}

pub(super) fn rule(errors: &mut Errors, rule: &Tree, path: &Path) {
    for (key, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let (values, path) = (strings(rule, key), path.child(key));
        if values.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        if values.len() > 1 && values.contains(&"*") {
            errors.push(FieldError::invalid(path, at(rule, key), format!("if '*' is present, must not specify other {what}")));
        }
        if key == "apiVersions" {
            for (i, _) in values.iter().enumerate().filter(|(_, v)| v.is_empty()) {
                errors.push(FieldError::required(path.index(i), ""));
            }
        }
    }
    resources(errors, rule, &path.child("resources"));
    if let Some(scope) = set(rule, "scope") {
        supported(errors, scope.as_str().unwrap_or(""), &SCOPES, &path.child("scope"));
    }
}

fn resources(errors: &mut Errors, rule: &Tree, path: &Path) {
    let resources = strings(rule, "resources");
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let mut has_plain = false;
    // With a slash, as those that they are compared with.
    let mut before: Seen<String> = Seen::new();
    for (i, resource) in resources.iter().enumerate() {
        let path = path.index(i);
        if resource.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let Some((name, sub)) = resource.split_once('/') else {
            has_plain = *resource != "*";
            continue;
        };
        if before.contains(&format!("{name}/*")) {
            errors.push(FieldError::invalid(path, *resource, format!("if '{name}/*' is present, must not specify {resource}")));
        }
        if before.contains(&format!("*/{sub}")) {
            errors.push(FieldError::invalid(path, *resource, format!("if '*/{sub}' is present, must not specify {resource}")));
        }
        before.push((*resource).to_owned());
    }
    let all = at(rule, "resources");
    if resources.len() > 1 && resources.contains(&"*/*") {
        errors.push(FieldError::invalid(path, all, "if '*/*' is present, must not specify other resources"));
    }
    if has_plain && resources.contains(&"*") {
        errors.push(FieldError::invalid(path, all, "if '*' is present, must not specify other resources without subresources"));
    }
}

/// Whom to call; of conversion webhooks, too.
pub(crate) fn client(errors: &mut Errors, client: &Tree, path: &Path) {
    match (set(client, "url"), set(client, "service")) {
        (Some(_), None) => url(errors, text(client, "url"), &path.child("url")),
        (None, Some(service)) => self::service(errors, service, &path.child("service")),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

fn url(errors: &mut Errors, url: &str, path: &Path) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.push(FieldError::invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().filter(|_| !scheme.is_empty()).unwrap_or("");
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.push(FieldError::invalid(path, "", format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn service(errors: &mut Errors, service: &Tree, path: &Path) {
    // Upstream's callers give these two in the wrong order.
    for (key, shown) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, key).is_empty() {
            errors.push(FieldError::required(path.child(shown), ""));
        }
    }
    let port = int(service, "port").unwrap_or(443);
    let texts = names::port_number(port);
    if !texts.is_empty() {
        errors.push(FieldError::invalid(path.child("port"), port, format!("port is not valid: {}", texts.join(", "))));
    }
    let (target, path) = (text(service, "path"), path.child("path"));
    if matches!(target, "" | "/") {
        return;
    }
    if target == "//" {
        errors.push(FieldError::invalid(path, target, "segment[0] may not be empty"));
        return;
    }
    if !target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must start with a '/'"));
    }
    // Upstream takes one byte off whatever it is.
    let Some(steps) = target.get(1..) else { return };
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.push(FieldError::invalid(path, target, format!("segment[{i}] may not be empty")));
            continue;
        }
        for why in names::dns1123_subdomain(step) {
            errors.push(FieldError::invalid(path, target, format!("segment[{i}]: {why}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"name":"a.b.c","sideEffects":"None","admissionReviewVersions":["v1"],"clientConfig":{"service":{"name":"s","namespace":"n","path":"/x"}},
        "rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}]}"#;

    #[track_caller]
    fn check(hook: &str, expected: &[&str]) {
        let new = Tree::from_json(format!(r#"{{"webhooks":[{hook}]}}"#).as_bytes()).unwrap();
        let mut errors = Errors::new();
        configuration(&mut errors, &new, None);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.len() == expected.len() && texts.iter().zip(expected).all(|(t, e)| t.contains(e)), "{texts:?}");
    }

    #[test]
    fn a_webhook_says_when_where_and_how() {
        check(GOOD, &[]);
        check(&format!("{GOOD},{GOOD}"), &["webhooks[1].name: Duplicate value: \"a.b.c\""]);
        check(&GOOD.replace("a.b.c", "a.b"), &["should be a domain with at least three segments separated by dots"]);
        check(
            &GOOD.replace("\"None\"", "\"Some\""),
            &[r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#],
        );
        check(&GOOD.replace(r#"["v1"],"cl"#, r#"["v2"],"cl"#), &["must include at least one of v1, v1beta1"]);
        check(&GOOD.replace("CREATE", "READ"), &["webhooks[0].rules[0].operations[0]: Unsupported value: \"READ\""]);
        check(
            &GOOD.replace(r#"["pods"]"#, r#"["*","pods"]"#),
            &["if '*' is present, must not specify other resources without subresources"],
        );
        check(&GOOD.replace(r#"["pods"]"#, r#"["pods/*","pods/status"]"#), &["if 'pods/*' is present, must not specify pods/status"]);
        check(&GOOD.replace("/x", "x"), &[
            "webhooks[0].clientConfig.service.path: Invalid value: \"x\": must start with a '/'",
            "webhooks[0].clientConfig.service.path: Invalid value: \"x\": segment[0] may not be empty",
        ]);
        let conditions = |conditions: &str| GOOD.replace(r#""sideEffects""#, &format!(r#""matchConditions":[{conditions}],"sideEffects""#));
        check(&conditions(r#"{"name":"x","expression":"object.metadata.name == 'x'"}"#), &[]);
        check(
            &conditions(r#"{"name":"a b","expression":"params == 1"}"#),
            &[
                "webhooks[0].matchConditions[0].expression: Invalid value: \"params == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
                "webhooks[0].matchConditions[0].name: Invalid value: \"a b\": name part must consist of",
            ],
        );
        let by_url = |url: &str| GOOD.replace(r#""service":{"name":"s","namespace":"n","path":"/x"}"#, &format!(r#""url":"{url}""#));
        check(&by_url("https://host/path"), &[]);
        check(&by_url("http://host"), &["'https' is the only allowed URL scheme"]);
        check(
            &by_url("https://u@host/?q#f"),
            &["user information is not permitted", "fragments are not permitted", "query parameters are not permitted"],
        );
    }

    #[test]
    fn what_was_let_through_once_may_stay() {
        let object = |hook: &str| Tree::from_json(format!(r#"{{"webhooks":[{hook}]}}"#).as_bytes()).unwrap();
        let old = object(&GOOD.replace("\"None\"", "\"Some\""));
        let mut errors = Errors::new();
        configuration(&mut errors, &old, Some(&old));
        assert!(errors.is_empty(), "{errors:?}");
    }
}
