//! APIServices.
//!
//! Models kube-aggregator/pkg/apis/apiregistration/validation/validation.go.
use super::check::*;
use super::meta;
use crate::field_error::FieldError;
use crate::names;
use crate::tree::Tree;

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

pub(super) fn api_service(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    if let Some(old) = old {
        meta::update(errors, new, old);
    }
    let spec = at(new, "spec");
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    meta::create_with(errors, new, false, &|name, _| {
        let wrong = names::path_segment(name);
        let required = format!("{version}.{group}");
        match wrong.is_empty() && name != required {
            true => vec![format!("must be `spec.version+\".\"+spec.group`: \"{required}\"")],
            false => wrong,
        }
    });
    if group.is_empty() && version != "v1" {
        errors.push(FieldError::required("spec.group", "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        errors.extend(names::dns1123_subdomain(group).into_iter().map(|why| FieldError::invalid("spec.group", group, why)));
    }
    errors.extend(names::dns1035_label(version).into_iter().map(|why| FieldError::invalid("spec.version", version, why)));
    for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let priority = int(spec, field).unwrap_or(0);
        if !(1..=max).contains(&priority) {
            errors.push(FieldError::invalid(format!("spec.{field}"), priority, format!("must be positive and less than {max}")));
        }
    }
    match set(spec, "service") {
        None => local(errors, spec),
        Some(service) => remote(errors, spec, service),
    }
}

/// The bytes of the bundle.
fn bundle_length(spec: &Tree) -> usize {
    let encoded = text(spec, "caBundle");
    encoded.trim_end_matches('=').len() * 3 / 4
}

fn local(errors: &mut Errors, spec: &Tree) {
    let length = bundle_length(spec);
    if length > 0 {
        errors.push(FieldError::invalid("spec.caBundle", format!("{length} bytes"), "local APIServices may not have a caBundle"));
    }
    if flag(spec, "insecureSkipTLSVerify") {
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, "local APIServices may not have insecureSkipTLSVerify"));
    }
}

fn remote(errors: &mut Errors, spec: &Tree, service: &Tree) {
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.push(FieldError::required(format!("spec.service.{field}"), ""));
        }
    }
    let port = int(service, "port").unwrap_or(0);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        errors.push(FieldError::invalid("spec.service.port", port, format!("port is not valid: {}", wrong.join(", "))));
    }
    if flag(spec, "insecureSkipTLSVerify") && bundle_length(spec) > 0 {
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, "may not be true if caBundle is present"));
    }
}

pub(super) fn status(errors: &mut Errors, new: &Tree) {
    for (i, condition) in list(at(new, "status"), "conditions").iter().enumerate() {
        let status = text(condition, "status");
        if !STATUSES.contains(&status) {
            errors.push(FieldError::not_supported(format!("status.conditions[{i}].status"), status, &STATUSES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, spec: &str, expected: &[&str]) {
        let object = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        let mut errors = Errors::new();
        api_service(&mut errors, &Tree::from_json(object.as_bytes()).expect("a test's JSON"), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_api_service_is_named_after_its_version_and_group() {
        const GOOD: &str = r#"{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1000}"#;
        check("v1.a.b", GOOD, &[]);
        check("v1.a", GOOD, &["metadata.name: Invalid value: \"v1.a\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\""]);
    }

    #[test]
    fn what_only_makes_sense_with_a_service_needs_one() {
        check(
            "v1.a.b",
            r#"{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1001,"caBundle":"YWJj","insecureSkipTLSVerify":true}"#,
            &[
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
        check(
            "v1.a.b",
            r#"{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1,"service":{"name":"s","port":443}}"#,
            &["spec.service.namespace: Required value"],
        );
    }
}
