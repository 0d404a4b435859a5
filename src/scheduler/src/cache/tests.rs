use serde_json::json;

use super::*;
use crate::pod::selector;

fn node(name: &str, zone: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})).unwrap()
}

fn pod(name: &str, labels: serde_json::Value) -> Arc<PodInfo> {
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}});
    let object = json!({"metadata": {"name": name, "namespace": "n", "labels": labels}, "spec": {"containers": [],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    Arc::new(PodInfo::new(&serde_json::from_value(object).unwrap()))
}

#[test]
fn zones_take_turns() {
    let mut cache = Cache::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        cache.set_node(&node(name, zone));
    }
    assert_eq!(cache.nodes().map(|n| n.name.clone()).collect::<Vec<_>>(), ["a1", "b1", "a2"]);
}

#[test]
fn a_node_that_has_gone_is_known_for_as_long_as_it_has_pods() {
    let mut cache = Cache::default();
    cache.set_node(&node("a", ""));
    cache.set_pod(pod("p", json!({})), "a");
    cache.remove_node("a");
    assert_eq!(cache.node_count(), 0);
    assert!(cache.pod(&ObjectKey::new("n", "p")).is_some());
    cache.remove_pod(&ObjectKey::new("n", "p"));
    assert!(cache.by_name.is_empty());
}

#[test]
fn kept_counts_follow_the_pods() {
    let mut cache = Cache::default();
    cache.set_node(&node("a", ""));
    cache.set_node(&node("b", ""));
    cache.set_pod(pod("p", json!({"x": "1"})), "a");
    let typed = serde_json::from_value(json!({"matchLabels": {"x": "1"}})).unwrap();
    let what = Counted::spread("n", &selector(Some(&typed)));
    assert_eq!(*cache.counts(&what), [1, 0]);
    cache.set_pod(pod("q", json!({"x": "1"})), "b");
    cache.set_pod(pod("r", json!({"x": "2"})), "b");
    cache.set_pod(pod("p", json!({"x": "2"})), "a");
    assert_eq!(*cache.counts(&what), [0, 1]);
    assert_eq!(cache.terms().required_away().count(), 1);
    assert_eq!(cache.terms().required_away().next().map(|t| t.nodes.len()), Some(2));
}

#[test]
fn nodes_with_one_value_of_a_label_are_one_domain() {
    let mut cache = Cache::default();
    for (name, zone) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
        cache.set_node(&node(name, zone));
    }
    let key = "topology.kubernetes.io/zone";
    let domain = |cache: &Cache, name: &str| cache.topology(key).domain(cache.node(name).unwrap().slot);
    assert_eq!(cache.topology(key).len(), 2);
    assert_eq!(domain(&cache, "a1"), domain(&cache, "a2"));
    assert_ne!(domain(&cache, "a1"), domain(&cache, "b1"));
    assert_eq!(cache.topology("other").len(), 0);
    // A node that has moved, one that has gone, and a slot that another took over.
    cache.set_node(&node("a2", "b"));
    assert_eq!(domain(&cache, "a2"), domain(&cache, "b1"));
    let slot = cache.node("b1").unwrap().slot;
    cache.remove_node("b1");
    assert_eq!(cache.topology(key).domain(slot), None);
    cache.set_node(&node("c1", "c"));
    assert_eq!((cache.node("c1").unwrap().slot, cache.topology(key).len()), (slot, 3));
}

#[test]
fn amounts_are_summed_by_domain() {
    let mut cache = Cache::default();
    for (name, zone) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
        cache.set_node(&node(name, zone));
    }
    let mut sums = Domains::new(cache.topology("topology.kubernetes.io/zone"));
    assert!(sums.is_zero());
    let slot = |name: &str| cache.node(name).unwrap().slot;
    sums.add(slot("a1"), 2);
    sums.add(slot("a2"), 3);
    assert_eq!([slot("a1"), slot("a2"), slot("b1"), 99].map(|s| sums.at(s)), [Some(5), Some(5), Some(0), None]);
    sums.add(slot("a1"), -5);
    assert!(sums.is_zero());
}

#[test]
fn pods_that_have_gone_leave_no_room_behind() {
    let mut cache = Cache::default();
    cache.set_node(&node("a", ""));
    let names: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
    for name in &names {
        cache.assume(pod(name, json!({})), "a");
    }
    for name in &names {
        cache.remove_pod(&ObjectKey::new("n", name.clone()));
    }
    assert!(cache.placed.capacity() < 2000 && cache.assumed.capacity() < 2000);
}
