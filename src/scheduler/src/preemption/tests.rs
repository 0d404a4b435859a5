use serde_json::{Value, json};

use super::*;
use crate::cache::Cache;
use crate::config::SchedulerConfig;
use crate::dra::NoDevices;
use crate::owners::Nobody;
use crate::schedule::tests::node;
use crate::schedule::{Fitting, find};
use crate::volumes::NoVolumes;

/// A pod that asks for CPU; `started` is the minute of its start.
fn pod(name: &str, cpu: &str, priority: i32, started: u8) -> Arc<PodInfo> {
    let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    object(name, spec, json!({"startTime": format!("2026-01-01T00:{started:02}:00Z")}))
}

fn object(name: &str, spec: Value, status: Value) -> Arc<PodInfo> {
    let meta = json!({"name": name, "namespace": "n", "uid": name, "labels": {"app": name}});
    Arc::new(PodInfo::new(&serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()))
}

fn budget(app: &str, allowed: i32) -> Arc<PodDisruptionBudget> {
    let spec = json!({"selector": {"matchLabels": {"app": app}}});
    let status = json!({"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1});
    Arc::new(serde_json::from_value(json!({"metadata": {"name": app, "namespace": "n"}, "spec": spec, "status": status})).unwrap())
}

/// The node and the victims, or why there are none.
fn run(placed: &[(Arc<PodInfo>, &str)], budgets: &[Arc<PodDisruptionBudget>], wanted: &PodInfo) -> String {
    let mut cache = Cache::default();
    for name in ["a1", "b1"] {
        cache.set_node(&node(name, json!({})));
    }
    for (pod, on) in placed {
        cache.set_pod(pod.clone(), on);
    }
    let (profiles, nominated) = (SchedulerConfig::default().profiles(&Default::default()), Nominator::default());
    let world = World { cache: &cache, namespace_labels: &|_| None, volumes: &NoVolumes, owners: &Nobody, devices: &NoDevices };
    let Fitting { slots, diagnosis, checks } = find(&profiles[0], wanted, &world, &nominated, &mut 0, true, &mut crate::alike::Known::default());
    assert!(slots.is_empty());
    let plight = Plight { pod: wanted, world: &world, checks: checks.as_ref(), diagnosis: &diagnosis, nominated: &nominated };
    if let Some(why) = ineligible(&plight) {
        return why.to_owned();
    }
    match candidates(&plight, PreemptionArgs::default(), budgets, &mut Random::new(3), &mut crate::alike::Known::default()) {
        Err(why) => why,
        Ok(found) => {
            let candidate = pick(found).unwrap();
            let victims: Vec<_> = candidate.victims.iter().map(|p| p.key.name.as_str()).collect();
            format!("{}: {}", candidate.node, victims.join(" "))
        }
    }
}

#[test]
fn as_few_and_as_unimportant_pods_as_possible_have_to_go() {
    let placed = [(pod("a", "1", 1, 1), "a1"), (pod("b", "1", 2, 1), "a1"), (pod("c", "1", 2, 1), "b1"), (pod("d", "1", 3, 1), "b1")];
    assert_eq!(run(&placed, &[], &pod("p", "1", 10, 9)), "a1: a");
    assert_eq!(run(&placed, &[], &pod("p", "2", 10, 9)), "a1: b a");
}

#[test]
fn a_budget_is_spared_where_another_node_will_do() {
    let placed = [(pod("guarded", "2", 1, 1), "a1"), (pod("free", "2", 5, 1), "b1")];
    assert_eq!(run(&placed, &[budget("guarded", 0)], &pod("p", "1", 10, 9)), "b1: free");
    assert_eq!(run(&placed, &[budget("guarded", 1)], &pod("p", "1", 10, 9)), "a1: guarded");
    let both = [budget("guarded", 0), budget("free", 0)];
    assert_eq!(run(&placed, &both, &pod("p", "1", 10, 9)), "a1: guarded", "budgets are no more than a wish");
}

#[test]
fn of_equal_pods_the_one_that_started_last_has_to_go() {
    let placed = [(pod("old", "2", 1, 1), "a1"), (pod("young", "2", 1, 7), "b1")];
    assert_eq!(run(&placed, &[], &pod("p", "1", 10, 9)), "b1: young");
}

#[test]
fn who_cannot_be_helped_is_told_why() {
    let placed = [(pod("a", "2", 10, 1), "a1"), (pod("b", "2", 1, 1), "b1")];
    assert_eq!(run(&placed, &[], &pod("p", "1", 1, 9)), "0/2 nodes are available: 2 No preemption victims found for incoming pod.",);
    assert_eq!(run(&placed, &[], &pod("p", "3", 20, 9)), "0/2 nodes are available: 2 Preemption is not helpful for scheduling.");
    let mut spec = json!({"priority": 20, "preemptionPolicy": "Never"});
    spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
    assert_eq!(run(&placed, &[], &object("p", spec, json!({}))), "not eligible due to preemptionPolicy=Never.");
}

#[test]
fn a_pod_waits_for_the_victims_that_it_has_already() {
    let mut dying = json!({"metadata": {"name": "v", "namespace": "n", "uid": "v", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    dying["spec"] = json!({"priority": 1, "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]});
    dying["status"] = json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]});
    let dying = Arc::new(PodInfo::new(&serde_json::from_value(dying).unwrap()));
    let placed = [(dying, "a1"), (pod("b", "2", 1, 1), "b1")];
    let spec = json!({"priority": 20, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
    let wanted = object("p", spec, json!({"nominatedNodeName": "a1"}));
    assert_eq!(run(&placed, &[], &wanted), "not eligible due to a terminating pod on the nominated node.");
}

#[test]
fn who_is_in_the_way_of_a_spread_constraint_has_to_go_too() {
    let constrained = |name: &str, priority: i32| {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}});
        object(
            name,
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}],
            "topologySpreadConstraints": [constraint]}),
            json!({}),
        )
    };
    let placed = [
        (pod("high", "1800m", 9, 1), "a1"),
        (pod("l1", "600m", 1, 1), "b1"),
        (pod("l2", "600m", 1, 2), "b1"),
        (pod("l3", "600m", 1, 3), "b1"),
    ];
    assert_eq!(run(&placed, &[], &constrained("p", 5)), "b1: l2 l3");
}
