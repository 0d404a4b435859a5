//! `podFailurePolicy`, `successPolicy` and `podReplacementPolicy` of a job. Models pkg/apis/batch/validation/validation.go, v1.37.
use super::super::check::*;
use super::indexes;
use crate::field_error::{BadValue, FieldError, Path};
use crate::names;
use crate::tree::Tree;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

pub(super) fn check(errors: &mut Errors, spec: &Tree, path: &Path) {
    if let Some(policy) = set(spec, "podFailurePolicy") {
        pod_failure(errors, spec, policy, &path.child("podFailurePolicy"));
    }
    if let Some(policy) = set(spec, "successPolicy") {
        let path = path.child("successPolicy");
        match text(spec, "completionMode") {
            "Indexed" => success(errors, int(spec, "completions").unwrap_or(0), policy, &path),
            _ => errors.push(FieldError::invalid(path, policy, "requires indexed completion mode")),
        }
    }
    if let Some(replacement) = set(spec, "podReplacementPolicy").and_then(Tree::as_str) {
        let path = path.child("podReplacementPolicy");
        match set(spec, "podFailurePolicy") {
            Some(_) => supported(errors, replacement, &["Failed"], &path),
            None => supported(errors, replacement, &["Failed", "TerminatingOrFailed"], &path),
        }
    }
}

fn valid_values(values: &[&str]) -> String {
    format!("valid values: [{}]", values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" "))
}

fn one_of(errors: &mut Errors, value: &str, values: &[&str], path: &Path) {
    match value {
        "" => errors.push(FieldError::required(path, valid_values(values))),
        value => supported(errors, value, values, path),
    }
}

fn pod_failure(errors: &mut Errors, spec: &Tree, policy: &Tree, path: &Path) {
    let path = path.child("rules");
    let rules = list(policy, "rules");
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, rules.len(), RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let action = text(rule, "action");
        if action == "FailIndex" {
            if set(spec, "backoffLimitPerIndex").is_none() {
                errors.push(FieldError::invalid(path.child("action"), action, "requires the backoffLimitPerIndex to be set"));
            }
        } else {
            one_of(errors, action, &ACTIONS, &path.child("action"));
        }
        let (codes, conditions) = (set(rule, "onExitCodes"), list(rule, "onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(errors, spec, codes, &path.child("onExitCodes"));
        }
        pod_conditions(errors, conditions, &path.child("onPodConditions"));
        let wrong = match (codes.is_some(), conditions.is_empty()) {
            (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(FieldError::invalid(path, BadValue::Omitted, wrong));
    }
}

fn pod_conditions(errors: &mut Errors, patterns: &[Tree], path: &Path) {
    if patterns.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, patterns.len(), RULES_MAX));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let path = path.index(i);
        let kind = text(pattern, "type");
        invalid(errors, &path.child("type"), kind, names::qualified_name(kind));
        one_of(errors, text(pattern, "status"), &["False", "True", "Unknown"], &path.child("status"));
    }
}

fn exit_codes(errors: &mut Errors, spec: &Tree, wanted: &Tree, path: &Path) {
    let operator = text(wanted, "operator");
    one_of(errors, operator, &["In", "NotIn"], &path.child("operator"));
    let pod = at(at(spec, "template"), "spec");
    let mut containers = list(pod, "containers").iter().chain(list(pod, "initContainers"));
    if let Some(name) = set(wanted, "containerName").and_then(Tree::as_str)
        && !containers.any(|c| text(c, "name") == name)
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(path.child("containerName"), name, detail));
    }
    let path = path.child("values");
    let values: Vec<i64> = list(wanted, "values").iter().filter_map(Tree::as_i64).collect();
    match values.len() {
        0 => errors.push(FieldError::invalid(path, at(wanted, "values"), "at least one value is required")),
        length if length > EXIT_CODES_MAX => errors.push(FieldError::too_many(path, length, EXIT_CODES_MAX)),
        _ => {}
    }
    let again = repeated(&values);
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.push(FieldError::invalid(path.index(i), *value, "must not be 0 for the In operator"));
        }
        if again[i] {
            errors.push(FieldError::duplicate(path.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(path, at(wanted, "values"), "must be ordered"));
    }
}

fn success(errors: &mut Errors, completions: i64, policy: &Tree, path: &Path) {
    let path = path.child("rules");
    let rules = list(policy, "rules");
    match rules.len() {
        0 => errors.push(FieldError::required(path, "at least one rules must be specified when the successPolicy is specified")),
        length if length > RULES_MAX => errors.push(FieldError::too_many(path, length, RULES_MAX)),
        _ => {}
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let (count, named) = (int(rule, "succeededCount"), set(rule, "succeededIndexes").and_then(Tree::as_str));
        if count.is_none() && named.is_none() {
            errors.push(FieldError::required(path, "at least one of succeededCount or succeededIndexes must be specified"));
        }
        let mut total = 0;
        if let Some(named) = named {
            let path = path.child("succeededIndexes");
            if named.len() > INDEXES_BYTES_MAX {
                errors.push(FieldError::too_long(path, INDEXES_BYTES_MAX));
            }
            match indexes::count(named, completions) {
                Ok(count) => total = count,
                Err(why) => errors.push(FieldError::invalid(path, named, format!("error parsing succeededIndexes: {why}"))),
            }
        }
        let Some(count) = count else { continue };
        let path = path.child("succeededCount");
        non_negative(errors, Some(count), &path);
        if count > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(path, count, detail));
        }
        if named.is_some() && count > total {
            let detail = format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)");
            errors.push(FieldError::invalid(path, count, detail));
        }
    }
}
