use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::fake;

const NOW: i64 = 1_000_000;

fn at(age: i64) -> String {
    Timestamp::from_second(NOW - age).unwrap().to_string()
}

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({"parallelism": 2, "completions": 3, "backoffLimit": 6, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c"}]}}, "selector": {}});
    merge(&mut whole, spec);
    let meta = json!({"name": "j", "namespace": "ns", "uid": "job", "generation": 1});
    serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": status})).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    let Value::Object(from) = from else { return };
    for (key, value) in from {
        match value {
            Value::Null => into.as_object_mut().unwrap().remove(&key),
            value => into.as_object_mut().unwrap().insert(key, value),
        };
    }
}

/// `name phase [index] [flags]`: `-` has no finalizer, `x` is being deleted, `=N` exited with N, `#N` has failed N times before.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let (name, phase) = (words.next().unwrap(), words.next().unwrap());
    let mut meta = json!({"name": name, "namespace": "ns", "uid": name, "creationTimestamp": at(100), "finalizers": [FINALIZER],
        "annotations": {}});
    let mut state = json!({"running": {}});
    for word in words {
        match word.split_at(1) {
            ("-", _) => meta["finalizers"] = json!([]),
            ("x", _) => meta["deletionTimestamp"] = at(0).into(),
            ("=", code) => state = json!({"terminated": {"exitCode": code.parse::<i32>().unwrap(), "finishedAt": at(1)}}),
            ("#", n) => meta["annotations"]["batch.kubernetes.io/job-index-failure-count"] = n.into(),
            _ => meta["annotations"][indexes::INDEX] = word.into(),
        }
    }
    let container = json!({"name": "c", "state": state, "image": "", "imageID": "", "ready": true, "restartCount": 0});
    let conditions = json!([{"type": "Ready", "status": if phase == "Running" { "True" } else { "False" }}]);
    let status = json!({"phase": phase, "containerStatuses": [container], "conditions": conditions});
    Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": {"nodeName": "n", "containers": []}, "status": status})).unwrap())
}

fn view(job: Job, pods: &[&str]) -> View {
    let now = Timestamp::from_second(NOW).unwrap();
    let pods = pods.iter().map(|p| pod(p)).collect();
    View { job, pods, released: HashSet::new(), backoff: Backoff::default(), may_act: true, now }
}

fn shown(action: &Action) -> String {
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| p.name()).collect::<Vec<_>>().join(" ");
    match action {
        Action::None => "none".to_owned(),
        Action::Finish(pods) => format!("finish {}", names(pods)).trim_end().to_owned(),
        Action::Delete(pods) => format!("delete {}", names(pods)).trim_end().to_owned(),
        Action::Wait(time) => format!("wait {}", time.as_secs()),
        Action::Create(indexes) => match indexes.iter().copied().collect::<Option<Vec<_>>>() {
            Some(indexes) => format!("create {indexes:?}"),
            None => format!("create {}", indexes.len()),
        },
    }
}

#[track_caller]
fn check(spec: Value, status: Value, pods: &[&str], expect: &str) {
    let view = view(job(spec, status), pods);
    assert_eq!(shown(&plan(&view, &assess(&view))), expect);
}

#[test]
fn as_many_pods_run_as_are_wanted_and_still_needed() {
    check(json!({}), json!({}), &[], "create 2");
    check(json!({}), json!({}), &["a Running"], "create 1");
    check(json!({}), json!({"succeeded": 2}), &[], "create 1");
    check(json!({}), json!({"succeeded": 1}), &["b Succeeded", "c Running"], "none");
    check(json!({}), json!({}), &["a Pending", "b Running", "c Running"], "delete a");
    check(json!({"completions": null}), json!({}), &["a Succeeded", "b Running"], "none");
    check(json!({"completions": null}), json!({}), &["b Running"], "create 1");
    check(json!({"suspend": true}), json!({}), &["a Running", "b Succeeded"], "delete a");
}

#[test]
fn a_terminating_pod_is_replaced_at_once_or_when_it_has_failed() {
    check(json!({"podReplacementPolicy": "TerminatingOrFailed", "parallelism": 1}), json!({}), &["a Running x - "], "create 1");
    check(json!({"podReplacementPolicy": "Failed", "parallelism": 1}), json!({}), &["a Running x"], "none");
    check(json!({"podReplacementPolicy": "Failed"}), json!({}), &["a Running x"], "create 1");
}

#[test]
fn a_failed_pod_is_replaced_after_a_while_and_too_many_end_the_job() {
    check(json!({}), json!({}), &["a Failed =1"], "wait 9");
    check(json!({}), json!({}), &["a Failed - =1"], "create 2");
    check(json!({"backoffLimit": 0}), json!({}), &["a Failed =1", "b Running"], "finish b");
    check(json!({"backoffLimit": 2}), json!({"failed": 2}), &["a Failed =1"], "finish");
    check(json!({"activeDeadlineSeconds": 10}), json!({"startTime": at(11)}), &["a Running"], "finish a");
    check(json!({"activeDeadlineSeconds": 10}), json!({"startTime": at(9)}), &["a Running"], "create 1");
}

#[test]
fn indexes_are_filled_from_the_lowest_and_doubles_go() {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
    check(spec.clone(), json!({}), &[], "create [0, 1, 2]");
    check(spec.clone(), json!({"completedIndexes": "0,2", "succeeded": 2}), &["a Running 3"], "create [1, 4]");
    check(spec.clone(), json!({"completedIndexes": "0,2", "succeeded": 2}), &["a Running 3", "b Pending 3"], "delete b");
    check(spec, json!({"completedIndexes": "0-4"}), &["a Running 7"], "delete a");
}

#[test]
fn each_index_has_a_limit_of_its_own() {
    let spec = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1, "backoffLimit": 99});
        merge(&mut spec, more);
        spec
    };
    // The first failure of index 0 waits; index 1 is started meanwhile.
    check(spec(json!({})), json!({}), &["a Failed 0 #0 =1"], "create [1]");
    check(spec(json!({"parallelism": 1})), json!({}), &["a Failed 0 #0 =1"], "wait 9");
    check(spec(json!({})), json!({}), &["a Failed 0 #1 =1"], "create [1, 2]");
    check(spec(json!({})), json!({"completedIndexes": "1,2"}), &["a Failed 0 #1 =1"], "finish");
    check(spec(json!({"maxFailedIndexes": 0})), json!({}), &["a Failed 0 #1 =1", "b Running 1"], "finish b");
    let rules = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]});
    check(spec(json!({"podFailurePolicy": rules})), json!({}), &["a Failed 0 #0 =42"], "create [1, 2]");
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let spec = |rules: Value| json!({"completionMode": "Indexed", "completions": 5, "parallelism": 5, "successPolicy": {"rules": rules}});
    let pods = ["a Succeeded 0", "b Running 1"];
    check(spec(json!([{"succeededIndexes": "0"}])), json!({}), &pods, "finish b");
    check(spec(json!([{"succeededIndexes": "0,1"}])), json!({}), &pods, "create [2, 3, 4]");
    check(spec(json!([{"succeededIndexes": "0-2", "succeededCount": 1}])), json!({}), &pods, "finish b");
    check(spec(json!([{"succeededCount": 2}])), json!({}), &pods, "create [2, 3, 4]");
}

#[test]
fn a_failure_policy_fails_the_job_or_ignores_the_pod() {
    let policy = |action: &str| {
        json!({"backoffLimit": 0, "podFailurePolicy": {"rules": [
            {"action": action, "onExitCodes": {"containerName": "c", "operator": "In", "values": [1]}}]}})
    };
    check(policy("Ignore"), json!({}), &["a Failed =1"], "wait 9");
    let view = view(job(policy("FailJob"), json!({})), &["a Failed =1"]);
    let finish = assess(&view).finish.unwrap();
    let text = "Container c for pod ns/a failed with exit code 1 matching FailJob rule at index 0";
    assert_eq!((finish.reason.as_deref(), finish.message.as_deref()), (Some("PodFailurePolicy"), Some(text)));
}

/// Runs one reconcile whose calls all succeed; returns the stored status and what was released.
fn settle_all(view: &View) -> (Value, Vec<String>) {
    let seen = assess(view);
    let action = plan(view, &seen);
    let done = match &action {
        Action::Create(indexes) => settle::Done { created: indexes.len(), ..Default::default() },
        Action::Delete(pods) | Action::Finish(pods) => settle::Done { deleted: pods.len(), deleted_ready: pods.len(), created: 0 },
        _ => settle::Done::default(),
    };
    let settled = settle(view, &seen, &action, &done);
    let released: Vec<_> = settled.release.iter().map(|p| p.name().to_owned()).collect();
    let mut status = settled.status.clone();
    let held = settled.held.iter().filter(|uid| !released.contains(uid)).cloned().collect();
    clean(&mut status, &held);
    conclude(&mut status, &settled, view.now);
    let conditions: Vec<_> = status.conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.status)).collect();
    let mut value = serde_json::to_value(&status).unwrap();
    value["conditions"] = json!(conditions.join(" "));
    for field in ["startTime", "completionTime", "uncountedTerminatedPods"] {
        value.as_object_mut().unwrap().remove(field);
    }
    (value, released)
}

#[test]
fn finished_pods_are_counted_once() {
    let first = view(job(json!({}), json!({})), &["a Succeeded", "b Failed =1", "c Running"]);
    let (status, released) = settle_all(&first);
    assert_eq!(released, ["a", "b"]);
    assert_eq!(status, json!({"active": 1, "ready": 1, "terminating": 0, "succeeded": 1, "failed": 1, "conditions": ""}));
    // The pods are still there, without their finalizers: they are counted already.
    let again = view(job(json!({}), json!({"succeeded": 1, "failed": 1})), &["a Succeeded -", "b Failed - =1", "c Running"]);
    let (status, released) = settle_all(&View { may_act: false, ..again });
    assert!(released.is_empty());
    assert_eq!(status["succeeded"], 1);
}

#[test]
fn after_a_crash_the_stored_uids_are_counted_once() {
    let status = json!({"succeeded": 1, "uncountedTerminatedPods": {"succeeded": ["a", "b"]}});
    // `a` has lost its finalizer before the crash, `b` has not.
    let view = view(job(json!({"completions": 9}), status), &["a Succeeded -", "b Succeeded", "c Running", "d Running"]);
    let (status, released) = settle_all(&view);
    assert_eq!((released, &status["succeeded"]), (vec!["b".to_owned()], &json!(3)));
}

#[test]
fn the_end_is_told_by_an_interim_and_a_final_condition() {
    let done = view(job(json!({"completions": 1}), json!({})), &["a Succeeded"]);
    let (status, _) = settle_all(&done);
    assert_eq!(status["conditions"], "SuccessCriteriaMet=True Complete=True");
    // While a pod terminates, the job is not over.
    let failing = view(job(json!({"backoffLimit": 0}), json!({})), &["a Failed =1", "b Running"]);
    let (status, released) = settle_all(&failing);
    assert_eq!((&status["conditions"], &status["failed"]), (&json!("FailureTarget=True"), &json!(2)));
    assert_eq!((&status["terminating"], released), (&json!(1), vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn suspending_is_a_condition_and_takes_the_start_time() {
    let suspended = view(job(json!({"suspend": true}), json!({"startTime": at(5)})), &["a Running"]);
    let seen = assess(&suspended);
    let action = plan(&suspended, &seen);
    let settled = settle(&suspended, &seen, &action, &settle::Done { deleted: 1, deleted_ready: 1, created: 0 });
    assert_eq!(settled.event, Some(("Suspended", "Job suspended")));
    assert!(settled.status.start_time.is_none() && settled.flush);
}

#[tokio::test]
async fn jobs_that_have_finished_leave_nothing_behind_nor_room_for_it() {
    let done = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let job_of = |i: usize| {
        let mut job = job(json!({}), done.clone());
        job.metadata.name = Some(format!("j{i}"));
        job.metadata.resource_version = Some("5".to_owned());
        job
    };
    let jobs: Vec<Job> = (0..3000).map(job_of).collect();
    let texts: Vec<Value> = jobs.iter().map(|job| serde_json::to_value(job).unwrap()).collect();
    let client = fake::client(&[("jobs", &texts)]);
    let clock = Clock::fixed(Timestamp::from_second(NOW).unwrap());
    let cx = Context {
        recorder: EventRecorder::new(&client, NAME, None, clock.clone()),
        expectations: Expectations::new(clock.clone()),
        released: Released::default(),
        written: Written::default(),
        backoffs: Mutex::default(),
        jobs: fake::informer(&client).await,
        pods: fake::informer(&client).await,
        client,
        clock,
    };
    let ahead = |job: &Job| {
        let mut job = job.clone();
        job.metadata.resource_version = Some("9".to_owned());
        job
    };
    for job in &jobs {
        let key = job.key();
        cx.expectations.expect_creations(&key, 1);
        cx.released.expect(&key, ["pod".to_owned()]);
        cx.written.wrote(&ahead(job));
        cx.backoffs.lock().unwrap().insert(key, Backoff::default());
    }
    for job in &jobs {
        let key = job.key();
        assert_eq!(reconcile(&cx, &key).await.unwrap(), Next::Wait);
        assert!(cx.expectations.satisfied(&key) && cx.released.of(&key).is_empty() && cx.written.is_current(job), "{key}");
    }
    let backoffs = cx.backoffs.lock().unwrap();
    assert!(backoffs.is_empty() && backoffs.capacity() < 2000, "{} places", backoffs.capacity());
}
