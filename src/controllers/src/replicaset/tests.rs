use jiff::Timestamp;
use serde_json::json;

use super::*;

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn rs(replicas: i32, min_ready_seconds: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "rs", "generation": 3},
        "spec": {"replicas": replicas, "minReadySeconds": min_ready_seconds, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web", "v": "1"}}, "spec": {"containers": []}}},
    }))
    .unwrap()
}

fn pod(name: &str, ready_for: Option<i64>) -> Arc<Pod> {
    let since = Timestamp::from_second(NOW - ready_for.unwrap_or(0)).unwrap().to_string();
    let status = if ready_for.is_some() { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "labels": {"app": "web", "v": if name == "old" { "0" } else { "1" }}},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]},
        }))
        .unwrap(),
    )
}

#[track_caller]
fn check(replicas: i32, pods: &[Arc<Pod>], may_act: bool, expect: &str) {
    let told = match plan(&rs(replicas, 0), pods, pods, may_act, now()) {
        Action::None => "nothing".to_owned(),
        Action::Create(n) => format!("create {n}"),
        Action::Delete(pods) => format!("delete {}", pods.iter().map(|p| p.name()).collect::<Vec<_>>().join(" ")),
    };
    assert_eq!(told, expect);
}

#[test]
fn the_difference_is_created_or_deleted_and_nothing_while_expectations_are_open() {
    let pods = [pod("a", Some(9)), pod("b", None), pod("c", Some(9))];
    check(5, &pods, true, "create 2");
    check(3, &pods, true, "nothing");
    check(2, &pods, true, "delete b");
    check(0, &pods, true, "delete a b c");
    check(0, &pods, false, "nothing");
    check(9, &pods, false, "nothing");
}

#[test]
fn status_counts_ready_available_and_fully_labelled_pods_and_says_when_it_will_change() {
    let pods = [pod("a", Some(20)), pod("old", Some(4)), pod("c", None)];
    let (status, next) = status(&rs(3, 10), &pods, 2, None, now());
    assert_eq!(status.replicas, 3);
    assert_eq!(status.ready_replicas, Some(2));
    assert_eq!(status.available_replicas, Some(1));
    assert_eq!(status.fully_labeled_replicas, Some(2));
    assert_eq!(status.terminating_replicas, Some(2));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(next, Next::After(Duration::from_secs(6) + SLACK));
}

#[test]
fn a_failure_becomes_a_condition_that_stays_until_success() {
    let failure = Failure::Unusable("quota".to_owned());
    let mut rs = rs(3, 0);
    let (failed, _) = status(&rs, &[], 0, Some(&failure), now());
    let condition = &failed.conditions.as_ref().unwrap()[0];
    assert_eq!((condition.reason.as_deref(), condition.message.as_deref()), (Some("FailedCreate"), Some("quota")));
    rs.status = Some(failed);
    let (healed, _) = status(&rs, &[], 0, None, now());
    assert_eq!(healed.conditions, None);
}
