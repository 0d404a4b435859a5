use serde_json::{Value, json};

use super::*;

fn service(eager: bool) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.43.0.9", "selector": {"app": "web"}, "publishNotReadyAddresses": eager,
            "ports": [{"port": 80, "targetPort": 8080}]},
    }))
    .unwrap()
}

fn pod(name: &str, ip: &str, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": status}]},
        }))
        .unwrap(),
    )
}

fn address(name: &str, ip: &str) -> Value {
    json!({"ip": ip, "nodeName": "n", "targetRef": {"kind": "Pod", "namespace": "default", "name": name, "uid": name}})
}

#[test]
fn ready_and_unready_addresses_stand_apart_in_one_subset() {
    let made = plan(&service(false), &[pod("b", "10.0.0.2", true), pod("c", "10.0.0.3", false), pod("a", "10.0.0.1", true)], None, None);
    let made = made.unwrap();
    assert_eq!(
        serde_json::to_value(&made.subsets).unwrap(),
        json!([{"addresses": [address("a", "10.0.0.1"), address("b", "10.0.0.2")], "notReadyAddresses": [address("c", "10.0.0.3")],
            "ports": [{"port": 8080, "protocol": "TCP"}]}])
    );
    let pods = [pod("a", "10.0.0.1", true), pod("b", "10.0.0.2", true), pod("c", "10.0.0.3", false)];
    assert!(plan(&service(false), &pods, Some(&made), None).is_none());
    assert!(plan(&service(true), &pods, Some(&made), None).unwrap().subsets.unwrap()[0].not_ready_addresses.is_none());
}

#[test]
fn more_than_a_thousand_addresses_are_cut_and_the_cut_is_told() {
    let pods: Vec<_> = (0..1001).map(|n| pod(&format!("p{n}"), &format!("10.0.{}.{}", n / 250, n % 250), n != 5)).collect();
    let made = plan(&service(false), &pods, None, None).unwrap();
    let subset = &made.subsets.as_ref().unwrap()[0];
    assert_eq!((subset.addresses.as_ref().unwrap().len(), subset.not_ready_addresses.is_some()), (1000, false));
    assert_eq!(made.annotation(OVER_CAPACITY), Some("truncated"));
}
