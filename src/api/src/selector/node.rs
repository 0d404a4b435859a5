//! Which nodes a pod's selector and node terms take.
//!
//! Models component-helpers/scheduling/corev1/nodeaffinity.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let within = |v: &str| values.iter().any(|x| x == v);
    let compare = |ok: fn(i64, i64) -> bool| {
        let limit = values.first().and_then(|v| v.parse::<i64>().ok());
        value.and_then(|v| v.parse::<i64>().ok()).zip(limit).is_some_and(|(v, l)| ok(v, l))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(within),
        "NotIn" => !value.is_some_and(within),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|v, l| v > l),
        "Lt" => compare(|v, l| v < l),
        _ => false,
    }
}

/// All requirements of a term hold; an empty term matches nothing.
pub fn node_term_matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(name);
    expressions.iter().all(|r| requirement_matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, field(&r.key)))
}

/// Whether a node is one of those that a pod's `nodeSelector` and required terms allow.
pub fn node_is_allowed(
    selector: Option<&BTreeMap<String, String>>,
    required: Option<&NodeSelector>,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    selector.into_iter().flatten().all(|(k, v)| labels.get(k) == Some(v))
        && required.is_none_or(|s| s.node_selector_terms.iter().any(|t| node_term_matches(t, name, labels)))
}
