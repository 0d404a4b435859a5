use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cache::Cache;
use crate::config::SchedulerConfig;
use crate::dra::NoDevices;
use crate::nominator::Nominator;
use crate::owners::Nobody;
use crate::volumes::NoVolumes;

/// A node of a zone that its first letter names, with two CPUs.
pub fn node(name: &str, spec: Value) -> k8s_openapi::api::core::v1::Node {
    let labels = json!({"kubernetes.io/hostname": name, "zone": &name[..1]});
    let status = json!({"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status})).unwrap()
}

pub fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    let meta = json!({"name": name, "namespace": "n", "uid": name, "labels": {"app": "x"}});
    Arc::new(PodInfo::new(&serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()))
}

pub fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

fn run(nodes: &[(&str, Value)], placed: &[(Arc<PodInfo>, &str)], wanted: &PodInfo) -> String {
    with_nominated(nodes, placed, &Nominator::default(), wanted)
}

fn with_nominated(nodes: &[(&str, Value)], placed: &[(Arc<PodInfo>, &str)], nominated: &Nominator, wanted: &PodInfo) -> String {
    let mut cache = Cache::default();
    for (name, spec) in nodes {
        cache.set_node(&node(name, spec.clone()));
        nominated.tell_of(name, &mut cache);
    }
    for (pod, on) in placed {
        cache.set_pod(pod.clone(), on);
    }
    let profiles = SchedulerConfig::default().profiles(&Default::default());
    let world = World { cache: &cache, namespace_labels: &|_| None, volumes: &NoVolumes, owners: &Nobody, devices: &NoDevices };
    let Fitting { slots, diagnosis, .. } = find(&profiles[0], wanted, &world, nominated, &mut 0, true, &mut Known::default());
    if slots.is_empty() {
        return diagnosis.message();
    }
    let totals = score(&profiles[0], wanted, &slots, &world, &mut Known::default());
    cache.at(slots[best(&totals, &mut Random::new(7))]).facts.name.clone()
}

#[test]
fn the_emptier_node_wins() {
    let nodes = [("a1", json!({})), ("b1", json!({}))];
    assert_eq!(run(&nodes, &[(pod("p", cpu("1")), "a1")], &pod("q", cpu("500m"))), "b1");
}

#[test]
fn reasons_are_counted_and_worded_as_upstream() {
    let taint = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let nodes = [("a1", json!({"unschedulable": true})), ("b1", taint), ("c1", json!({}))];
    assert_eq!(
        run(&nodes, &[], &pod("q", cpu("3"))),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
    );
}

#[test]
fn a_pod_that_names_its_node_is_told_about_the_others_in_one_word() {
    let mut spec = cpu("3");
    let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["a1"]}]);
    spec["affinity"] =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}});
    let nodes = [("a1", json!({})), ("b1", json!({})), ("c1", json!({}))];
    assert_eq!(
        run(&nodes, &[], &pod("q", spec)),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
    );
}

#[test]
fn a_hard_spread_constraint_keeps_the_skew() {
    let mut spec = cpu("1m");
    let selector = json!({"matchLabels": {"app": "x"}});
    spec["topologySpreadConstraints"] =
        json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]);
    let wanted = pod("q", spec);
    let nodes = [("a1", json!({})), ("b1", json!({"unschedulable": true}))];
    assert_eq!(
        run(&nodes, &[(pod("p", cpu("1m")), "a1")], &wanted),
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.",
    );
    assert_eq!(run(&[("a1", json!({})), ("b1", json!({}))], &[(pod("p", cpu("1m")), "a1")], &wanted), "b1");
}

fn shy() -> Value {
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}});
    let mut spec = cpu("1m");
    spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    spec
}

#[test]
fn anti_affinity_holds_both_ways() {
    let (one, shy, p) = ([("a1", json!({}))], pod("shy", shy()), pod("p", cpu("1m")));
    assert_eq!(run(&one, &[(p.clone(), "a1")], &shy), "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.");
    assert_eq!(run(&one, &[(shy, "a1")], &p), "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.");
}

#[test]
fn the_first_of_a_group_that_wants_to_be_together_may_start_anywhere() {
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}});
    let mut spec = cpu("1m");
    spec["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let nodes = [("a1", json!({})), ("b1", json!({}))];
    let first = pod("first", spec.clone());
    assert!(["a1", "b1"].contains(&run(&nodes, &[], &first).as_str()));
    assert_eq!(run(&nodes, &[(first, "b1")], &pod("second", spec)), "b1");
}

#[test]
fn a_place_that_was_promised_to_a_pod_as_important_is_taken() {
    let mut nominated = Nominator::default();
    nominated.set(pod("promised", cpu("2")), Some("a1"));
    assert_eq!(with_nominated(&[("a1", json!({}))], &[], &nominated, &pod("q", cpu("1"))), "0/1 nodes are available: 1 Insufficient cpu.");
    let mut important = cpu("1");
    important["priority"] = 1.into();
    assert_eq!(with_nominated(&[("a1", json!({}))], &[], &nominated, &pod("q", important)), "a1");
}

#[test]
fn of_many_nodes_a_share_is_enough() {
    assert_eq!([50, 100, 1000, 5000, 20_000].map(|n| enough(0, n)), [50, 100, 420, 500, 1000]);
    assert_eq!(enough(70, 1000), 700);
}

#[test]
fn ties_are_broken_evenly() {
    let mut random = Random::new(42);
    let mut counts = [0; 4];
    for _ in 0..4000 {
        counts[best(&[5, 7, 7, 7], &mut random)] += 1;
    }
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|c| (1200..1470).contains(c)), "{counts:?}");
}

#[test]
fn what_is_known_of_a_node_ends_with_a_promise_there() {
    let (mut cache, mut nominated, mut alike) = (Cache::default(), Nominator::default(), crate::alike::Alike::default());
    cache.set_node(&node("a1", json!({})));
    let profiles = SchedulerConfig::default().profiles(&Default::default());
    let mut fits = |cache: &Cache, nominated: &Nominator, name: &str, cpu: Value| {
        let pod = pod(name, cpu);
        let world = World { cache, namespace_labels: &|_| None, volumes: &NoVolumes, owners: &Nobody, devices: &NoDevices };
        !find(&profiles[0], &pod, &world, nominated, &mut 0, true, alike.known(&pod, 0)).slots.is_empty()
    };
    assert!(fits(&cache, &nominated, "p", cpu("1500m")));
    nominated.set(pod("q", cpu("1")), Some("a1"));
    nominated.tell(&mut cache);
    assert!(!fits(&cache, &nominated, "p", cpu("1500m")));
    assert!(fits(&cache, &nominated, "q", cpu("1500m")), "its own promise is not in its way");
    assert!(!fits(&cache, &nominated, "r", cpu("1500m")));
    let mut important = cpu("1500m");
    important["priority"] = 1.into();
    assert!(fits(&cache, &nominated, "s", important));
    nominated.remove(&client::ObjectKey::new("n", "q"));
    nominated.tell(&mut cache);
    assert!(fits(&cache, &nominated, "r", cpu("1500m")));
}
