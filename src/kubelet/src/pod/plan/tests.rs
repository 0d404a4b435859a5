use super::super::record::{Finished, Running, records};
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn pod(policy: &str) -> Pod {
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
        "restartPolicy": policy,
        "initContainers": [{"name": "i1"}, {"name": "s", "restartPolicy": "Always"}, {"name": "i2"}],
        "containers": [{"name": "a"}, {"name": "b"}]}}))
    .expect("a pod")
}

/// One letter per container, in order: `-` none, `r` running, `w` running but not started, `0`/`1` ended with that code,
/// `s` start under way.
#[track_caller]
fn check(policy: &str, states: &str, expected: &str) {
    let pod = pod(policy);
    let mut records = records(&pod);
    for (record, state) in records.iter_mut().zip(states.chars()) {
        let running = |started| {
            Instance::Running(Running { id: "x".into(), started_at: at(0), started, ready: true, stopping: false })
        };
        record.current = match state {
            '-' => None,
            's' => {
                record.starting = true;
                None
            }
            'r' => Some(running(true)),
            'w' => Some(running(false)),
            code => Some(Instance::Finished(Finished {
                id: "x".into(),
                exit_code: code.to_digit(10).expect("a digit") as i32,
                signal: None,
                reason: "Error".into(),
                message: None,
                started_at: None,
                finished_at: Some(at(100)),
            })),
        };
    }
    let plan = plan(&pod, &records, at(100));
    let mut got: Vec<String> = plan
        .steps
        .iter()
        .map(|s| match s {
            Step::Start { index } => records[*index].name.clone(),
            Step::CrashLoop { index, .. } => format!("crash {}", records[*index].name),
            Step::Retry { index, .. } => format!("retry {}", records[*index].name),
        })
        .collect();
    if plan.finished {
        got.push("finished".into());
    }
    assert_eq!(got.join(" "), expected, "{policy} {states}");
}

#[test]
fn init_containers_run_one_after_the_other() {
    check("Always", "-----", "i1");
    check("Always", "s----", "");
    check("Always", "r----", "");
    check("Always", "0----", "s");
    check("Always", "0w---", "");
    check("Always", "0r---", "i2");
    check("Always", "0r0--", "a b");
    check("Always", "0r0s-", "b");
}

#[test]
fn a_failed_init_container_is_run_again_or_fails_the_pod() {
    check("Always", "1----", "i1");
    check("OnFailure", "1----", "i1");
    check("Never", "1----", "finished");
}

#[test]
fn main_containers_restart_by_policy() {
    check("Always", "0r00r", "a");
    check("OnFailure", "0r00r", "");
    check("OnFailure", "0r01r", "a");
    check("Never", "0r01r", "");
    check("Never", "0r010", "finished");
    check("OnFailure", "0r000", "finished");
}

#[test]
fn a_sidecar_restarts_while_main_containers_run_and_not_afterwards() {
    check("Never", "010rr", "s");
    check("Never", "01000", "finished");
}

#[test]
fn a_crash_waits_for_its_back_off() {
    let pod = pod("Always");
    let mut records = records(&pod);
    let mut backoff = super::super::backoff::Backoff::default();
    backoff.advance(at(90));
    for record in &mut records {
        record.current = Some(Instance::Running(Running { id: "x".into(), started_at: at(0), started: true, ready: true, stopping: false }));
    }
    records[3].crash = backoff;
    records[3].current = Some(Instance::Finished(Finished {
        id: "x".into(),
        exit_code: 1,
        signal: None,
        reason: "Error".into(),
        message: None,
        started_at: None,
        finished_at: Some(at(95)),
    }));
    assert_eq!(plan(&pod, &records, at(96)).steps, [Step::CrashLoop { index: 3, until: at(105) }]);
    assert_eq!(plan(&pod, &records, at(105)).steps, [Step::Start { index: 3 }]);
}
