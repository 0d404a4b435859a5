use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::{Value, json};

use super::*;

fn slice(name: &str, node: Option<&str>, devices: Value, more: Value) -> Arc<ResourceSlice> {
    let mut spec =
        json!({"driver": "gpu.example.com", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": devices});
    match node {
        Some(node) => spec["nodeName"] = node.into(),
        None => spec["allNodes"] = true.into(),
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
}

fn claim(devices: Value) -> Arc<ResourceClaim> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"devices": devices}})).unwrap())
}

fn request(name: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    for (key, value) in more.as_object().into_iter().flatten() {
        exactly[key] = value.clone();
    }
    json!({"name": name, "exactly": exactly})
}

/// `request=device ...` by claim, or why not.
fn run(slices: &[Arc<ResourceSlice>], in_use: &[&str], claims: &[Arc<ResourceClaim>]) -> String {
    let class: Arc<DeviceClass> = Arc::new(serde_json::from_value(json!({"metadata": {"name": "gpu"}, "spec": {}})).unwrap());
    let find = |name: &str| (name == "gpu").then(|| class.clone());
    let id = |device: &&str| DeviceId { driver: "gpu.example.com".into(), pool: "p".into(), device: (*device).to_owned() };
    let in_use = InUse { devices: in_use.iter().map(id).collect(), shared: HashMap::new() };
    let node = NodeFacts { name: "a".into(), ..NodeFacts::default() };
    match (Allocator { in_use: &in_use, class: &find, slices }).allocate(&node, claims) {
        Err(error) => error.to_string(),
        Ok(None) => "none".to_owned(),
        Ok(Some(all)) => {
            let shown = all.iter().map(|a| {
                let results = a.devices.as_ref().and_then(|d| d.results.as_ref()).unwrap();
                results.iter().map(|r| format!("{}={}", r.request, r.device)).collect::<Vec<_>>().join(" ")
            });
            shown.collect::<Vec<_>>().join(", ")
        }
    }
}

fn plain(names: &[&str]) -> Value {
    names.iter().map(|n| json!({"name": n})).collect()
}

#[test]
fn free_devices_are_handed_out_and_the_rest_is_not_there() {
    let slices = [slice("s", Some("a"), plain(&["d0", "d1", "d2"]), json!({}))];
    let one = claim(json!({"requests": [request("r", json!({}))]}));
    assert_eq!(run(&slices, &["d0"], &[one.clone(), one.clone()]), "r=d1, r=d2");
    assert_eq!(run(&slices, &["d0"], &[one.clone(), one.clone(), one.clone()]), "none");
    assert_eq!(run(&[slice("s", Some("b"), plain(&["d0"]), json!({}))], &[], &[one]), "none");
    let all = claim(json!({"requests": [request("r", json!({"allocationMode": "All", "count": null}))]}));
    assert_eq!(run(&slices, &[], &[all]), "r=d0 r=d1 r=d2");
}

#[test]
fn a_search_takes_back_what_does_not_lead_on() {
    let device = |name: &str, model: &str| json!({"name": name, "attributes": {"model": {"string": model}}});
    let slices = [slice("s", Some("a"), json!([device("d0", "x"), device("d1", "y"), device("d2", "y")]), json!({}))];
    let requests = json!([request("r", json!({"count": 2}))]);
    let same = json!([{"matchAttribute": "gpu.example.com/model"}]);
    assert_eq!(run(&slices, &[], &[claim(json!({"requests": requests, "constraints": same}))]), "r=d1 r=d2");
    let distinct = json!([{"distinctAttribute": "gpu.example.com/model"}]);
    assert_eq!(run(&slices, &[], &[claim(json!({"requests": requests, "constraints": distinct}))]), "r=d0 r=d1");
}

#[test]
fn the_first_alternative_that_can_be_had_is_taken() {
    let slices = [slice("s", Some("a"), plain(&["d0", "d1"]), json!({}))];
    let alternative =
        |name: &str, count: i64| json!({"name": name, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count});
    let requests = json!([{"name": "r", "firstAvailable": [alternative("many", 3), alternative("few", 2), alternative("one", 1)]}]);
    assert_eq!(run(&slices, &[], &[claim(json!({"requests": requests}))]), "r/few=d0 r/few=d1");
    assert_eq!(run(&slices, &["d1"], &[claim(json!({"requests": requests}))]), "r/one=d0");
}

#[test]
fn partitions_share_their_counters() {
    let draws = |amount: &str| json!([{"counterSet": "card", "counters": {"memory": {"value": amount}}}]);
    let devices = json!([{"name": "whole", "consumesCounters": draws("40Gi")}, {"name": "half", "consumesCounters": draws("20Gi")}]);
    let counters = json!([{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]);
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    let slices = [
        slice("s", Some("a"), devices, json!({"pool": pool})),
        slice("t", Some("a"), json!([]), json!({"pool": pool, "sharedCounters": counters})),
    ];
    let one = claim(json!({"requests": [request("r", json!({}))]}));
    assert_eq!(run(&slices, &[], &[one.clone()]), "r=whole");
    assert_eq!(run(&slices, &["half"], &[one.clone()]), "none");
    assert_eq!(run(&slices, &[], &[one.clone(), one]), "none");
}

#[test]
fn a_shared_device_is_handed_out_until_it_is_used_up() {
    let devices = json!([{"name": "d", "allowMultipleAllocations": true, "capacity": {"memory": {"value": "10"}}}]);
    let slices = [slice("s", None, devices, json!({}))];
    let part = claim(json!({"requests": [request("r", json!({"capacity": {"requests": {"memory": "4"}}}))]}));
    assert_eq!(run(&slices, &[], &[part.clone(), part.clone()]), "r=d, r=d");
    assert_eq!(run(&slices, &[], &[part.clone(), part.clone(), part]), "none");
}

#[test]
fn tainted_and_half_known_devices_are_left_alone() {
    let devices = json!([{"name": "d", "taints": [{"key": "k", "effect": "NoSchedule"}]}]);
    let slices = [slice("s", Some("a"), devices, json!({}))];
    assert_eq!(run(&slices, &[], &[claim(json!({"requests": [request("r", json!({}))]}))]), "none");
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    assert_eq!(run(&slices, &[], &[claim(json!({"requests": [request("r", tolerant)]}))]), "r=d");
    let incomplete = slice("s", Some("a"), plain(&["d"]), json!({"pool": {"name": "p", "generation": 1, "resourceSliceCount": 2}}));
    assert_eq!(run(&[incomplete], &[], &[claim(json!({"requests": [request("r", json!({}))]}))]), "none");
    let twice = slice("s", Some("a"), plain(&["d", "d"]), json!({}));
    assert_eq!(run(&[twice], &[], &[claim(json!({"requests": [request("r", json!({}))]}))]), "invalid resource pools were encountered");
}

#[test]
fn a_class_that_is_not_there_is_an_error() {
    let wanted = json!({"requests": [request("r", json!({"deviceClassName": "none"}))]});
    assert_eq!(run(&[], &[], &[claim(wanted)]), "claim n/c, request r: could not retrieve device class none");
}
