use serde_json::{Value, json};

use super::*;

fn pod(containers: &[(&str, Value)], level: Value) -> Arc<Pod> {
    let containers: Vec<Value> = containers.iter().map(|(name, resources)| json!({"name": name, "resources": resources})).collect();
    let mut spec = json!({"containers": containers});
    if !level.is_null() {
        spec["resources"] = level;
    }
    Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod"))
}

fn both(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

/// The writes from `old` to `new`, each as one word.
fn steps(old: &Arc<Pod>, new: &Arc<Pod>) -> Vec<String> {
    shown(&plan(new, &Sizes::of(old), resources::pod_limits(old), &targets(new)))
}

fn targets(pod: &Pod) -> Vec<Target> {
    pod.spec.iter().flat_map(|s| &s.containers).map(|c| Target { name: c.name.clone(), id: format!("id-{}", c.name) }).collect()
}

fn shown(plan: &Plan) -> Vec<String> {
    let mut out: Vec<String> = plan.restart.iter().map(|name| format!("restart {name}")).collect();
    for write in &plan.writes {
        let of = |r: &Resources| {
            let parts = [
                r.memory_limit_bytes.map(|v| format!("memory={}Mi", v >> 20)),
                r.cpu_quota_us.map(|v| format!("quota={v}")),
                r.cpu_shares.map(|v| format!("shares={v}")),
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join(",")
        };
        out.push(match write {
            Write::Pod { resources, .. } => format!("pod {}", of(resources)),
            Write::Container { target, resources, .. } => format!("{} {}", target.name, of(resources)),
            Write::Done { part } => format!("done {}", part.as_str()),
        });
    }
    out
}

#[test]
fn the_pod_grows_before_its_containers_and_shrinks_after_them() {
    let small = pod(&[("a", both("1", "100Mi"))], Value::Null);
    let large = pod(&[("a", both("2", "200Mi"))], Value::Null);
    assert_eq!(steps(&small, &large), ["pod memory=200Mi", "a memory=200Mi", "pod quota=200000", "pod shares=2048", "a quota=200000,shares=2048"]);
    assert_eq!(steps(&large, &small), ["a memory=100Mi", "pod memory=100Mi", "a quota=100000,shares=1024", "pod shares=1024", "pod quota=100000"]);
    assert!(steps(&small, &small).is_empty());
    let same = pod(&[("a", both("1000m", "102400Ki"))], Value::Null);
    assert!(steps(&small, &same).is_empty());
}

#[test]
fn containers_that_shrink_come_first() {
    let old = pod(&[("a", both("1", "100Mi")), ("b", both("2", "300Mi")), ("c", both("1", "100Mi"))], Value::Null);
    let new = pod(&[("a", both("1", "150Mi")), ("b", both("2", "200Mi")), ("c", both("1", "150Mi"))], Value::Null);
    assert_eq!(steps(&old, &new), ["b memory=200Mi", "a memory=150Mi", "c memory=150Mi"]);
    let grown = pod(&[("a", both("1", "200Mi")), ("b", both("2", "250Mi")), ("c", both("1", "100Mi"))], Value::Null);
    assert_eq!(steps(&old, &grown), ["pod memory=550Mi", "b memory=250Mi", "a memory=200Mi"]);
}

#[test]
fn requests_of_memory_are_noted_without_a_write() {
    let of = |memory: &str| pod(&[("a", json!({"requests": {"memory": memory}}))], Value::Null);
    assert_eq!(steps(&of("1Mi"), &of("2Mi")), ["a "]);
}

#[test]
fn a_limit_that_is_new_comes_down_from_none() {
    let old = pod(&[("a", json!({"requests": {"cpu": "100m"}}))], Value::Null);
    let new = pod(&[("a", json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "10Mi"}}))], Value::Null);
    let plan = plan(&new, &Sizes::of(&old), resources::pod_limits(&old), &targets(&new));
    assert_eq!(plan.lowered, Lowered { pod: Some(10 << 20), containers: vec![(targets(&new)[0].clone(), 10 << 20)] });
    assert_eq!(shown(&plan), ["a memory=10Mi", "pod memory=10Mi", "a quota=20000,shares=102", "pod quota=20000"]);
}

#[test]
fn a_policy_may_ask_for_a_restart_and_then_nothing_else_is_done_yet() {
    let policy = |resources: Value| {
        let mut pod = Pod::clone(&pod(&[("a", resources), ("b", both("1", "1Mi"))], Value::Null));
        let container = &mut pod.spec.as_mut().expect("a spec").containers[0];
        container.resize_policy = serde_json::from_value(json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"}])).expect("policies");
        Arc::new(pod)
    };
    let old = policy(both("1", "100Mi"));
    assert_eq!(steps(&old, &policy(both("1", "200Mi"))), ["restart a"]);
    assert_eq!(steps(&old, &policy(both("2", "100Mi")))[0], "pod quota=300000");
    // It no longer runs: the pod's own cgroup is made ready for its next instance.
    let new = policy(both("1", "200Mi"));
    let plan = plan(&new, &Sizes::of(&old), resources::pod_limits(&old), &targets(&new)[1..]);
    assert_eq!(shown(&plan), ["pod memory=201Mi"]);
}

#[test]
fn sizes_of_the_pod_itself_reach_its_containers_and_are_noted() {
    let of = |cpu: &str| pod(&[("a", json!({}))], json!({"requests": {"cpu": "1"}, "limits": {"cpu": cpu}}));
    assert_eq!(steps(&of("1"), &of("2")), ["pod quota=200000", "a quota=200000,shares=2048", "done cpu"]);
}
