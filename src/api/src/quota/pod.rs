//! Pods. Models pkg/quota/v1/evaluator/core/pods.go and k8s.io/component-helpers/resource/helpers.go, v1.37.
use jiff::{SignedDuration, Timestamp};

use super::{Amounts, add, amounts, meets, one};
use crate::meta;
use crate::tree::Tree;

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

pub(super) fn measures(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    let extended = name.strip_prefix("requests.").is_some_and(is_extended);
    name == "pods" || COMPUTE.contains(&bare) || is_huge_page(name.strip_prefix("requests.").unwrap_or(name)) || extended
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// `example.com/dongle`, and not one of Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let own = |domain: &str| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    name.split_once('/').is_some_and(|(domain, _)| !own(domain)) || name.starts_with("deviceclass.resource.kubernetes.io/")
}

/// A pod that has finished, or should have gone long ago, is counted as an object only.
pub(super) fn usage(pod: &Tree, now: Timestamp) -> Amounts {
    if !is_live(pod, now) {
        return Amounts::new();
    }
    computed(&requests(pod), &limits(pod))
}

fn is_live(pod: &Tree, now: Timestamp) -> bool {
    if matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
        return false;
    }
    let deleted: Option<Timestamp> = meta::deletion_timestamp(pod).and_then(|t| t.parse().ok());
    let (Some(deleted), Some(grace)) = (deleted, meta::deletion_grace_period_seconds(pod)) else { return true };
    deleted.saturating_add(SignedDuration::from_secs(grace)).is_ok_and(|end| end >= now)
}

/// The names under which quotas know these requests and limits.
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut result = Amounts::from([("pods".to_owned(), one())]);
    for (name, amount) in requests {
        if COMPUTE.contains(&name.as_str()) || is_huge_page(name) {
            result.insert(name.clone(), *amount);
            result.insert(format!("requests.{name}"), *amount);
        } else if is_extended(name) {
            result.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        result.insert(format!("limits.{name}"), *amount);
    }
    result
}

fn requests(pod: &Tree) -> Amounts {
    let mut total = of_containers(pod, "requests");
    apply_pod_level(pod, "requests", &mut total);
    add(&mut total, &amounts(pod.at(&["spec", "overhead"])));
    total
}

fn limits(pod: &Tree) -> Amounts {
    let mut total = of_containers(pod, "limits");
    apply_pod_level(pod, "limits", &mut total);
    for (name, amount) in amounts(pod.at(&["spec", "overhead"])) {
        if let Some(limit) = total.get_mut(&name).filter(|l| !l.is_zero()) {
            *limit += amount;
        }
    }
    total
}

fn apply_pod_level(pod: &Tree, field: &str, total: &mut Amounts) {
    let own = amounts(pod.at(&["spec", "resources", field]));
    total.extend(own.into_iter().filter(|(name, _)| is_pod_level(name)));
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

fn has_pod_level(pod: &Tree) -> bool {
    let any = |field| amounts(pod.at(&["spec", "resources", field])).keys().any(|name| is_pod_level(name));
    any("requests") || any("limits")
}

/// Containers and sidecars added up, or the largest init container (with the sidecars before it) where that is more.
fn of_containers(pod: &Tree, field: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in pod.array_at(&["spec", "containers"]) {
        add(&mut total, &of_container(pod, container, field));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in pod.array_at(&["spec", "initContainers"]) {
        let own = of_container(pod, container, field);
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, sidecars.clone());
        } else {
            let mut now = own;
            add(&mut now, &sidecars);
            raise(&mut peak, now);
        }
    }
    raise(&mut total, peak);
    total
}

/// What is asked for, or what the container still has of before a resize where that is more.
fn of_container(pod: &Tree, container: &Tree, field: &str) -> Amounts {
    let mut own = amounts(container.at(&["resources", field]));
    let name = container.str_at(&["name"]);
    let statuses = ["containerStatuses", "initContainerStatuses"].into_iter().flat_map(|list| pod.array_at(&["status", list]));
    if let Some(status) = statuses.into_iter().find(|s| s.str_at(&["name"]) == name) {
        raise(&mut own, amounts(status.at(&["resources", field])));
        if field == "requests" {
            raise(&mut own, amounts(status.get("allocatedResources")));
        }
    }
    own
}

fn raise(total: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        if total.get(&name).is_none_or(|before| *before < amount) {
            total.insert(name, amount);
        }
    }
}

/// Under a quota of cpu or memory each container has to say how much it wants, unless the pod does.
pub(super) fn lacks(pod: &Tree, names: &[&str]) -> Option<String> {
    if has_pod_level(pod) {
        return None;
    }
    let mut texts = Vec::new();
    let mut wanted: Vec<&str> = names.iter().copied().filter(|name| is_required(name)).collect();
    wanted.sort_unstable();
    for name in wanted {
        let containers = pod.array_at(&["spec", "containers"]).iter().chain(pod.array_at(&["spec", "initContainers"]));
        let without = containers.filter(|container| {
            let own = |field| amounts(container.at(&["resources", field]));
            !computed(&own("requests"), &own("limits")).contains_key(name)
        });
        let mut without: Vec<&str> = without.map(|c| c.str_at(&["name"])).collect();
        without.sort_unstable();
        if !without.is_empty() {
            texts.push(format!("{name} for: {}", without.join(",")));
        }
    }
    (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
}

fn is_required(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    matches!(bare, "cpu" | "memory")
}

/// Has a deadline.
pub(super) fn is_terminating(pod: &Tree) -> bool {
    pod.at(&["spec", "activeDeadlineSeconds"]).and_then(Tree::as_i64).is_some_and(|seconds| seconds >= 0)
}

pub(super) fn is_in_scope(pod: &Tree, scope: &str, operator: &str, values: &[Tree]) -> bool {
    let best_effort = || pod.str_at(&["status", "qosClass"]) == "BestEffort";
    match scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = pod.str_at(&["spec", "priorityClassName"]);
            meets(if class.is_empty() { &[] } else { std::slice::from_ref(&class) }, operator, values)
        }
        "CrossNamespacePodAffinity" => looks_across_namespaces(pod),
        _ => false,
    }
}

fn looks_across_namespaces(pod: &Tree) -> bool {
    let across = |term: &Tree| !term.array_at(&["namespaces"]).is_empty() || term.get("namespaceSelector").is_some_and(|s| !s.is_null());
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let terms = |list| pod.array_at(&["spec", "affinity", kind, list]);
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(across)
            || terms("preferredDuringSchedulingIgnoredDuringExecution").iter().any(|w| w.get("podAffinityTerm").is_some_and(across))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(pod: &str, expect: &str) {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let shown: Vec<_> = usage(&tree(pod), now).iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(shown.join(" "), expect);
    }

    #[test]
    fn a_pod_uses_what_its_containers_ask_for_until_it_ends() {
        let container = r#"{"name":"a","resources":{"requests":{"cpu":"100m","example.com/dongle":"2"},"limits":{"memory":"1Gi"}}}"#;
        let init = r#"{"name":"i","resources":{"requests":{"cpu":"300m"}}}"#;
        let spec = format!(r#""spec":{{"containers":[{container},{container}],"initContainers":[{init}]}}"#);
        let all = "cpu=300m limits.memory=2Gi pods=1 requests.cpu=300m requests.example.com/dongle=4";
        check(&format!("{{{spec}}}"), all);
        check(&format!(r#"{{{spec},"status":{{"phase":"Succeeded"}}}}"#), "");
        let deleted = |at: &str| format!(r#"{{{spec},"metadata":{{"deletionTimestamp":"{at}","deletionGracePeriodSeconds":30}}}}"#);
        check(&deleted("2026-01-01T00:00:40Z"), all);
        check(&deleted("2026-01-01T00:00:20Z"), "");
    }

    #[test]
    fn requests_of_the_pod_replace_those_of_its_containers() {
        let pod = r#"{"spec":{"overhead":{"cpu":"1"},"resources":{"requests":{"cpu":"2"}},
            "containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}}]}}"#;
        check(pod, "cpu=3 pods=1 requests.cpu=3");
    }

    #[test]
    fn every_container_has_to_say_what_it_wants() {
        let pod = tree(r#"{"spec":{"containers":[{"name":"b"},{"name":"a","resources":{"requests":{"cpu":"1"}}}]}}"#);
        let lacks = |names: &[&str]| lacks(&pod, names);
        assert_eq!(lacks(&["pods", "requests.memory", "cpu"]).as_deref(), Some("must specify cpu for: b; requests.memory for: a,b"));
        assert_eq!(lacks(&["pods", "ephemeral-storage"]), None);
    }

    #[test]
    fn scopes_look_at_deadline_class_and_affinity() {
        let pod = tree(r#"{"spec":{"activeDeadlineSeconds":5,"priorityClassName":"high"},"status":{"qosClass":"BestEffort"}}"#);
        let values = [Tree::from("high")];
        let scope = |scope: &str, operator: &str| is_in_scope(&pod, scope, operator, &values);
        assert!(scope("Terminating", "Exists") && scope("BestEffort", "Exists") && scope("PriorityClass", "In"));
        assert!(!scope("NotTerminating", "Exists") && !scope("NotBestEffort", "Exists") && !scope("PriorityClass", "NotIn"));
        assert!(!scope("CrossNamespacePodAffinity", "Exists"));
    }

    #[test]
    fn names_of_pods() {
        for name in ["pods", "cpu", "limits.ephemeral-storage", "hugepages-2Mi", "requests.hugepages-2Mi", "requests.example.com/gpu"] {
            assert!(measures(name), "{name}");
        }
        for name in ["services", "requests.storage", "example.com/gpu", "limits.hugepages-2Mi"] {
            assert!(!measures(name), "{name}");
        }
    }
}
