use client::k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::Value;

use super::eviction::{Fate, fate};
use super::*;
use crate::fake;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn node(ready: Option<&str>, change: impl FnOnce(&mut Value)) -> Node {
    let conditions: Vec<_> = ready
        .iter()
        .map(|s| json!({"type": "Ready", "status": s, "lastHeartbeatTime": at(0).to_string()}))
        .collect();
    let mut value = json!({"metadata": {"name": "n", "creationTimestamp": at(0).to_string()}, "spec": {},
        "status": {"conditions": conditions}});
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn lease(renewed: i64) -> Lease {
    serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"renewTime": at(renewed).strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string()}})).unwrap()
}

fn told(taints: &[Taint]) -> Vec<String> {
    taints.iter().map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect)).collect()
}

#[test]
fn a_node_is_lost_fifty_seconds_after_its_last_sign_of_life() {
    let node = node(Some("True"), |_| {});
    let after = Duration::from_secs;
    let mut probe = Probe::new(&node, Some(&lease(0)), after(0), at(0));
    assert!(!probe.is_overdue(after(50)) && probe.is_overdue(after(51)));
    // The same renewal again is no sign of life, whatever the node's clock says of a new one.
    assert!(!probe.saw_lease(&lease(0), after(40)));
    assert!(probe.saw_lease(&lease(5), after(40)));
    assert!(!probe.is_overdue(after(90)) && probe.is_overdue(after(91)));
    assert!(probe.saw_lease(&lease(-3600), after(80)), "its clock was set back");
    assert!(!probe.is_overdue(after(130)));
}

#[test]
fn a_node_that_never_reported_has_a_minute_from_its_creation() {
    let after = Duration::from_secs;
    let probe = Probe::new(&node(None, |_| {}), None, after(100), at(30));
    assert!(!probe.is_overdue(after(130)) && probe.is_overdue(after(131)));
}

#[test]
fn silence_turns_what_only_the_kubelet_knows_to_unknown() {
    let verdict = health::judge(&node(Some("True"), |_| {}), true, at(60));
    let told: Vec<_> = verdict.conditions.iter().flatten().map(|c| format!("{} {}", c.type_, c.reason.as_deref().unwrap())).collect();
    assert_eq!(told, [
        "Ready NodeStatusUnknown",
        "MemoryPressure NodeStatusNeverUpdated",
        "DiskPressure NodeStatusNeverUpdated",
        "PIDPressure NodeStatusNeverUpdated",
    ]);
    assert!(verdict.was_ready && !verdict.is_ready());
    assert!(health::judge(&node(Some("False"), |_| {}), false, at(60)).conditions.is_none());
}

#[test]
fn taints_follow_conditions_and_leave_others_taints_alone() {
    let tainted = node(Some("Unknown"), |n| {
        n["spec"] = json!({"unschedulable": true, "taints": [
            {"key": "mine", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": at(0).to_string()}]});
        n["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "DiskPressure", "status": "True"}));
    });
    let wanted = |ready, lost| taints::wanted(&tainted, ready, lost, at(9));
    assert_eq!(told(&wanted("Unknown", false)), [
        "mine:NoExecute",
        "unreachable:NoSchedule",
        "unreachable:NoExecute",
        "disk-pressure:NoSchedule",
        "unschedulable:NoSchedule",
    ]);
    assert_eq!(told(&wanted("True", false)), ["mine:NoExecute", "disk-pressure:NoSchedule", "unschedulable:NoSchedule"]);
    assert!(!told(&wanted("Unknown", true)).contains(&"unreachable:NoExecute".to_owned()));
    // A taint that stays keeps the time from which tolerations count.
    assert_eq!(wanted("False", false)[1].time_added, tainted.spec.as_ref().unwrap().taints.as_ref().unwrap()[1].time_added);
    assert!(!taints::begins_eviction(&tainted, &wanted("Unknown", false)));
    let clean = node(Some("Unknown"), |_| {});
    let fresh = taints::wanted(&clean, "Unknown", false, at(9));
    assert!(taints::begins_eviction(&clean, &fresh));
    assert_eq!(told(&taints::without_new_eviction(&clean, fresh)), ["unreachable:NoSchedule"]);
}

#[track_caller]
fn check(tolerations: Value, expect: Fate) {
    let taints: Vec<Taint> = serde_json::from_value(json!([
        {"key": "a", "effect": "NoExecute", "timeAdded": at(0).to_string()},
        {"key": "b", "value": "x", "effect": "NoExecute", "timeAdded": at(10).to_string()}]))
    .unwrap();
    let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
    assert_eq!(fate(taints.iter(), &tolerations, at(20)), expect);
}

#[test]
fn the_shortest_toleration_decides_and_a_missing_one_at_once() {
    check(json!([{"operator": "Exists"}]), Fate::Stays);
    check(json!([{"key": "a", "operator": "Exists"}]), Fate::Goes);
    check(json!([{"key": "a", "operator": "Exists"}, {"key": "b", "value": "y"}]), Fate::Goes);
    check(json!([{"key": "a", "operator": "Exists"}, {"key": "b", "value": "x", "effect": "NoExecute"}]), Fate::Stays);
    check(
        json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}, {"key": "b", "operator": "Exists", "tolerationSeconds": 30}]),
        Fate::GoesAt(at(40)),
    );
}

#[tokio::test]
async fn a_node_that_goes_while_it_is_looked_at_is_not_remembered() {
    let client = fake::client(&[]);
    let clock = Clock::fixed(at(0));
    let cx = Context {
        recorder: EventRecorder::new(&client, NAME, None, clock.clone()),
        clock,
        nodes: fake::informer(&client).await,
        leases: fake::informer(&client).await,
        pods: fake::informer(&client).await,
        client,
        probes: Mutex::default(),
        next_eviction: Mutex::new(Duration::ZERO),
    };
    // What a look leaves that began before the deletion was told.
    cx.probes.lock().unwrap().insert("n".to_owned(), Probe::new(&node(Some("True"), |_| {}), None, Duration::ZERO, at(0)));
    assert_eq!(reconcile(&cx, &ObjectKey::cluster("n")).await.unwrap(), Next::Wait);
    assert!(cx.probes.lock().unwrap().is_empty());
}
