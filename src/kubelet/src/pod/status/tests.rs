use super::super::record::{Running, Waiting, records};
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn pod(policy: &str, init: &[&str], main: &[&str]) -> Pod {
    let init: Vec<_> = init.iter().map(|n| serde_json::json!({"name": n, "image": "i"})).collect();
    let main: Vec<_> = main.iter().map(|n| serde_json::json!({"name": n, "image": "i"})).collect();
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": main}}))
    .expect("a pod")
}

/// `-` nothing yet, `r` running and ready, `u` running and not ready, `0`/`1` ended, `c` in a crash loop, `w` waiting.
fn with(pod: &Pod, states: &str) -> Vec<Record> {
    let mut records = records(pod);
    for (record, state) in records.iter_mut().zip(states.chars()) {
        let ended = |code| {
            Some(Instance::Finished(Finished {
                id: "id".into(),
                exit_code: code,
                signal: None,
                reason: if code == 0 { "Completed" } else { "Error" }.into(),
                message: None,
                started_at: Some(at(1)),
                finished_at: Some(at(2)),
            }))
        };
        let running = |ready| Some(Instance::Running(Running { id: "id".into(), started_at: at(1), started: true, ready, stopping: false }));
        record.current = match state {
            'r' => running(true),
            'u' => running(false),
            '0' => ended(0),
            '1' | 'c' => ended(1),
            _ => None,
        };
        if state == 'c' {
            record.waiting = Some(Waiting { reason: "CrashLoopBackOff".into(), message: Some("back-off".into()) });
        }
        if state == 'w' {
            record.waiting = Some(Waiting { reason: "ImagePullBackOff".into(), message: None });
        }
    }
    records
}

#[test]
fn phases_follow_containers_and_policy() {
    for (policy, init, states, expected) in [
        ("Always", 0, "--", Phase::Pending),
        ("Always", 0, "r-", Phase::Running),
        ("Always", 0, "rr", Phase::Running),
        ("Always", 0, "w-", Phase::Pending),
        ("Always", 0, "c-", Phase::Running),
        ("Always", 0, "00", Phase::Running),
        ("OnFailure", 0, "00", Phase::Succeeded),
        ("OnFailure", 0, "01", Phase::Running),
        ("Never", 0, "00", Phase::Succeeded),
        ("Never", 0, "01", Phase::Failed),
        ("Never", 0, "0r", Phase::Running),
        ("Never", 1, "1--", Phase::Failed),
        ("Always", 1, "1--", Phase::Pending),
        ("Always", 1, "r--", Phase::Pending),
        ("Always", 1, "0rr", Phase::Running),
    ] {
        let pod = pod(policy, &["i"][..init], &["a", "b"]);
        assert_eq!(phase(&pod, &with(&pod, states)), expected, "{policy} {states}");
    }
}

#[track_caller]
fn conditions(pod: &Pod, states: &str, all_stopped: bool) -> Vec<String> {
    let facts = Facts { sandbox_ready: true, all_stopped, host_ip: "1.1.1.1".into(), ..Facts::default() };
    let status = status(pod, &with(pod, states), &facts, at(10));
    status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .map(|c| {
            let more = [c.reason, c.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            format!("{}={} {more}", c.type_, c.status).trim_end().to_owned()
        })
        .collect()
}

#[test]
fn conditions_are_worded_as_upstream_words_them() {
    let p = pod("Always", &["i"], &["a", "b"]);
    assert_eq!(
        conditions(&p, "r--", false),
        [
            "PodReadyToStartContainers=True",
            "Initialized=False ContainersNotInitialized: containers with incomplete status: [i]",
            "Ready=False ContainersNotReady: containers with unready status: [a b]",
            "ContainersReady=False ContainersNotReady: containers with unready status: [a b]",
            "PodScheduled=True",
        ]
    );
    assert_eq!(conditions(&p, "0ru", false)[2], "Ready=False ContainersNotReady: containers with unready status: [b]");
    assert_eq!(conditions(&p, "0rr", false)[2], "Ready=True");
    let done = pod("Never", &[], &["a"]);
    assert_eq!(
        conditions(&done, "0", true),
        [
            "PodReadyToStartContainers=False",
            "Initialized=True PodCompleted",
            "Ready=False PodCompleted",
            "ContainersReady=False PodCompleted",
            "PodScheduled=True"
        ]
    );
    assert_eq!(conditions(&done, "1", true)[2], "Ready=False PodFailed");
}

#[test]
fn a_terminal_phase_waits_until_nothing_runs() {
    let p = pod("Never", &[], &["a"]);
    let facts = Facts::default();
    let s = status(&p, &with(&p, "0"), &facts, at(10));
    assert_eq!(s.phase.as_deref(), Some("Running"));
    let s = status(&p, &with(&p, "0"), &Facts { all_stopped: true, ..facts }, at(10));
    assert_eq!((s.phase.as_deref(), s.observed_generation), (Some("Succeeded"), Some(3)));
}

#[test]
fn a_crash_loop_shows_why_it_waits_and_how_it_ended() {
    let p = pod("Always", &[], &["a"]);
    let s = status(&p, &with(&p, "c"), &Facts::default(), at(10));
    let c = &s.container_statuses.expect("statuses")[0];
    let waiting = c.state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref()).expect("terminated");
    assert_eq!((last.exit_code, last.reason.as_deref(), last.container_id.as_deref()), (1, Some("Error"), Some("rk://id")));
}

#[test]
fn a_readiness_gate_holds_the_pod_back() {
    let mut p = pod("Always", &[], &["a"]);
    p.spec.as_mut().expect("spec").readiness_gates =
        Some(vec![k8s_openapi::api::core::v1::PodReadinessGate { condition_type: "x/y".into() }]);
    assert_eq!(
        conditions(&p, "r", false)[2],
        "Ready=False ReadinessGatesNotReady: corresponding condition of pod readiness gate \"x/y\" does not exist."
    );
}
