//! LimitRanges of the namespace: defaults into new pods, and bounds on pods and claims.
//!
//! Models plugin/pkg/admission/limitranger/admission.go.
use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::{Status, aggregate};

type Amounts = BTreeMap<String, Quantity>;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn concerns(request: &Request) -> bool {
    let resize = request.subresource == "resize" && request.operation == Operation::Update;
    let pods = (request.is("", "pods") && request.operation == Operation::Create) || (resize && is_pods(request));
    let claims = request.is("", "persistentvolumeclaims")
        && matches!(request.operation, Operation::Create | Operation::Update);
    pods || claims
}

/// Of pods or of their resize.
fn is_pods(request: &Request) -> bool {
    request.resource.group.is_empty() && request.resource.plural == "pods"
}

/// The `limits` of every LimitRange of the namespace.
fn limits(cache: &Cache, namespace: &str) -> Vec<Tree> {
    let ranges = cache.list("", "limitranges", Some(namespace));
    ranges.iter().flat_map(|range| range.tree().array_at(&["spec", "limits"]).to_vec()).collect()
}

pub fn admit(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    if !concerns(request) || !is_pods(request) {
        return Ok(());
    }
    for limit in limits(cache, &request.namespace) {
        if limit.str_at(&["type"]) == "Container" {
            set_defaults(&mut request.object, &limit);
        }
    }
    Ok(())
}

fn set_defaults(pod: &mut Tree, limit: &Tree) {
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod.at_mut(&["spec", list]).and_then(Tree::as_array_mut) else { continue };
        for container in containers {
            let name = container.str_at(&["name"]).to_owned();
            for (defaults, field, word) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
                let Some(defaults) = limit.get(defaults).and_then(Tree::as_object) else { continue };
                let mut set = Vec::new();
                for (resource, amount) in defaults.iter() {
                    if container.at(&["resources", field, resource]).is_none() {
                        container.set(&["resources", field, resource], amount.clone());
                        set.push(resource.to_owned());
                    }
                }
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        api::meta::set_annotation(pod, ANNOTATION, &format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

pub fn validate(cache: &Cache, request: &Request) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    let mut errors = Vec::new();
    for limit in limits(cache, &request.namespace) {
        match (limit.str_at(&["type"]), &*request.resource.plural) {
            ("Container", "pods") => {
                for list in ["containers", "initContainers"] {
                    for container in request.object.array_at(&["spec", list]) {
                        let (requests, limits) = amounts_of(container);
                        check(&limit, "Container", &requests, &limits, &mut errors);
                    }
                }
            }
            ("Pod", "pods") => {
                let (requests, limits) = pod_amounts(&request.object);
                check(&limit, "Pod", &requests, &limits, &mut errors);
            }
            ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                let requests = amounts(request.object.at(&["spec", "resources", "requests"]));
                check_claim(&limit, &requests, &mut errors);
            }
            _ => {}
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(request.forbidden(aggregate(&errors))) }
}

fn amounts(tree: Option<&Tree>) -> Amounts {
    let entries = tree.and_then(Tree::as_object).into_iter().flat_map(|object| object.iter());
    entries.filter_map(|(name, amount)| Some((name.to_owned(), api::quantity::from_tree(amount)?))).collect()
}

fn amounts_of(container: &Tree) -> (Amounts, Amounts) {
    (amounts(container.at(&["resources", "requests"])), amounts(container.at(&["resources", "limits"])))
}

/// Containers and sidecars added up, or the largest init container (with the sidecars before it) where that is more.
fn pod_amounts(pod: &Tree) -> (Amounts, Amounts) {
    let sum = |which: fn(&Tree) -> Amounts| {
        let mut total = Amounts::new();
        for container in pod.array_at(&["spec", "containers"]) {
            add(&mut total, &which(container));
        }
        let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
        for container in pod.array_at(&["spec", "initContainers"]) {
            let mut now = which(container);
            if container.str_at(&["restartPolicy"]) == "Always" {
                add(&mut total, &now);
                add(&mut sidecars, &now);
                now = sidecars.clone();
            } else {
                add(&mut now, &sidecars);
            }
            raise(&mut peak, now);
        }
        raise(&mut total, peak);
        total
    };
    (sum(|container| amounts_of(container).0), sum(|container| amounts_of(container).1))
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).copied().map_or(*amount, |before| before + *amount);
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        if total.get(&name).is_none_or(|before| *before < amount) {
            total.insert(name, amount);
        }
    }
}

fn check(limit: &Tree, kind: &str, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    for (name, bound) in amounts(limit.get("min")) {
        let rule = format!("minimum {name} usage per {kind} is {bound}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{rule}.  No request is specified")),
            (Some(request), _) if *request < bound => errors.push(format!("{rule}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => errors.push(format!("{rule}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(limit.get("max")) {
        let rule = format!("maximum {name} usage per {kind} is {bound}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => errors.push(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => errors.push(format!("{rule}, but limit is {limit}")),
            (Some(request), _) if *request > bound => errors.push(format!("{rule}, but request is {request}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(limit.get("maxLimitRequestRatio")) {
        let rule = format!("{name} max limit to request ratio per {kind} is {bound}");
        let some = |amount: Option<&Quantity>| amount.filter(|amount| !amount.is_zero()).map(Quantity::as_f64);
        match (some(requests.get(&name)), some(limits.get(&name))) {
            (None, _) => errors.push(format!("{rule}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{rule}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit / request > bound.as_f64() => {
                errors.push(format!("{rule}, but provided ratio is {:.6}", limit / request));
            }
            _ => {}
        }
    }
}

fn check_claim(limit: &Tree, requests: &Amounts, errors: &mut Vec<String>) {
    const KIND: &str = "PersistentVolumeClaim";
    for (name, bound) in amounts(limit.get("min")) {
        let rule = format!("minimum {name} usage per {KIND} is {bound}");
        match requests.get(&name) {
            None => errors.push(format!("{rule}.  No request is specified")),
            Some(request) if *request < bound => errors.push(format!("{rule}, but request is {request}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(limit.get("max")) {
        let rule = format!("maximum {name} usage per {KIND} is {bound}");
        match requests.get(&name) {
            None => errors.push(format!("{rule}.  No request is specified")),
            Some(request) if *request > bound => errors.push(format!("{rule}, but request is {request}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn fills_in_defaults_and_says_so() {
        let limit = tree(r#"{"type":"Container","default":{"cpu":"500m","memory":"1Gi"},"defaultRequest":{"cpu":"100m"}}"#);
        let mut pod = tree(r#"{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1"}}}]}}"#);
        set_defaults(&mut pod, &limit);
        assert_eq!(
            api::meta::annotation(&pod, ANNOTATION),
            Some("LimitRanger plugin set: cpu request for container a; memory limit for container a")
        );
        assert_eq!(pod.array_at(&["spec", "containers"])[0].str_at(&["resources", "limits", "cpu"]), "1");
    }

    #[test]
    fn names_the_bound_and_the_amount() {
        let limit = tree(r#"{"min":{"cpu":"100m"},"max":{"memory":"1Gi"},"maxLimitRequestRatio":{"cpu":"2"}}"#);
        let container = tree(r#"{"resources":{"requests":{"cpu":"50m"},"limits":{"cpu":"200m","memory":"2Gi"}}}"#);
        let (requests, limits) = amounts_of(&container);
        let mut errors = Vec::new();
        check(&limit, "Container", &requests, &limits, &mut errors);
        assert_eq!(
            errors,
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ]
        );
    }
}
