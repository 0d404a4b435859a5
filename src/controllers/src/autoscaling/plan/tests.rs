use serde_json::{Value as Json, json};

use super::*;
use crate::autoscaling::calculator::Sample;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn hpa(spec: Json) -> HorizontalPodAutoscaler {
    let mut whole = json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 10});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "h", "namespace": "ns"}, "spec": whole})).unwrap()
}

fn pods(n: usize) -> Vec<Arc<Pod>> {
    let pod = |n: usize| {
        json!({"metadata": {"name": format!("p{n}")}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": "Running", "startTime": "1970-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}]}})
    };
    (0..n).map(|n| Arc::new(serde_json::from_value(pod(n)).unwrap())).collect()
}

fn levels(values: &[i64]) -> Result<Value, String> {
    let sample = |value: &i64| Sample { value: *value, timestamp: now(), window: Duration::from_secs(60) };
    Ok(Value::Pods(values.iter().enumerate().map(|(n, v)| (format!("p{n}"), sample(v))).collect()))
}

/// The proposal, and the condition `ScalingActive`.
fn ask(metrics: Json, replicas: i32, values: Vec<Result<Value, String>>) -> (Proposal, String) {
    let hpa = hpa(json!({"metrics": metrics}));
    let mut conditions = Conditions::of(&hpa, now());
    let pods = pods(usize::try_from(replicas).unwrap());
    let target = Target { spec_replicas: replicas, status_replicas: replicas };
    let measured = Measured { hpa: &hpa, target, pods: &pods, values, settings: &Settings::default(), now: now() };
    let proposal = propose(measured, &mut conditions);
    let shown = conditions.list.iter().map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason.as_deref().unwrap(), c.message.as_deref().unwrap()));
    (proposal, shown.collect::<Vec<_>>().join("\n"))
}

fn cpu(target: i32) -> Json {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}})
}

fn queue(target: Json) -> Json {
    json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": target}})
}

#[test]
fn the_metric_that_asks_for_most_decides() {
    let depth = queue(json!({"type": "AverageValue", "averageValue": "10"}));
    let (proposal, active) = ask(json!([cpu(50), depth]), 2, vec![levels(&[500, 500]), Ok(Value::Whole(50_000))]);
    assert_eq!((proposal.replicas, proposal.metric.as_str(), proposal.error), (Some(5), "external metric queue(nil)", None));
    assert_eq!(active, "ScalingActive=True ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric queue(nil)");
    let statuses = serde_json::to_value(&proposal.statuses).unwrap();
    assert_eq!(statuses[0], json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "500m"}}}));
    assert_eq!(statuses[1], json!({"type": "External", "external": {"metric": {"name": "queue"}, "current": {"averageValue": "25"}}}));
}

#[test]
fn a_metric_that_cannot_be_read_forbids_to_shrink_but_not_to_grow() {
    let lost = || Err("unable to get external metric ns/queue/nil: down".to_owned());
    let depth = queue(json!({"type": "Value", "value": "10"}));
    let (proposal, _) = ask(json!([cpu(50), depth]), 2, vec![levels(&[900, 900]), lost()]);
    assert_eq!(proposal.replicas, Some(4));
    let why = "failed to get external metric queue: unable to get external metric ns/queue/nil: down";
    assert_eq!(proposal.events, [(true, "FailedGetExternalMetric", why.to_owned())]);
    assert_eq!(proposal.error.unwrap(), format!("invalid metrics (1 invalid out of 2), first error is: failed to get queue external metric value: {why}"));
    let (proposal, active) = ask(json!([cpu(50), depth]), 2, vec![levels(&[100, 100]), lost()]);
    assert_eq!(proposal.replicas, None);
    assert_eq!(active, format!("ScalingActive=False FailedGetExternalMetric: the HPA was unable to compute the replica count: {why}"));
}

#[test]
fn no_metrics_of_a_resource_is_said_as_upstream_says_it() {
    let error = "unable to get metrics for resource cpu: no metrics returned from resource metrics API";
    let (proposal, active) = ask(json!([cpu(50)]), 1, vec![Err(error.to_owned())]);
    assert_eq!(active, format!("ScalingActive=False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: {error}"));
    assert_eq!(proposal.error.unwrap(), format!("invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: {error}"));
}

#[test]
fn every_kind_of_metric_has_its_name_and_its_status() {
    let target = json!({"type": "AverageValue", "averageValue": "500m"});
    let container = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let object = json!({"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "i"}, "target": {"type": "Value", "value": "1"}}});
    let of_pods = json!({"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": target}});
    let check = |metric: Json, value: Result<Value, String>, name: &str, current: Json| {
        let kind = metric["type"].as_str().unwrap().to_owned();
        let (proposal, _) = ask(json!([metric]), 2, vec![value]);
        assert_eq!((proposal.replicas, proposal.metric.as_str()), (Some(4), name), "{kind}");
        let field = kind[..1].to_lowercase() + &kind[1..];
        assert_eq!(serde_json::to_value(&proposal.statuses[0]).unwrap()[field]["current"], current);
    };
    check(container, levels(&[1000, 1000]), "cpu container resource utilization (percentage of request)", json!({"averageUtilization": 100, "averageValue": "1"}));
    check(object, Ok(Value::Whole(2000)), "Ingress metric hits", json!({"value": "2"}));
    check(of_pods, levels(&[1000, 1000]), "pods metric qps", json!({"averageValue": "1"}));
    check(json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Mi"}}}), levels(&[2_097_152_000, 2_097_152_000]), "memory resource", json!({"averageValue": "2Mi"}));
}

#[test]
fn bounds_come_before_metrics_and_a_zero_of_its_own_can_be_left() {
    let of = |spec: Json, current| gate(&hpa(spec), current);
    assert_eq!(of(json!({}), 11), Gate::Resize { to: 10, why: "Current number of replicas above Spec.MaxReplicas" });
    assert_eq!(of(json!({"minReplicas": 2}), 1), Gate::Resize { to: 2, why: "Current number of replicas below Spec.MinReplicas" });
    assert_eq!(of(json!({}), 5), Gate::Measure);
    assert_eq!(of(json!({}), 0), Gate::Disabled);
    let mut own = hpa(json!({"minReplicas": 0, "metrics": [queue(json!({"type": "Value", "value": "1"}))]}));
    assert_eq!(gate(&own, 0), Gate::Disabled);
    own.status = serde_json::from_value(json!({"desiredReplicas": 0, "conditions": [{"type": "ScaledToZero", "status": "True"}]})).unwrap();
    assert_eq!(gate(&own, 0), Gate::Measure);
}

#[test]
fn the_reason_of_a_change_names_the_metric() {
    let hpa = hpa(json!({}));
    let check = |current, wished, expect: (i32, &str)| {
        let mut conditions = Conditions::of(&hpa, now());
        let found = settle(&hpa, current, wished, "cpu resource", &mut History::default(), &Settings::default(), &mut conditions, now());
        assert_eq!((found.0, found.1.as_str()), expect);
        conditions.list.into_iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(check(2, 3, (3, "cpu resource above target")), ["AbleToScale=True ReadyForNewScale", "ScalingLimited=False DesiredWithinRange"]);
    assert_eq!(check(2, 30, (4, "cpu resource above target")), ["AbleToScale=True ReadyForNewScale", "ScalingLimited=True ScaleUpLimit"]);
    check(3, 1, (1, "All metrics below target"));
    check(3, 3, (3, ""));
}
