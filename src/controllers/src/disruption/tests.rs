use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

fn budget(spec: Value, evicted: &[(&str, i64)]) -> PodDisruptionBudget {
    let evicted: serde_json::Map<_, _> = evicted.iter().map(|(n, s)| ((*n).to_owned(), at(*s).to_string().into())).collect();
    let mut budget = json!({"metadata": {"name": "b", "namespace": "default", "generation": 3}, "spec": spec,
        "status": {"disruptedPods": evicted, "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}});
    budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    serde_json::from_value(budget).unwrap()
}

/// `name ready`, `name unready` or `name gone` (ready, being deleted).
fn pod(text: &str) -> Arc<Pod> {
    let (name, state) = text.split_once(' ').unwrap();
    let ready = if state == "unready" { "False" } else { "True" };
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    if state == "gone" {
        pod["metadata"]["deletionTimestamp"] = at(0).to_string().into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// The counts as `expected desired healthy allowed`.
#[track_caller]
fn check(spec: Value, evicted: &[(&str, i64)], pods: &[&str], scale: i32, expect: &str) -> Plan {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let plan = plan::plan(&budget(spec, evicted), &pods, scale, at(0));
    let counts = [
        plan.status.expected_pods,
        plan.status.desired_healthy,
        plan.status.current_healthy,
        plan.status.disruptions_allowed,
    ];
    assert_eq!(counts.map(|n| n.unwrap().to_string()).join(" "), expect);
    plan
}

const THREE: [&str; 3] = ["a ready", "b ready", "c unready"];

#[test]
fn budgets_are_numbers_of_pods_or_shares_of_what_owners_ask_for() {
    check(json!({"minAvailable": 1}), &[], &THREE, 0, "3 1 2 1");
    check(json!({"minAvailable": 2}), &[], &THREE, 0, "3 2 2 0");
    check(json!({"minAvailable": "50%"}), &[], &THREE, 3, "3 2 2 0");
    check(json!({"maxUnavailable": 2}), &[], &THREE, 3, "3 1 2 1");
    check(json!({"maxUnavailable": "34%"}), &[], &THREE, 3, "3 1 2 1");
    check(json!({"maxUnavailable": 9}), &[], &THREE, 3, "3 0 2 2");
    // The owners ask for more than there are yet.
    check(json!({"maxUnavailable": 1}), &[], &THREE, 10, "10 9 2 0");
    // No pods expected: nothing is allowed.
    check(json!({"maxUnavailable": 1}), &[], &["a ready"], 0, "0 0 1 0");
    check(json!({"minAvailable": 0}), &[], &[], 0, "0 0 0 0");
}

#[test]
fn pods_on_their_way_out_are_not_healthy() {
    check(json!({"minAvailable": 1}), &[], &["a ready", "b gone", "c ready"], 0, "3 1 2 1");
    let plan = check(json!({"minAvailable": 1}), &[("a", -30), ("b", -30), ("x", -30)], &["a ready", "b gone", "c ready"], 0, "3 1 1 0");
    assert_eq!(plan.status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(plan.next, Next::After(Duration::from_secs(90)));
    // Two minutes after its eviction a pod that is still there counts again.
    let plan = check(json!({"minAvailable": 1}), &[("a", -121)], &["a ready", "c ready"], 0, "2 1 2 1");
    assert_eq!((plan.status.disrupted_pods, plan.lost.len(), plan.next), (None, 1, Next::Wait));
}

#[test]
fn the_condition_says_whether_and_why_not_and_keeps_its_time() {
    let condition = |status: &PodDisruptionBudgetStatus| {
        let [c] = &status.conditions.as_ref().unwrap()[..] else { panic!("one condition") };
        (c.status.clone(), c.reason.clone(), c.last_transition_time.0, c.observed_generation)
    };
    let mut b = budget(json!({"minAvailable": 3}), &[]);
    let pods = THREE.map(pod);
    b.status = Some(plan::plan(&b, &pods, 0, at(0)).status);
    assert_eq!(condition(b.status.as_ref().unwrap()), ("False".into(), "InsufficientPods".into(), at(0), Some(3)));
    let failed = plan::failed(&b, "no", at(5));
    assert_eq!(condition(&failed), ("False".into(), "SyncFailed".into(), at(0), Some(3)));
    b.spec.as_mut().unwrap().min_available = None;
    b.spec.as_mut().unwrap().max_unavailable = Some(client::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(3));
    let again = plan::plan(&b, &pods, 3, at(9)).status;
    assert_eq!(condition(&again), ("True".into(), "SufficientPods".into(), at(9), Some(3)));
    assert!(plan::same(&again, &again.clone()) && !plan::same(&again, &failed));
}

#[test]
fn selectors_absent_cover_nothing_and_empty_everything() {
    let mut b = budget(json!({"minAvailable": 1}), &[]);
    let pod = pod("a ready");
    assert!(covers(&b, &pod));
    b.spec.as_mut().unwrap().selector = Some(Default::default());
    assert!(covers(&b, &pod));
    b.spec.as_mut().unwrap().selector = None;
    assert!(!covers(&b, &pod));
}

#[test]
fn a_mark_is_stale_after_two_minutes_unless_the_kubelet_made_it_or_the_pod_is_going() {
    let marked = |change: Value| {
        let mut pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": at(0).to_string()}]}});
        if let Some(path) = change.as_array() {
            *pod.pointer_mut(path[0].as_str().unwrap()).unwrap() = path[1].clone();
        }
        stale::stale_at(&serde_json::from_value(pod).unwrap())
    };
    assert_eq!(marked(Value::Null), Some(at(120)));
    assert_eq!(marked(json!(["/status/conditions/0/reason", "TerminationByKubelet"])), None);
    assert_eq!(marked(json!(["/status/conditions/0/status", "False"])), None);
    assert_eq!(marked(json!(["/status/phase", "Failed"])), None);
    assert_eq!(marked(json!(["/metadata", {"name": "a", "deletionTimestamp": at(0).to_string()}])), None);
}
