use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn service(change: impl FnOnce(&mut Value)) -> Service {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "svc", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": "10.42.0.7", "podIPs": [{"ip": "10.42.0.7"}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn node(name: &str) -> Option<Arc<Node>> {
    let known = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z"}}});
    (name == "n1").then(|| Arc::new(serde_json::from_value(known).unwrap()))
}

fn changes(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
    plan(service, pods, existing, node, None).0
}

/// The slices after the changes, named and with uids as a server would.
fn apply(existing: &[Arc<EndpointSlice>], changes: Vec<Change>) -> Vec<Arc<EndpointSlice>> {
    let mut all = existing.to_vec();
    for change in changes {
        match change {
            Change::Create(mut slice) => {
                let name = format!("web-{}", all.len());
                slice.metadata.name = Some(name.clone());
                slice.metadata.uid = Some(name);
                all.push(Arc::new(*slice));
            }
            Change::Update(slice) => {
                let uid = slice.uid().to_owned();
                *all.iter_mut().find(|s| s.uid() == uid).unwrap() = Arc::new(*slice);
            }
            Change::Delete(slice) => all.retain(|s| s.uid() != slice.uid()),
        }
    }
    all
}

fn told(changes: &[Change]) -> String {
    let size = |s: &EndpointSlice| s.endpoints.as_ref().map_or(0, Vec::len);
    let word = |c: &Change| match c {
        Change::Create(s) => format!("create {}", size(s)),
        Change::Update(s) => format!("update {}", size(s)),
        Change::Delete(s) => format!("delete {}", size(s)),
    };
    changes.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn many(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|n| pod(&format!("p{n}"), |p| p["status"]["podIPs"] = json!([{"ip": format!("10.42.{}.{}", n / 200, n % 200)}]))).collect()
}

#[test]
fn a_ready_pod_becomes_an_endpoint_with_its_named_port_zone_and_reference() {
    let changes = changes(&service(|_| {}), &[pod("a", |_| {})], &[]);
    let [Change::Create(slice)] = &changes[..] else { panic!("{}", told(&changes)) };
    assert_eq!(
        serde_json::to_value(slice).unwrap(),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "default", "generateName": "web-", "labels": {"team": "a", "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "svc", "controller": true, "blockOwnerDeletion": true}]},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.42.0.7"], "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "n1", "zone": "z", "targetRef": {"kind": "Pod", "namespace": "default", "name": "a", "uid": "a"}}]})
    );
}

#[test]
fn conditions_tell_ready_serving_and_terminating_apart() {
    let conditions = |service: &Service, pod: Arc<Pod>| {
        let found = changes(service, &[pod], &[]);
        let [Change::Create(slice)] = &found[..] else { panic!("{}", told(&found)) };
        let c = slice.endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        [c.ready, c.serving, c.terminating].map(Option::unwrap)
    };
    let plain = service(|_| {});
    let unready = |p: &mut Value| p["status"]["conditions"][0]["status"] = "False".into();
    let going = |p: &mut Value| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(conditions(&plain, pod("a", unready)), [false, false, false]);
    assert_eq!(conditions(&plain, pod("a", going)), [false, true, true]);
    let eager = service(|s| s["spec"]["publishNotReadyAddresses"] = true.into());
    assert_eq!(conditions(&eager, pod("a", unready)), [true, false, false]);
}

#[test]
fn no_endpoints_still_make_one_empty_slice_and_only_one() {
    let service = service(|_| {});
    let finished = pod("a", |p| p["status"]["phase"] = "Succeeded".into());
    let first = changes(&service, &[finished], &[]);
    assert_eq!(told(&first), "create 0");
    let slices = apply(&[], first);
    assert_eq!(told(&changes(&service, &[], &slices)), "");
    // The placeholder is the slice of the first endpoints, and the other way about.
    let filled = changes(&service, &[pod("a", |_| {})], &slices);
    assert_eq!(told(&filled), "update 1");
    assert_eq!(told(&changes(&service, &[], &apply(&slices, filled))), "update 0");
    // That of a Service that was deleted goes with it.
    let successor = self::service(|s| s["metadata"]["uid"] = "other".into());
    assert_eq!(told(&changes(&successor, &[pod("a", |_| {})], &slices)), "create 1, delete 0");
}

#[test]
fn slices_hold_a_hundred_and_a_change_touches_one() {
    let service = service(|_| {});
    let pods = many(250);
    let slices = apply(&[], changes(&service, &pods, &[]));
    let mut sizes: Vec<_> = slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
    sizes.sort();
    assert_eq!(sizes, [50, 100, 100]);
    assert_eq!(told(&changes(&service, &pods, &slices)), "");
    assert_eq!(told(&changes(&service, &many(251), &slices)), "update 51");
    let mut fewer = pods.clone();
    fewer.remove(7);
    assert_eq!(changes(&service, &fewer, &slices).len(), 1);
}

#[test]
fn pods_with_other_ports_get_slices_of_their_own() {
    let other = pod("b", |p| p["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into());
    assert_eq!(told(&changes(&service(|_| {}), &[pod("a", |_| {}), other], &[])), "create 1, create 1");
}

#[test]
fn a_headless_service_is_labelled_and_names_its_hosts() {
    let headless = service(|s| {
        s["spec"]["clusterIP"] = "None".into();
        s["spec"]["ports"] = json!([]);
    });
    let pod = pod("a", |p| {
        p["spec"]["hostname"] = "db-0".into();
        p["spec"]["subdomain"] = "web".into();
    });
    let changes = changes(&headless, &[pod], &[]);
    let [Change::Create(slice)] = &changes[..] else { panic!("{}", told(&changes)) };
    assert_eq!(slice.label("service.kubernetes.io/headless"), Some(""));
    assert_eq!(slice.endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("db-0"));
    assert_eq!(slice.ports.as_deref(), Some(&[][..]));
}

#[test]
fn a_pod_on_an_unknown_node_waits_and_is_named() {
    let lost = pod("a", |p| p["spec"]["nodeName"] = "n9".into());
    let (changes, missing) = plan(&service(|_| {}), &[lost], &[], node, None);
    assert_eq!((told(&changes).as_str(), missing), ("create 0", vec!["n9".to_owned()]));
}

#[test]
fn the_trigger_time_is_the_earliest_change_since_the_last_sync() {
    let times = sp::TriggerTimes::default();
    let at = |s: i64| Timestamp::from_second(s).unwrap();
    let service = service(|s| s["metadata"]["creationTimestamp"] = at(10).to_string().into());
    let ready = |name: &str, s: i64| pod(name, |p| p["status"]["conditions"][0]["lastTransitionTime"] = at(s).to_string().into());
    let compute = |pods: &[Arc<Pod>]| times.compute(&service, pods.iter().map(|p| &**p));
    assert_eq!(compute(&[]), Some(at(10)));
    assert_eq!(compute(&[ready("a", 20), ready("b", 15)]), Some(at(15)));
    assert_eq!(compute(&[ready("a", 20), ready("b", 30)]), Some(at(30)));
    assert_eq!(compute(&[ready("a", 20), ready("b", 30)]), None);
}
