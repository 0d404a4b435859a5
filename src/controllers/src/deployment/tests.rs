use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A Deployment `web` whose template has image `image`; `change` is merged over it.
fn deployment(replicas: i32, image: &str, change: impl FnOnce(&mut Value)) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 2},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// A ReplicaSet of an earlier state of that Deployment, with `available` of its `replicas` available.
fn set(image: &str, age: i64, revision: i32, replicas: i32, available: i32, desired: i32) -> Arc<ReplicaSet> {
    let of = deployment(desired, image, |_| {});
    let name = format!("web-{image}");
    let mut rs: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1,
            "creationTimestamp": at(-age).to_string(),
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": desired.to_string(),
                "deployment.kubernetes.io/max-replicas": (desired + numbers::max_surge(&of)).to_string()}},
        "spec": {"replicas": replicas, "selector": {}, "template": of.spec.template},
        "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
    }))
    .unwrap();
    rs.spec.template.as_mut().unwrap().metadata.as_mut().unwrap().labels.as_mut().unwrap()
        .insert("pod-template-hash".to_owned(), "x".to_owned());
    Arc::new(rs)
}

/// What the plan does, in words.
fn told(plan: &Plan) -> String {
    let word = |set: &Set| match &set.original {
        None => Some(format!("create with {}", set.rs.spec.replicas.unwrap())),
        Some(_) if set.delete => Some(format!("delete {}", set.rs.name())),
        Some(old) if old.spec.replicas != set.rs.spec.replicas => {
            Some(format!("{} to {}", set.rs.name(), set.rs.spec.replicas.unwrap()))
        }
        Some(_) => None,
    };
    plan.sets.iter().filter_map(word).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(d: &Deployment, sets: &[Arc<ReplicaSet>], expect: &str) -> Plan {
    let plan = plan(d, sets, &[], at(0));
    assert_eq!(told(&plan), expect);
    plan
}

fn reason<'a>(status: &'a DeploymentStatus, kind: &str) -> &'a str {
    status::find(status, kind).and_then(|c| c.reason.as_deref()).unwrap_or_default()
}

#[test]
fn a_first_set_is_made_whole_with_the_hash_in_name_labels_and_selector() {
    let plan = check(&deployment(3, "a", |_| {}), &[], "create with 3");
    let rs = &plan.sets[0].rs;
    let hash = rs.label("pod-template-hash").unwrap();
    assert_eq!(rs.name(), format!("web-{hash}"));
    assert_eq!(rs.spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(rs.annotation("deployment.kubernetes.io/max-replicas"), Some("4"));
    assert_eq!(plan.revision.as_deref(), Some("1"));
    assert_eq!(reason(&plan.status, "Progressing"), "NewReplicaSetCreated");
    assert_eq!(reason(&plan.status, "Available"), "MinimumReplicasUnavailable");
}

#[test]
fn the_hash_depends_on_template_and_collisions_and_on_nothing_else() {
    let hash = |d: &Deployment, n| crate::template::hash(&d.spec.template, n);
    let a = deployment(3, "a", |_| {});
    assert_eq!(hash(&a, None), hash(&deployment(9, "a", |d| d["metadata"]["name"] = "x".into()), None));
    assert_ne!(hash(&a, None), hash(&deployment(3, "b", |_| {}), None));
    assert_ne!(hash(&a, None), hash(&a, Some(1)));
}

#[test]
fn a_rollout_grows_within_the_surge_and_shrinks_by_what_may_be_missing() {
    let d = deployment(4, "b", |_| {});
    check(&d, &[set("a", 9, 1, 4, 4, 4)], "create with 1");
    // One new pod not available yet: one old one may be missing.
    check(&d, &[set("a", 9, 1, 4, 4, 4), set("b", 1, 2, 1, 0, 4)], "web-a to 3");
    check(&d, &[set("a", 9, 1, 3, 3, 4), set("b", 1, 2, 1, 0, 4)], "web-b to 2");
    check(&d, &[set("a", 9, 1, 3, 3, 4), set("b", 1, 2, 2, 0, 4)], "");
    check(&d, &[set("a", 9, 1, 3, 3, 4), set("b", 1, 2, 2, 2, 4)], "web-a to 1");
    check(&d, &[set("a", 9, 1, 0, 0, 4), set("b", 1, 2, 4, 4, 4)], "");
}

#[test]
fn unhealthy_old_pods_go_first() {
    let d = deployment(4, "c", |_| {});
    let sets = [set("a", 9, 1, 2, 2, 4), set("b", 5, 2, 2, 0, 4), set("c", 1, 3, 1, 1, 4)];
    check(&d, &sets, "web-b to 0");
}

#[test]
fn both_fenceposts_zero_still_moves() {
    let d = deployment(1, "b", |d| d["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 0, "maxUnavailable": "10%"}));
    check(&d, &[set("a", 9, 1, 1, 1, 1)], "create with 0");
    check(&d, &[set("a", 9, 1, 1, 1, 1), set("b", 1, 2, 0, 0, 1)], "web-a to 0");
}

#[test]
fn a_change_of_size_in_mid_rollout_is_shared_by_size() {
    let d = deployment(20, "b", |_| {});
    // 10 wanted, 13 at most: 8 old and 5 new; now 25 at most.
    let plan = check(&d, &[set("a", 9, 1, 8, 8, 10), set("b", 1, 2, 5, 5, 10)], "web-a to 15, web-b to 10");
    assert_eq!(plan.sets[0].rs.annotation("deployment.kubernetes.io/desired-replicas"), Some("20"));
    check(&deployment(0, "b", |_| {}), &[set("a", 9, 1, 8, 8, 10), set("b", 1, 2, 5, 5, 10)], "web-a to 0, web-b to 0");
    check(&deployment(5, "a", |_| {}), &[set("a", 9, 1, 3, 3, 3)], "web-a to 5");
}

#[test]
fn paused_scales_but_does_not_roll() {
    let paused = |d: &mut Value| d["spec"]["paused"] = true.into();
    let plan = check(&deployment(4, "b", paused), &[set("a", 9, 1, 4, 4, 4)], "");
    assert_eq!(reason(&plan.status, "Progressing"), "DeploymentPaused");
    check(&deployment(6, "b", paused), &[set("a", 9, 1, 4, 4, 4)], "web-a to 6");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let d = deployment(3, "b", |d| d["spec"]["strategy"] = json!({"type": "Recreate"}));
    check(&d, &[set("a", 9, 1, 3, 3, 3)], "web-a to 0");
    let old = set("a", 9, 1, 0, 0, 3);
    let mut pod = Pod::default();
    pod.metadata.owner_references = Some(vec![crate::ownership::controller_reference(&*old)]);
    assert_eq!(told(&plan(&d, &[old.clone()], &[Arc::new(pod)], at(0))), "");
    check(&d, &[old], "create with 3");
}

#[test]
fn a_finished_rollout_says_so_and_keeps_only_its_history() {
    let done = json!({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2, "observedGeneration": 2});
    let d = deployment(2, "d", |d| {
        d["status"] = done;
        d["spec"]["revisionHistoryLimit"] = 1.into();
    });
    let sets = [set("a", 9, 1, 0, 0, 2), set("b", 8, 2, 0, 0, 2), set("c", 7, 3, 0, 0, 2), set("d", 6, 4, 2, 2, 2)];
    let plan = check(&d, &sets, "delete web-a, delete web-b");
    assert_eq!(reason(&plan.status, "Progressing"), "NewReplicaSetAvailable");
    assert_eq!(plan.next, Next::Wait);
}

#[test]
fn going_back_gives_the_old_set_a_new_revision_and_a_history() {
    let d = deployment(2, "a", |_| {});
    let plan = check(&d, &[set("a", 9, 1, 0, 0, 2), set("b", 5, 2, 2, 2, 2)], "web-a to 1");
    assert_eq!(plan.revision.as_deref(), Some("3"));
    assert_eq!(plan.sets[0].rs.annotation("deployment.kubernetes.io/revision-history"), Some("1"));
}

#[test]
fn a_rollout_that_stands_still_times_out_after_its_deadline() {
    let progressing = |age: i64| {
        deployment(2, "a", |d| {
            d["status"] = json!({"replicas": 2, "updatedReplicas": 2, "conditions": [{"type": "Progressing", "status": "True",
                "reason": "ReplicaSetUpdated", "lastUpdateTime": at(-age).to_string(), "lastTransitionTime": at(-age).to_string()}]})
        })
    };
    let sets = [set("a", 9, 1, 2, 0, 2)];
    let early = check(&progressing(500), &sets, "");
    assert_eq!(reason(&early.status, "Progressing"), "ReplicaSetUpdated");
    assert_eq!(early.next, Next::After(std::time::Duration::from_secs(101)));
    let late = check(&progressing(601), &sets, "");
    assert_eq!(reason(&late.status, "Progressing"), "ProgressDeadlineExceeded");
    assert_eq!(late.next, Next::Wait);
}
