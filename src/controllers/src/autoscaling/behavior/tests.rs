use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

const WINDOW: Duration = Duration::from_secs(300);

fn wish(current: i32, desired: i32) -> Wish {
    Wish { current, desired, min: 1, max: 100 }
}

fn shown(bounded: &Bounded) -> (i32, &'static str, &'static str) {
    (bounded.replicas, bounded.able.0, bounded.limited.1.0)
}

#[test]
fn without_rules_it_doubles_at_most_and_shrinks_after_the_window() {
    let mut history = History::default();
    history.begin(3, at(0));
    assert_eq!(shown(&history.bound(wish(3, 20), WINDOW, at(1))), (6, "ReadyForNewScale", "ScaleUpLimit"));
    assert_eq!(shown(&history.bound(wish(1, 9), WINDOW, at(2))), (4, "ScaleDownStabilized", "ScaleUpLimit"));
    // 20 was recommended within the window.
    assert_eq!(shown(&history.bound(Wish { max: 10, ..wish(10, 2) }, WINDOW, at(299))), (10, "ScaleDownStabilized", "TooManyReplicas"));
    assert_eq!(shown(&history.bound(wish(10, 2), WINDOW, at(303))), (2, "ReadyForNewScale", "DesiredWithinRange"));
    assert_eq!(shown(&History::default().bound(Wish { min: 3, ..wish(5, 1) }, WINDOW, at(0))), (3, "ReadyForNewScale", "TooFewReplicas"));
}

fn rules(up: serde_json::Value, down: serde_json::Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(json!({"scaleUp": up, "scaleDown": down})).unwrap()
}

fn policy(kind: &str, value: i32, period: i32) -> serde_json::Value {
    json!({"type": kind, "value": value, "periodSeconds": period})
}

#[test]
fn policies_bound_the_change_of_their_period() {
    let both = json!([policy("Pods", 4, 60), policy("Percent", 100, 60)]);
    let up = |select: &str| json!({"selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": both});
    let down = |select: &str| json!({"selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": [policy("Pods", 2, 60), policy("Percent", 50, 60)]});
    #[track_caller]
    fn check(behavior: &HorizontalPodAutoscalerBehavior, wish: Wish, expect: (i32, &'static str, &'static str)) {
        assert_eq!(shown(&History::default().bound_by(behavior, wish, WINDOW, at(0))), expect);
    }
    check(&rules(up("Max"), down("Max")), wish(10, 50), (20, "ReadyForNewScale", "ScaleUpLimit"));
    check(&rules(up("Min"), down("Max")), wish(10, 50), (14, "ReadyForNewScale", "ScaleUpLimit"));
    check(&rules(up("Disabled"), down("Max")), wish(10, 50), (10, "ReadyForNewScale", "ScaleUpLimit"));
    check(&rules(up("Max"), down("Max")), wish(10, 1), (5, "ReadyForNewScale", "ScaleDownLimit"));
    check(&rules(up("Max"), down("Min")), wish(10, 1), (8, "ReadyForNewScale", "ScaleDownLimit"));
    check(&rules(up("Max"), down("Disabled")), wish(10, 1), (10, "ReadyForNewScale", "ScaleDownLimit"));
    check(&rules(up("Max"), down("Max")), Wish { max: 12, ..wish(10, 50) }, (12, "ReadyForNewScale", "TooManyReplicas"));
    check(&rules(up("Max"), down("Max")), Wish { min: 9, ..wish(10, 1) }, (9, "ReadyForNewScale", "TooFewReplicas"));
}

#[test]
fn what_was_done_in_the_period_counts() {
    let behavior = rules(json!({"stabilizationWindowSeconds": 0, "policies": [policy("Pods", 4, 60)]}), json!({"stabilizationWindowSeconds": 0, "policies": [policy("Pods", 3, 60)]}));
    let mut history = History::default();
    history.rescaled(Some(&behavior), 10, 13, at(0));
    assert_eq!(shown(&history.bound_by(&behavior, wish(13, 50), WINDOW, at(30))).0, 14);
    assert_eq!(shown(&history.bound_by(&behavior, wish(13, 50), WINDOW, at(61))).0, 17);
    history.rescaled(Some(&behavior), 17, 15, at(62));
    assert_eq!(shown(&history.bound_by(&behavior, wish(15, 1), WINDOW, at(70))).0, 14);
}

#[test]
fn windows_keep_it_between_the_lowest_and_the_highest_of_late() {
    let free = |window: i32| json!({"stabilizationWindowSeconds": window, "policies": [policy("Percent", 1000, 1)]});
    let behavior = rules(free(60), free(120));
    let mut history = History::default();
    history.begin(10, at(0));
    assert_eq!(shown(&history.bound_by(&behavior, wish(10, 20), WINDOW, at(10))), (10, "ScaleUpStabilized", "DesiredWithinRange"));
    assert_eq!(shown(&history.bound_by(&behavior, wish(10, 20), WINDOW, at(61))), (20, "ReadyForNewScale", "DesiredWithinRange"));
    assert_eq!(shown(&history.bound_by(&behavior, wish(20, 5), WINDOW, at(80))), (20, "ScaleDownStabilized", "DesiredWithinRange"));
    assert_eq!(shown(&history.bound_by(&behavior, wish(20, 5), WINDOW, at(182))).0, 5);
}

#[test]
fn a_history_does_not_grow_beyond_its_windows() {
    let mut history = History::default();
    for second in 0..10_000 {
        history.bound(wish(3, 3), WINDOW, at(second * 15));
    }
    assert!(history.recommendations.len() <= 22, "{}", history.recommendations.len());
}
