use std::collections::BTreeMap;

use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::Step;
use super::revisions::{Known, Revisions, known};
use super::*;
use crate::history;

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// A set `db` with its template's image `new`; `change` is merged over it.
fn set(replicas: i32, change: impl FnOnce(&mut Value)) -> StatefulSet {
    let mut value = json!({
        "metadata": {"name": "db", "namespace": "default", "uid": "set", "generation": 2},
        "spec": {"replicas": replicas, "serviceName": "svc", "selector": {"matchLabels": {"app": "db"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}}},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn parallel(set: &mut Value) {
    set["spec"]["podManagementPolicy"] = "Parallel".into();
}

fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
    let of = set(1, |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
    let mut revision = history::new_revision(&of, &of.spec.template, number, 0);
    revision.metadata.name = Some(image.to_owned());
    Arc::new(revision)
}

fn revisions() -> Revisions {
    Revisions { current: revision("old", 1), update: revision("new", 2), collision_count: 0 }
}

/// `text` is `ORDINAL REVISION STATE`; the state is ready, young, pending, unready, failed or gone (being deleted).
fn pod(text: &str) -> Arc<Pod> {
    let [ordinal, revision, state] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("three words: {text}") };
    let name = format!("db-{ordinal}");
    let since = Timestamp::from_second(NOW - if state == "young" { 2 } else { 60 }).unwrap().to_string();
    let phase = match state {
        "failed" => "Failed",
        "pending" => "Pending",
        _ => "Running",
    };
    let ready = if matches!(state, "ready" | "young" | "gone") { "True" } else { "False" };
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "namespace": "default", "labels": {"app": "db",
            "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name}},
        "spec": {"containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    });
    if state == "gone" {
        pod["metadata"]["deletionTimestamp"] = since.into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn told(plan: &Plan) -> String {
    let word = |step: &Step| match step {
        Step::Create(pod) => format!("create {} {}", pod.name(), identity::revision(pod)),
        Step::Delete(pod) => format!("delete {}", pod.name()),
        Step::MakeClaims(pod) => format!("claims {}", pod.name()),
        Step::Repair(pod) => format!("repair {}", pod.name()),
        Step::OwnClaims(pod) => format!("own {}", pod.name()),
    };
    plan.phases.iter().flat_map(|p| p.work.iter().flatten()).map(word).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(set: &StatefulSet, pods: &[&str], expect: &str) -> Plan {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let plan = plan(set, &pods, &revisions(), &|_| None, now()).unwrap();
    assert_eq!(told(&plan), expect);
    plan
}

#[test]
fn pods_come_one_after_another_and_each_waits_for_the_one_before() {
    let set = set(3, |s| s["spec"]["minReadySeconds"] = 5.into());
    check(&set, &[], "create db-0 new");
    check(&set, &["0 new pending"], "");
    check(&set, &["0 new young"], "");
    check(&set, &["0 new ready"], "create db-1 new");
    check(&set, &["0 new ready", "1 new gone"], "");
    check(&set, &["0 new ready", "1 new ready", "2 new ready"], "");
}

#[test]
fn in_parallel_all_come_and_go_at_once() {
    check(&set(3, parallel), &[], "create db-0 new, create db-1 new, create db-2 new");
    check(&set(1, parallel), &["0 new ready", "1 new unready", "2 new ready"], "delete db-2, delete db-1");
}

#[test]
fn ended_pods_are_deleted_and_come_again() {
    check(&set(2, |_| {}), &["0 new failed", "1 new ready"], "delete db-0");
    check(&set(2, parallel), &["0 new failed"], "delete db-0, create db-1 new");
}

#[test]
fn ordinals_begin_where_the_set_says() {
    let shifted = |s: &mut Value| s["spec"]["ordinals"] = json!({"start": 5});
    check(&set(2, shifted), &[], "create db-5 new");
    check(&set(2, shifted), &["5 new ready", "6 new ready", "0 new ready"], "delete db-0");
}

#[test]
fn a_set_shrinks_from_the_top_and_waits_for_the_unhealthy() {
    let one = set(1, |_| {});
    check(&one, &["0 new ready", "1 new ready", "2 new ready"], "delete db-2");
    check(&one, &["0 new ready", "1 new ready", "2 new gone"], "");
    // The first that is not well is 1, so 2 goes first only if it is well.
    check(&one, &["0 new ready", "1 new unready", "2 new unready"], "");
    check(&one, &["0 new ready", "1 new unready", "2 new ready"], "delete db-2");
    check(&one, &["0 new ready", "1 new unready"], "delete db-1");
    check(&one, &["0 new unready", "1 new ready"], "");
}

#[test]
fn an_update_goes_down_to_the_partition_one_pod_at_a_time() {
    let plan = check(&set(3, |_| {}), &["0 old ready", "1 old ready", "2 old ready"], "delete db-2");
    assert_eq!((plan.status.current_replicas, plan.status.updated_replicas), (Some(2), Some(0)));
    check(&set(3, |_| {}), &["0 old ready", "1 old ready", "2 new unready"], "");
    check(&set(3, |_| {}), &["0 old ready", "1 old ready", "2 new ready"], "delete db-1");
    let canary = |s: &mut Value| s["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 2.into();
    check(&set(3, canary), &["0 old ready", "1 old ready", "2 new ready"], "");
    // Below the partition, a lost pod comes back as it was.
    check(&set(3, canary), &["0 old ready", "2 new ready"], "create db-1 old");
    let on_delete = |s: &mut Value| s["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    check(&set(3, on_delete), &["0 old ready", "1 old ready", "2 old ready"], "");
}

#[test]
fn several_may_be_missing_at_a_time() {
    let two = |s: &mut Value| s["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = 2.into();
    let old = ["0 old ready", "1 old ready", "2 old ready", "3 old ready"];
    check(&set(4, two), &old, "delete db-3, delete db-2");
    check(&set(4, two), &["0 old ready", "1 old ready", "2 old ready", "3 new ready"], "delete db-2, delete db-1");
    let both = |s: &mut Value| {
        two(s);
        parallel(s);
    };
    // What serves nobody goes beside the budget.
    check(&set(4, both), &["0 old unready", "1 old ready", "2 old ready", "3 old ready"], "delete db-0, delete db-3");
    check(&set(4, both), &["0 old unready", "1 old unready", "2 old ready", "3 old ready"], "delete db-1, delete db-0");
}

#[test]
fn a_set_under_deletion_only_counts() {
    let going = |s: &mut Value| s["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let plan = check(&set(3, going), &["0 new ready", "1 old unready"], "");
    assert_eq!((plan.status.replicas, plan.status.ready_replicas), (2, Some(1)));
}

#[test]
fn an_update_is_complete_when_all_pods_are_new_and_ready() {
    let plan = check(&set(2, |_| {}), &["0 new ready", "1 new ready"], "");
    assert_eq!(plan.status.current_revision.as_deref(), Some("new"));
    assert_eq!(plan.status.current_replicas, Some(2));
    let plan = check(&set(2, |_| {}), &["0 old ready", "1 new ready"], "delete db-0");
    assert_eq!(plan.status.current_revision.as_deref(), Some("old"));
}

#[test]
fn a_new_pod_has_its_name_host_index_and_volumes() {
    let set = set(1, |s| {
        s["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        s["spec"]["template"]["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]);
    });
    let pod = identity::new_pod(&set, &set.spec.template, "new", 3);
    assert_eq!((pod.name(), pod.label("apps.kubernetes.io/pod-index")), ("db-3", Some("3")));
    assert_eq!(pod.label("controller-revision-hash"), Some("new"));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-3"), Some("svc")));
    let volumes: Vec<_> = spec.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    assert_eq!(volumes, ["data", "tmp"]);
    assert_eq!(spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-3");
    assert!(identity::identity_matches(&set, &pod) && identity::storage_matches(&set, &pod));
}

#[test]
fn names_tell_the_parent_and_the_ordinal() {
    let of = |name: &str| {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        let (parent, ordinal) = identity::parent_and_ordinal(&pod);
        (parent.to_owned(), ordinal)
    };
    assert_eq!(of("my-db-12"), ("my-db".to_owned(), Some(12)));
    assert_eq!(of("db-x"), (String::new(), None));
    assert_eq!(of("db-99999999999"), ("db".to_owned(), None));
}

#[test]
fn the_present_template_is_the_newest_an_older_or_no_revision() {
    let set = set(1, |_| {});
    assert_eq!(known(&set, &[revision("old", 1), revision("new", 2)]), Known::Newest("new".into()));
    assert_eq!(known(&set, &[revision("new", 1), revision("old", 2)]), Known::Older("new".into()));
    assert_eq!(known(&set, &[revision("old", 2)]), Known::Not);
    assert_eq!(known(&set, &[]), Known::Not);
}

/// The owners of `db-0`'s or `db-9`'s claim under a policy: those it has, and those it shall have.
#[track_caller]
fn check_owners(policy: (&str, &str), ordinal: i32, has: &[(&str, &str)], expect: Option<&str>) {
    let set = set(1, |s| {
        s["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": policy.0, "whenScaled": policy.1})
    });
    let pod = pod(&format!("{ordinal} new ready"));
    let mut claim = PersistentVolumeClaim::default();
    let reference = |(kind, uid): &(&str, &str)| OwnerReference {
        api_version: if *kind == "Pod" { "v1" } else { "apps/v1" }.to_owned(),
        kind: (*kind).to_owned(),
        name: if *kind == "Pod" { pod.name() } else { "db" }.to_owned(),
        uid: (*uid).to_owned(),
        controller: Some(true),
        ..Default::default()
    };
    claim.metadata.owner_references = Some(has.iter().map(reference).collect());
    let wanted = match claims::is_up_to_date(&claim, &set, &pod) {
        true => None,
        false => Some(claims::owners(&claim, &set, &pod).iter().map(|r| r.kind.clone()).collect::<Vec<_>>().join(" ")),
    };
    assert_eq!(wanted.as_deref(), expect);
}

#[test]
fn claims_belong_to_whom_the_retention_policy_says() {
    check_owners(("Retain", "Retain"), 0, &[], None);
    check_owners(("Retain", "Retain"), 0, &[("StatefulSet", "set")], Some(""));
    check_owners(("Delete", "Retain"), 0, &[], Some("StatefulSet"));
    check_owners(("Delete", "Retain"), 9, &[("StatefulSet", "set")], None);
    check_owners(("Retain", "Delete"), 0, &[], None);
    check_owners(("Retain", "Delete"), 9, &[], Some("Pod"));
    check_owners(("Delete", "Delete"), 0, &[], Some("StatefulSet"));
    check_owners(("Delete", "Delete"), 9, &[("StatefulSet", "set")], Some("Pod"));
    check_owners(("Delete", "Delete"), 9, &[("Pod", "db-9")], None);
    // Of an earlier set, or of somebody else: not touched.
    check_owners(("Delete", "Delete"), 0, &[("StatefulSet", "earlier")], None);
    check_owners(("Delete", "Retain"), 0, &[("Database", "x")], None);
    check_owners(("Delete", "Retain"), 0, &[("Database", "x"), ("StatefulSet", "set")], Some("Database"));
}

#[test]
fn a_claim_of_an_earlier_pod_holds_back_the_new_one() {
    let set = set(1, |s| {
        s["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        s["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete"});
    });
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": "data-db-0", "ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "earlier", "controller": true}]}}))
    .unwrap();
    let claims = BTreeMap::from([("data-db-0".to_owned(), Arc::new(claim))]);
    let with = |find: plan::FindClaim| told(&plan(&set, &[], &revisions(), find, now()).unwrap());
    assert_eq!(with(&|name| claims.get(name).cloned()), "");
    assert_eq!(with(&|_| None), "create db-0 new");
}
