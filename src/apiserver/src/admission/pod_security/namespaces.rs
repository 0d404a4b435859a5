//! A namespace's labels: levels must be known ones, and who raises the level hears which pods break it already.
//!
//! Models k8s.io/pod-security-admission/admission ValidateNamespace, EvaluatePodsInNamespace.
use std::collections::HashMap;

use api::field_error::FieldError;
use api::meta;
use api::tree::Tree;

use super::{LABEL, Level, Policy, found, policy};
use crate::admission::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

const PODS_MAX: usize = 3000;

fn enforced(namespace: &Tree) -> Policy {
    policy(|key| meta::label(namespace, key), "enforce")
}

pub fn check(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    let errors = errors(&request.object);
    let refused = |errors: &[FieldError]| Err(Status::invalid("", "Namespace", meta::name(&request.object), errors));
    match (request.operation, request.old.as_deref()) {
        (Operation::Create, _) if !errors.is_empty() => refused(&errors),
        (Operation::Update, Some(old)) => {
            // What was let in stays.
            if !errors.is_empty() && errors != self::errors(old) {
                return refused(&errors);
            }
            let (before, after) = (enforced(old), enforced(&request.object));
            let relaxed = before.version == after.version && after.level <= before.level;
            if after.level != Level::Privileged && !relaxed {
                let namespace = meta::name(&request.object).to_owned();
                let pods = cache.list("", "pods", Some(&namespace));
                let breaches = breaches(after.level, pods.iter().take(PODS_MAX).map(|pod| pod.tree()));
                if pods.len() > PODS_MAX {
                    request.warnings.push(format!(
                        "new PodSecurity enforce level only checked against the first {PODS_MAX} of {} existing pods",
                        pods.len()
                    ));
                }
                if !breaches.is_empty() {
                    request.warnings.push(format!(
                        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{}:{}\"",
                        after.level.name(),
                        after.version
                    ));
                }
                request.warnings.extend(breaches);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(super) fn errors(namespace: &Tree) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let (level, version) = (format!("{LABEL}{mode}"), format!("{LABEL}{mode}-version"));
        let mut invalid = |key: &str, value: &str, why: &str| {
            errors.push(FieldError::invalid(format_args!("metadata.labels[{key}]"), value, why));
        };
        if let Some(value) = meta::label(namespace, &level).filter(|value| Level::parse(value).is_none()) {
            invalid(&level, value, "must be one of privileged, baseline, restricted");
        }
        if let Some(value) = meta::label(namespace, &version).filter(|value| !is_version(value)) {
            invalid(&version, value, "must be \"latest\" or \"v1.x\"");
        }
    }
    errors
}

fn is_version(text: &str) -> bool {
    let is_number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    text == "latest" || text.strip_prefix("v1.").is_some_and(is_number)
}

/// One line for each way in which pods break `level`: the first pod's name, how many others, and the way.
fn breaches(level: Level, pods: impl Iterator<Item = Tree>) -> Vec<String> {
    let mut ways: HashMap<String, (String, usize)> = HashMap::new();
    for pod in pods {
        let reasons: Vec<String> = found(level, &pod).into_iter().map(|violation| violation.reason).collect();
        if reasons.is_empty() {
            continue;
        }
        let name = meta::name(&pod);
        let (first, count) = ways.entry(reasons.join(", ")).or_insert_with(|| (name.to_owned(), 0));
        *count += 1;
        if name < first.as_str() {
            *first = name.to_owned();
        }
    }
    let line = |(way, (name, count)): (String, (String, usize))| match count {
        1 => format!("{name}: {way}"),
        2 => format!("{name} (and 1 other pod): {way}"),
        _ => format!("{name} (and {} other pods): {way}", count - 1),
    };
    let mut lines: Vec<String> = ways.into_iter().map(line).collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn unknown_levels_and_versions_are_named() {
        let namespace = tree(
            r#"{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"bogus","pod-security.kubernetes.io/warn":"baseline",
                "pod-security.kubernetes.io/warn-version":"v1.07"}}}"#,
        );
        let texts: Vec<String> = errors(&namespace).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "bogus": must be one of privileged, baseline, restricted"#,
                r#"metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "v1.07": must be "latest" or "v1.x""#,
            ]
        );
        assert!(["latest", "v1.0", "v1.37"].into_iter().all(is_version));
    }

    #[test]
    fn pods_that_break_the_level_alike_share_a_line() {
        let pod = |name: &str, spec: &str| tree(&format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#));
        let privileged = r#"{"hostNetwork":true,"containers":[]}"#;
        let pods = [pod("b", privileged), pod("a", privileged), pod("c", r#"{"containers":[]}"#), pod("d", r#"{"hostPID":true}"#)];
        assert_eq!(breaches(Level::Baseline, pods.into_iter()), ["a (and 2 other pods): host namespaces"]);
    }
}
