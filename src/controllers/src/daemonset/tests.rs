use std::time::Duration;

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;
const HASH: &str = "new";

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// `strategy` is the rolling update; null for OnDelete. `change` is merged over the rest.
fn set(strategy: Value, change: impl FnOnce(&mut Value)) -> DaemonSet {
    let kind = if strategy.is_null() { "OnDelete" } else { "RollingUpdate" };
    let mut value = json!({
        "metadata": {"name": "ds", "namespace": "default", "uid": "ds", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "ds"}}, "minReadySeconds": 5,
            "updateStrategy": {"type": kind, "rollingUpdate": strategy},
            "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"containers": []}}},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, taints: Value) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": {"taints": taints}})).unwrap(),
    )
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names.iter().map(|n| node(n, json!([]))).collect()
}

/// `text` is `NAME@NODE STATE`, where the state is new or old, then ready, young (ready for too short), unready, failed,
/// done or gone (being deleted).
fn pod(text: &str) -> Arc<Pod> {
    let (place, state) = text.split_once(' ').unwrap();
    let (name, node) = place.split_once('@').unwrap();
    let (age, state) = state.split_once(' ').unwrap();
    let phase = match state {
        "failed" => "Failed",
        "done" => "Succeeded",
        _ => "Running",
    };
    let since = Timestamp::from_second(NOW - if state == "young" { 2 } else { 60 }).unwrap().to_string();
    let created = Timestamp::from_second(NOW - if age == "old" { 900 } else { 90 }).unwrap().to_string();
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "namespace": "default", "creationTimestamp": created,
            "labels": {"app": "ds", "controller-revision-hash": if age == "new" { HASH } else { "old" }}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "lastTransitionTime": since,
            "status": if matches!(state, "ready" | "young") { "True" } else { "False" }}]},
    });
    if state == "gone" {
        pod["metadata"]["deletionTimestamp"] = since.into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn by_node(pods: &[&str]) -> NodePods {
    let mut by_node = NodePods::new();
    for pod in pods.iter().map(|text| pod(text)) {
        by_node.entry(nodes::target(&pod).unwrap().to_owned()).or_default().push(pod);
    }
    by_node
}

fn told(changes: &Changes) -> String {
    let create = changes.create_on.iter().map(|n| format!("+{n}"));
    let delete = changes.delete.iter().map(|p| format!("-{}", p.name()));
    create.chain(delete).collect::<Vec<_>>().join(" ")
}

fn unavailable(n: i32) -> Value {
    json!({"maxUnavailable": n, "maxSurge": 0})
}

fn surge(n: i32) -> Value {
    json!({"maxUnavailable": 0, "maxSurge": n})
}

#[track_caller]
fn check_manage(strategy: Value, names: &[&str], pods: &[&str], expect: &str) {
    let plan = manage(&set(strategy, |_| {}), &nodes(names), &by_node(pods), HASH, &|_| None, now());
    assert_eq!(told(&plan.changes), expect);
}

#[track_caller]
fn check_rolling(strategy: Value, names: &[&str], pods: &[&str], expect: &str) {
    assert_eq!(told(&rolling::plan(&set(strategy, |_| {}), &nodes(names), by_node(pods), HASH, now())), expect);
}

#[test]
fn every_fitting_node_gets_one_pod_and_keeps_its_oldest() {
    check_manage(unavailable(1), &["a", "b"], &[], "+a +b");
    check_manage(unavailable(1), &["a", "b"], &["x@a new ready"], "+b");
    check_manage(unavailable(1), &["a"], &["x@a new ready", "y@a old ready", "z@a new gone"], "-x");
    check_manage(unavailable(1), &["a"], &["x@a new gone"], "");
}

#[test]
fn ended_pods_are_deleted_failed_ones_with_back_off() {
    check_manage(unavailable(1), &["a", "b"], &["x@a new failed", "y@b new done"], "-x -y");
    let pods = by_node(&["x@a new failed", "y@b new done"]);
    let wait = Duration::from_secs(3);
    let plan = manage(&set(unavailable(1), |_| {}), &nodes(&["a", "b"]), &pods, HASH, &|_| Some(wait), now());
    assert_eq!((told(&plan.changes).as_str(), plan.next), ("-y", Next::After(wait)));
}

#[test]
fn surging_keeps_two_pods_only_while_the_new_one_is_not_available() {
    check_manage(surge(1), &["a"], &["x@a old ready", "y@a new unready"], "");
    check_manage(surge(1), &["a"], &["x@a old ready", "y@a new young"], "");
    check_manage(surge(1), &["a"], &["x@a old ready", "y@a new ready"], "-x");
    check_manage(surge(1), &["a"], &["x@a old unready", "y@a new unready"], "-x");
    check_manage(surge(1), &["a"], &["x@a new gone"], "+a");
}

#[test]
fn pods_leave_nodes_that_do_not_fit_and_nodes_that_are_gone() {
    let elsewhere = |ds: &mut Value| ds["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "b"});
    let ds = set(unavailable(1), elsewhere);
    let plan = manage(&ds, &nodes(&["a", "b"]), &by_node(&["x@a new ready"]), HASH, &|_| None, now());
    assert_eq!(told(&plan.changes), "+b -x");
    let mut waiting = (*pod("w@- new unready")).clone();
    waiting.spec.as_mut().unwrap().node_name = None;
    nodes::pin(&mut waiting, "gone");
    let pods = NodePods::from([("gone".to_owned(), vec![Arc::new(waiting)])]);
    let plan = manage(&ds, &nodes(&["b"]), &pods, HASH, &|_| None, now());
    assert_eq!(told(&plan.changes), "+b -w");
}

#[test]
fn taints_keep_pods_away_unless_they_tell_of_the_nodes_own_troubles() {
    let judge = |taints: Value| Fit::new(&set(Value::Null, |_| {})).judge(&node("a", taints));
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
    assert_eq!(judge(json!([])), Eligibility::Runs);
    assert_eq!(judge(taint("dedicated", "NoSchedule")), Eligibility::Stays);
    assert_eq!(judge(taint("dedicated", "NoExecute")), Eligibility::Goes);
    assert_eq!(judge(taint("dedicated", "PreferNoSchedule")), Eligibility::Runs);
    assert_eq!(judge(taint("node.kubernetes.io/not-ready", "NoExecute")), Eligibility::Runs);
    assert_eq!(judge(taint("node.kubernetes.io/unschedulable", "NoSchedule")), Eligibility::Runs);
    assert_eq!(judge(taint("node.kubernetes.io/network-unavailable", "NoSchedule")), Eligibility::Stays);
}

#[test]
fn a_rollout_deletes_what_may_be_missing_and_first_what_is_missing_already() {
    let three = ["a", "b", "c"];
    check_rolling(unavailable(1), &three, &["x@a old ready", "y@b old ready", "z@c old ready"], "-x");
    check_rolling(unavailable(2), &three, &["x@a old ready", "y@b old ready", "z@c old ready"], "-x -y");
    check_rolling(unavailable(1), &three, &["x@a old ready", "y@b old unready", "z@c old ready"], "-y");
    check_rolling(unavailable(1), &three, &["x@a new young", "y@b old ready", "z@c old ready"], "");
    check_rolling(unavailable(1), &three, &["x@a new ready", "y@b old ready", "z@c old ready"], "-y");
    // No pod on c: that one is unavailable.
    check_rolling(unavailable(1), &three, &["x@a new ready", "y@b old ready"], "");
    check_rolling(json!({"maxUnavailable": 0, "maxSurge": 0}), &["a"], &["x@a old ready"], "-x");
}

#[test]
fn a_surging_rollout_creates_before_it_deletes() {
    let two = ["a", "b"];
    check_rolling(surge(1), &two, &["x@a old ready", "y@b old ready"], "+a");
    check_rolling(surge(1), &two, &["x@a old ready", "n@a new unready", "y@b old ready"], "");
    check_rolling(surge(1), &two, &["x@a old ready", "n@a new ready", "y@b old ready"], "+b -x");
    check_rolling(surge(1), &two, &["x@a old unready", "y@b old ready"], "+a +b");
    // The node of y does not fit any more: y goes once enough others are available.
    check_rolling(surge(1), &["a"], &["x@a new ready", "y@b old ready"], "-y");
    check_rolling(surge(1), &["a"], &["x@a new unready", "y@b old ready"], "");
}

#[test]
fn counts_say_what_is_scheduled_updated_available_and_out_of_place() {
    let elsewhere = |ds: &mut Value| ds["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["d"]}]}]}}});
    let pods = by_node(&["x@a new ready", "y@b old young", "z@d old ready"]);
    let all = nodes(&["a", "b", "c", "d"]);
    let (status, next) = status::count(&set(unavailable(1), elsewhere), &all, &pods, HASH, Some(2), now());
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_ready), (3, 2, 2));
    assert_eq!((status.number_available, status.number_unavailable), (Some(1), Some(2)));
    assert_eq!((status.updated_number_scheduled, status.number_misscheduled), (Some(1), 1));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(next, Next::After(Duration::from_millis(3020)));
}

#[test]
fn new_pods_carry_hash_tolerations_and_their_node() {
    let ds = set(unavailable(1), |ds| {
        ds["metadata"]["annotations"] = json!({"deprecated.daemonset.template.generation": "4"});
        ds["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    });
    let template = nodes::pod_template(&ds, HASH);
    let mut pod = pods::from_template(&template, "default", "ds", controller_reference(&ds));
    nodes::pin(&mut pod, "a");
    assert_eq!((pod.label("controller-revision-hash"), pod.label("pod-template-generation")), (Some(HASH), Some("4")));
    assert_eq!(nodes::target(&pod), Some("a"));
    assert!(nodes::is_updated(&ds, &pod, "other") && nodes::is_updated(&ds, &pod, HASH));
    let tolerations = pod.spec.unwrap().tolerations.unwrap();
    assert_eq!(tolerations.len(), 7);
    assert_eq!(tolerations[6].key.as_deref(), Some("node.kubernetes.io/network-unavailable"));
}

#[test]
fn revisions_beyond_the_limit_go_unless_a_pod_is_of_them() {
    let ds = set(unavailable(1), |ds| ds["spec"]["revisionHistoryLimit"] = 1.into());
    let revision = |n: i64, hash: &str| {
        Arc::new(serde_json::from_value::<ControllerRevision>(json!({"metadata": {"name": hash,
            "labels": {"controller-revision-hash": hash}}, "revision": n})).unwrap())
    };
    let old = [revision(3, "c"), revision(1, "old"), revision(2, "b")];
    let names = |pods: &[&str]| history::surplus(&ds, &old, &by_node(pods)).iter().map(|r| r.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&[]), ["old", "b"]);
    assert_eq!(names(&["x@a old gone"]), ["b", "c"]);
}
