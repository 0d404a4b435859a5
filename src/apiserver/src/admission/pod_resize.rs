//! A resize that the pod's node could never hold is refused at once.
//!
//! Models plugin/pkg/admission/podresize/admission.go, v1.37.
use api::quantity::Quantity;
use api::tree::Tree;
use jiff::Timestamp;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

pub fn validate(cache: &Cache, request: &Request) -> Result<(), Status> {
    let is_resize = request.operation == Operation::Update && request.resource.plural == "pods" && request.subresource == "resize";
    if !is_resize || !request.resource.group.is_empty() {
        return Ok(());
    }
    let node_name = request.object.str_at(&["spec", "nodeName"]);
    let old_generation = request.old.as_ref().map(|old| api::meta::generation(old));
    // Only a change of the spec counts a generation.
    if node_name.is_empty() || old_generation == Some(api::meta::generation(&request.object)) {
        return Ok(());
    }
    let Some(node) = cache.get("", "nodes", "", node_name) else {
        return Err(request.forbidden(format!("node {node_name:?} not found")));
    };
    let node = node.tree();
    let system = node.str_at(&["metadata", "labels", "kubernetes.io/os"]);
    if !system.is_empty() && system != "linux" {
        let why = format!("pod resize is only supported on linux nodes, node {node_name:?} is {system:?}");
        return Err(request.forbidden(why).with_cause("UnsupportedPlatform", "", ""));
    }
    match shortage(&request.object, &node) {
        Some(why) => Err(request.forbidden(why).with_cause("NodeCapacity", "", "")),
        None => Ok(()),
    }
}

fn shortage(pod: &Tree, node: &Tree) -> Option<String> {
    let mut wanted = pod.clone();
    // What it has now is not asked.
    wanted.remove(&["status"]);
    let requests = api::quota::usage("", "pods", &wanted, Timestamp::UNIX_EPOCH);
    let allocatable = api::quota::amounts(node.at(&["status", "allocatable"]));
    let too_much = |name: &str, unit: fn(&Quantity) -> i64| {
        let (asked, there) = (requests.get(name).copied().unwrap_or_default(), allocatable.get(name).copied().unwrap_or_default());
        (asked > there).then(|| format!("{name}, requested: {}, allocatable: {}", unit(&asked), unit(&there)))
    };
    let short: Vec<String> = [too_much("cpu", Quantity::milli_value), too_much("memory", Quantity::value)].into_iter().flatten().collect();
    (!short.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", short.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cpu: &str, memory: &str, expect: Option<&str>) {
        let pod = format!(r#"{{"spec":{{"containers":[{{"name":"a","resources":{{"requests":{{"cpu":"{cpu}","memory":"{memory}"}}}}}}]}},"status":{{"phase":"Running"}}}}"#);
        let node = br#"{"status":{"allocatable":{"cpu":"2","memory":"1Gi"}}}"#;
        let tree = |json: &[u8]| Tree::from_json(json).unwrap();
        assert_eq!(shortage(&tree(pod.as_bytes()), &tree(node)).as_deref(), expect);
    }

    #[test]
    fn what_no_node_of_this_size_can_hold_is_refused() {
        check("2", "1Gi", None);
        check("2001m", "1Gi", Some("node didn't have enough allocatable resources: cpu, requested: 2001, allocatable: 2000"));
        let both = "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824";
        check("3", "2Gi", Some(both));
    }
}
