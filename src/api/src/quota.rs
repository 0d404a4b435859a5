//! What an object uses of a ResourceQuota, and whether a quota is about it.
//!
//! Models k8s.io/apiserver/pkg/quota/v1 and pkg/quota/v1/evaluator/core, v1.37. Left out: resource claims of dynamic allocation
//! beyond their number. The API server charges by it, and the quota controller counts by it.
mod claim;
mod pod;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::quantity::{Format, Quantity};
use crate::tree::Tree;

pub type Amounts = BTreeMap<String, Quantity>;

/// What can be measured about a kind.
enum Measure {
    Pod,
    Service,
    Claim,
    Count,
}

fn measure(group: &str, plural: &str) -> Measure {
    match (group, plural) {
        ("", "pods") => Measure::Pod,
        ("", "services") => Measure::Service,
        ("", "persistentvolumeclaims") => Measure::Claim,
        _ => Measure::Count,
    }
}

/// Kinds that no quota counts: what is not stored, and events.
pub fn is_ignored(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        ("", "bindings" | "componentstatuses") | ("" | "events.k8s.io", "events") | ("authentication.k8s.io" | "authorization.k8s.io", _)
    )
}

fn one() -> Quantity {
    Quantity::from_whole(1, Format::DecimalSi)
}

fn count_name(group: &str, plural: &str) -> String {
    match group {
        "" => format!("count/{plural}"),
        _ => format!("count/{plural}.{group}"),
    }
}

/// Names from before `count/...`.
fn is_old_count_name(group: &str, plural: &str, name: &str) -> bool {
    group.is_empty() && plural == name && matches!(plural, "configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets")
}

/// Whether a quota of this name is about objects of this kind.
pub fn measures(group: &str, plural: &str, name: &str) -> bool {
    let special = match measure(group, plural) {
        Measure::Pod => pod::measures(name),
        Measure::Service => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        Measure::Claim => claim::measures(name),
        Measure::Count => is_old_count_name(group, plural, name),
    };
    special || name == count_name(group, plural)
}

/// What the object uses now.
pub fn usage(group: &str, plural: &str, object: &Tree, now: Timestamp) -> Amounts {
    let mut usage = match measure(group, plural) {
        Measure::Pod => pod::usage(object, now),
        Measure::Service => service(object),
        Measure::Claim => claim::usage(object),
        Measure::Count => Amounts::new(),
    };
    usage.insert(count_name(group, plural), one());
    if is_old_count_name(group, plural, plural) {
        usage.insert(plural.to_owned(), one());
    }
    usage
}

fn service(service: &Tree) -> Amounts {
    let ports = service.array_at(&["spec", "ports"]);
    let with_node_port = ports.iter().filter(|p| p.get("nodePort").and_then(Tree::as_i64).unwrap_or(0) != 0).count();
    let allocates = service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Tree::as_bool).unwrap_or(true);
    let (node_ports, balancers) = match service.str_at(&["spec", "type"]) {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if allocates => (ports.len(), 1),
        "LoadBalancer" => (with_node_port, 1),
        _ => (0, 0),
    };
    let whole = |n: usize| Quantity::from_whole(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi);
    [("services", 1), ("services.nodeports", node_ports), ("services.loadbalancers", balancers)]
        .map(|(name, n)| (name.to_owned(), whole(n)))
        .into()
}

/// Whether the object is in all scopes of the quota.
pub fn is_in_scope(group: &str, plural: &str, quota: &Tree, object: &Tree) -> bool {
    let matches = |scope: &str, operator: &str, values: &[Tree]| match measure(group, plural) {
        Measure::Pod => pod::is_in_scope(object, scope, operator, values),
        Measure::Claim => claim::is_in_scope(object, scope, operator, values),
        Measure::Service | Measure::Count => false,
    };
    let plain = quota.array_at(&["spec", "scopes"]).iter().all(|s| matches(s.as_str().unwrap_or(""), "Exists", &[]));
    let selectors = quota.array_at(&["spec", "scopeSelector", "matchExpressions"]);
    plain && selectors.iter().all(|s| matches(s.str_at(&["scopeName"]), s.str_at(&["operator"]), s.array_at(&["values"])))
}

/// A scope that names values: whether one of `have` meets it.
fn meets(have: &[&str], operator: &str, values: &[Tree]) -> bool {
    let listed = |name: &&str| values.iter().any(|v| v.as_str() == Some(*name));
    match operator {
        "In" => have.iter().any(listed),
        "NotIn" => have.is_empty() || have.iter().any(|name| !listed(name)),
        "Exists" => !have.is_empty(),
        "DoesNotExist" => have.is_empty(),
        _ => false,
    }
}

/// Why the object cannot be measured under quotas of these names.
pub fn lacks(group: &str, plural: &str, names: &[&str], object: &Tree) -> Option<String> {
    match measure(group, plural) {
        Measure::Pod => pod::lacks(object, names),
        _ => None,
    }
}

/// Whether a write may change what is used.
pub fn is_charged(group: &str, plural: &str, subresource: &str, object: &Tree, old: Option<&Tree>) -> bool {
    match (measure(group, plural), subresource, old) {
        (Measure::Pod, "resize", Some(_)) => true,
        (Measure::Pod, "", Some(old)) => pod::is_terminating(old) != pod::is_terminating(object),
        (Measure::Service | Measure::Claim, "", _) => true,
        (_, "", None) => true,
        _ => false,
    }
}

/// A map of quantities, as `status.used` is.
pub fn amounts(tree: Option<&Tree>) -> Amounts {
    let entries = tree.and_then(Tree::as_object).into_iter().flat_map(|object| object.iter());
    entries.filter_map(|(name, amount)| Some((name.to_owned(), crate::quantity::from_tree(amount)?))).collect()
}

pub fn to_tree(amounts: &Amounts) -> Tree {
    Tree::Object(amounts.iter().map(|(name, amount)| (name.as_str(), Tree::from(*amount))).collect())
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        total.entry(name.clone()).and_modify(|sum| *sum += *amount).or_insert(*amount);
    }
}

/// What `new` has more than `old`; nothing where it has less.
pub fn growth(new: &Amounts, old: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &Quantity)| {
        let more = *amount - old.get(name).copied().unwrap_or_default();
        (more.sign() > 0).then(|| (name.clone(), more))
    };
    new.iter().filter_map(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(plural: &str, object: &str, expect: &str) {
        let usage = usage("", plural, &tree(object), Timestamp::UNIX_EPOCH);
        let shown: Vec<_> = usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(shown.join(" "), expect);
    }

    #[test]
    fn services_count_their_ports() {
        let ports = r#""ports":[{"port":1},{"port":2,"nodePort":30000}]"#;
        let none = "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0";
        check("services", &format!(r#"{{"spec":{{"type":"ClusterIP",{ports}}}}}"#), none);
        check(
            "services",
            &format!(r#"{{"spec":{{"type":"NodePort",{ports}}}}}"#),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
        );
        let balancer = format!(r#"{{"spec":{{"type":"LoadBalancer","allocateLoadBalancerNodePorts":false,{ports}}}}}"#);
        check("services", &balancer, "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1");
    }

    #[test]
    fn other_kinds_are_counted_under_one_or_two_names() {
        check("secrets", "{}", "count/secrets=1 secrets=1");
        check("endpoints", "{}", "count/endpoints=1");
        assert!(measures("apps", "replicasets", "count/replicasets.apps") && !measures("apps", "replicasets", "replicasets"));
        assert!(measures("", "configmaps", "configmaps") && !measures("", "configmaps", "secrets"));
    }

    #[test]
    fn only_more_than_before_is_growth() {
        let of = |text: &str| amounts(Some(&tree(text)));
        let more = growth(&of(r#"{"a":"3","b":"1","c":"2"}"#), &of(r#"{"a":"1","b":"4"}"#));
        assert_eq!(more, of(r#"{"a":"2","c":"2"}"#));
    }
}
