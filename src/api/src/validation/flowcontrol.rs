//! FlowSchemas and PriorityLevelConfigurations.
//!
//! Models pkg/apis/flowcontrol/validation/validation.go. Left out: that the mandatory objects (`exempt`, `catch-all`) keep their specs, which
//! the server itself sees to when it starts.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const HASH_BITS: u32 = 60;
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree) {
    let (name, spec) = (new.str_at(&["metadata", "name"]), at(new, "spec"));
    match kind {
        "FlowSchema" => flow_schema(errors, name, spec),
        "PriorityLevelConfiguration" => priority_level(errors, name, spec),
        _ => return,
    }
    conditions(errors, new);
}

fn conditions(errors: &mut Errors, object: &Tree) {
    let path = Path::new("status");
    let all = path.child("conditions");
    let conditions = object.array_at(&["status", "conditions"]);
    let again = repeated(conditions.iter().map(|item| text(item, "type")));
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind) = (all.index(i), text(condition, "type"));
        if again[i] {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        require(errors, condition, "type", &path);
    }
}

fn flow_schema(errors: &mut Errors, name: &str, spec: &Tree) {
    let (precedence, path) = (int(spec, "matchingPrecedence").unwrap_or(0), SPEC.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.push(FieldError::invalid(path, precedence, "must be a positive value"));
    }
    if precedence > PRECEDENCE_MAX {
        errors.push(FieldError::invalid(path, precedence, format!("must not be greater than {PRECEDENCE_MAX}")));
    }
    if precedence == 1 && name != "exempt" {
        errors.push(FieldError::invalid(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"));
    }
    let kinds = ["ByNamespace", "ByUser"];
    if let Some(method) = set(spec, "distinguisherMethod").filter(|method| !kinds.contains(&text(method, "type"))) {
        let path = SPEC.child("distinguisherMethod");
        errors.push(FieldError::not_supported(path.child("type"), in_go(method, &[("Type", "type", "\"\"")]), &kinds));
    }
    let level = text(at(spec, "priorityLevelConfiguration"), "name");
    let path = SPEC.child("priorityLevelConfiguration");
    if level.is_empty() {
        errors.push(FieldError::required(path.child("name"), "must reference a priority level"));
    } else {
        dns_subdomain(errors, level, &path.child("name"));
    }
    let rules = SPEC.child("rules");
    for (i, rule_) in list(spec, "rules").iter().enumerate() {
        rule(errors, rule_, &rules.index(i));
    }
}

fn rule(errors: &mut Errors, rule: &Tree, path: &Path) {
    let subjects_path = path.child("subjects");
    let subjects = list(rule, "subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(subjects_path, "subjects must contain at least one value"));
    }
    for (i, subject_) in subjects.iter().enumerate() {
        subject(errors, subject_, &subjects_path.index(i));
    }
    let (resources, others) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        errors.push(FieldError::required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    let rules_path = path.child("resourceRules");
    for (i, one) in resources.iter().enumerate() {
        resource_rule(errors, one, &rules_path.index(i));
    }
    let rules_path = path.child("nonResourceRules");
    for (i, one) in others.iter().enumerate() {
        let path = rules_path.index(i);
        verbs(errors, one, &path);
        urls(errors, one, &path.child("nonResourceURLs"));
    }
}

/// The parts of a subject, with the kinds that they are of.
const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(errors: &mut Errors, subject: &Tree, path: &Path) {
    let kind = text(subject, "kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        errors.push(FieldError::not_supported(path.child("kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    };
    let own_path = path.child(own);
    match set(subject, own) {
        None => errors.push(FieldError::required(own_path, format!("{own} is required when subject kind is '{kind}'"))),
        Some(account) if *own == "serviceAccount" => {
            match text(account, "name") {
                "" => errors.push(FieldError::required(own_path.child("name"), "")),
                "*" => {}
                name => dns_subdomain(errors, name, &own_path.child("name")),
            }
            match text(account, "namespace") {
                "" => errors.push(FieldError::required(own_path.child("namespace"), "must specify namespace for service account")),
                namespace => dns_label(errors, namespace, &own_path.child("namespace")),
            }
        }
        Some(named) => require(errors, named, "name", &own_path),
    }
    for (of, other) in SUBJECTS.iter().filter(|(of, _)| *of != kind) {
        if set(subject, other).is_some() {
            errors.push(FieldError::forbidden(path.child(other), format!("{other} is forbidden when subject kind is not '{of}'")));
        }
    }
}

fn verbs(errors: &mut Errors, rule: &Tree, path: &Path) {
    let (verbs, path) = (strings(rule, "verbs"), path.child("verbs"));
    if verbs.is_empty() {
        errors.push(FieldError::required(path, "verbs must contain at least one value"));
    } else if verbs.contains(&"*") {
        if verbs.len() > 1 {
            errors.push(FieldError::invalid(path, at(rule, "verbs"), "if '*' is present, must not specify other verbs"));
        }
    } else if verbs.iter().any(|verb| !VERBS.contains(verb)) {
        errors.push(FieldError::not_supported(path, at(rule, "verbs"), VERBS));
    }
}

fn resource_rule(errors: &mut Errors, rule: &Tree, path: &Path) {
    verbs(errors, rule, path);
    for (key, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let values = strings(rule, key);
        if values.is_empty() {
            errors.push(FieldError::required(path.child(key), format!("resource rules must supply at least one {one}")));
        } else if values.len() > 1 && values.contains(&"*") {
            let detail = format!("if '*' is present, must not specify other {many}");
            errors.push(FieldError::invalid(path.child(key), at(rule, key), detail));
        }
    }
    let (namespaces, path) = (strings(rule, "namespaces"), path.child("namespaces"));
    if namespaces.is_empty() && !flag(rule, "clusterScope") {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(path, detail));
    } else if namespaces.contains(&"*") {
        if namespaces.len() > 1 {
            let detail = "if '*' is present, must not specify other namespaces";
            errors.push(FieldError::invalid(path, at(rule, "namespaces"), detail));
        }
    } else {
        for (i, namespace) in namespaces.into_iter().enumerate() {
            for text in names::dns1123_label(namespace) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {text}");
                errors.push(FieldError::invalid(path.index(i), namespace, detail));
            }
        }
    }
}

fn urls(errors: &mut Errors, rule: &Tree, path: &Path) {
    let urls = strings(rule, "nonResourceURLs");
    if urls.is_empty() {
        errors.push(FieldError::required(path, "nonResourceURLs must contain at least one value"));
    } else if urls.contains(&"*") {
        if urls.len() > 1 {
            let detail = "if '*' is present, must not specify other non-resource URLs";
            errors.push(FieldError::invalid(path, at(rule, "nonResourceURLs"), detail));
        }
    } else {
        for (i, url) in urls.into_iter().enumerate() {
            if let Some(detail) = url_problem(url) {
                errors.push(FieldError::invalid(path.index(i), url, detail));
            }
        }
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn priority_level(errors: &mut Errors, name: &str, spec: &Tree) {
    let (kind, path) = (text(spec, "type"), SPEC.child("type"));
    if (name == "exempt") != (kind == "Exempt") {
        errors.push(FieldError::invalid(path, kind, "must be 'Exempt' if and only if `name` is 'exempt'"));
    }
    let (limited, exempt) = (set(spec, "limited"), set(spec, "exempt"));
    match kind {
        "Exempt" => {
            if let Some(limited) = limited {
                errors.push(FieldError::forbidden(SPEC.child("limited"), ""));
                response(errors, at(limited, "limitResponse"), &SPEC.child("limited").child("limitResponse"));
            }
            if let Some(exempt) = exempt {
                shares(errors, exempt, &SPEC.child("exempt"));
                lendable(errors, exempt, &SPEC.child("exempt"));
            }
        }
        "Limited" => {
            if exempt.is_some() {
                errors.push(FieldError::forbidden(SPEC.child("exempt"), ""));
            }
            match limited {
                None => errors.push(FieldError::required(SPEC.child("limited"), "")),
                Some(limited) => limits(errors, limited, &SPEC.child("limited")),
            }
        }
        _ => {
            one_of(errors, kind, &["Exempt", "Limited"], &path);
            if let Some(limited) = limited {
                errors.push(FieldError::forbidden(SPEC.child("limited"), ""));
                response(errors, at(limited, "limitResponse"), &SPEC.child("limited").child("limitResponse"));
            }
            if exempt.is_some() {
                errors.push(FieldError::forbidden(SPEC.child("exempt"), ""));
            }
        }
    }
}

fn shares(errors: &mut Errors, limits: &Tree, path: &Path) {
    if let Some(shares) = int(limits, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
        errors.push(FieldError::invalid(path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer"));
    }
}

fn lendable(errors: &mut Errors, limits: &Tree, path: &Path) {
    if let Some(percent) = int(limits, "lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        errors.push(FieldError::invalid(path.child("lendablePercent"), percent, names::inclusive_range(0, 100)));
    }
}

/// What the type itself declares, wherever it stands: its union of a type and what belongs to it.
fn response(errors: &mut Errors, response: &Tree, path: &Path) {
    match (text(response, "type"), set(response, "queuing")) {
        ("Queue", Some(_)) => {}
        ("Queue", None) => errors.push(FieldError::required(path.child("queuing"), "")),
        (kind, queuing) => {
            if kind.is_empty() {
                errors.push(FieldError::required(path.child("type"), ""));
            }
            if queuing.is_some() {
                errors.push(FieldError::forbidden(path.child("queuing"), ""));
            }
        }
    }
}

fn limits(errors: &mut Errors, limited: &Tree, path: &Path) {
    shares(errors, limited, path);
    let response = at(limited, "limitResponse");
    let response_path = path.child("limitResponse");
    match (text(response, "type"), set(response, "queuing")) {
        ("Reject", Some(_)) => errors.push(FieldError::forbidden(response_path.child("queuing"), "")),
        ("Reject", None) => {}
        ("Queue", None) => errors.push(FieldError::required(response_path.child("queuing"), "")),
        ("Queue", Some(queuing_)) => queuing(errors, queuing_, &response_path.child("queuing")),
        (other, queuing) => {
            one_of(errors, other, &["Queue", "Reject"], &response_path.child("type"));
            if queuing.is_some() {
                errors.push(FieldError::forbidden(response_path.child("queuing"), ""));
            }
        }
    }
    lendable(errors, limited, path);
    if let Some(percent) = int(limited, "borrowingLimitPercent").filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("borrowingLimitPercent"), percent, detail));
    }
}

fn queuing(errors: &mut Errors, queuing: &Tree, path: &Path) {
    let count = |key: &str| int(queuing, key).unwrap_or(0);
    let (length, queues, hand) = (count("queueLengthLimit"), count("queues"), count("handSize"));
    if length <= 0 {
        errors.push(FieldError::invalid(path.child("queueLengthLimit"), length, "must be positive"));
    }
    if queues <= 0 {
        errors.push(FieldError::invalid(path.child("queues"), queues, "must be positive"));
    } else if queues > QUEUES_MAX {
        errors.push(FieldError::invalid(path.child("queues"), queues, format!("must not be greater than {QUEUES_MAX}")));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.push(FieldError::invalid(path, hand, "must be positive"));
    } else if hand > queues {
        errors.push(FieldError::invalid(path, hand, format!("should not be greater than queues ({queues})")));
    } else if entropy_bits(queues, hand) > HASH_BITS {
        let detail = format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}");
        errors.push(FieldError::invalid(path, hand, detail));
    }
}

/// The bits of the number of ways to deal a hand. Models apiserver/pkg/util/shufflesharding `RequiredEntropyBits`.
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    let bits: f64 = (0..hand.min(i64::from(HASH_BITS) + 1)).map(|dealt| ((deck - dealt) as f64).log2()).sum();
    bits.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_needs_the_bits_of_all_ways_to_deal_it() {
        assert_eq!((entropy_bits(64, 8), entropy_bits(1, 1), entropy_bits(512, 8)), (48, 0, 72));
    }

    #[test]
    fn a_wildcard_stands_at_the_end_of_a_path_only() {
        assert_eq!(["/", "/a/*", "/a*", "a", "/a//b"].map(|url| url_problem(url).is_none()), [true, true, false, false, false]);
    }
}
