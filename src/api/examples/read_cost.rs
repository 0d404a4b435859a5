//! What an answer costs for each object in it, by its form: of a stored pod, or of the object in the file that is named.
//!
//! `cargo run --release -p api --example read_cost -- [FILE]`
use std::hint::black_box;
use std::time::Instant;

use api::protobuf::Form;
use api::skim::{Wanted, skim};
use api::{Registry, Tree, meta, selector, table};

/// As the load of `tests/bench/api.py` leaves it.
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"1234","annotations":{"example.com/owner":"load"},"creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"labels":{"app":"load","number":"n50"},"managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:example.com/owner":{}},"f:labels":{".":{},"f:app":{},"f:number":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"VARIABLE_0\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"VARIABLE_1\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"VARIABLE_2\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"VARIABLE_3\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"VARIABLE_4\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:readinessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},"f:scheme":{}},"f:periodSeconds":{},"f:successThreshold":{},"f:timeoutSeconds":{}},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}},"manager":"load","operation":"Update","time":"2026-01-01T00:00:00Z"}],"name":"fill-50","namespace":"load","uid":"0f5a7a4e-50a5-4c8a-9d0e-2f6b8f0c3c5d"},"spec":{"containers":[{"env":[{"name":"VARIABLE_0","value":"some value"},{"name":"VARIABLE_1","value":"some value"},{"name":"VARIABLE_2","value":"some value"},{"name":"VARIABLE_3","value":"some value"},{"name":"VARIABLE_4","value":"some value"}],"image":"registry.example.com/load/main:1.0","imagePullPolicy":"IfNotPresent","name":"main","ports":[{"containerPort":8080,"protocol":"TCP"}],"readinessProbe":{"failureThreshold":3,"httpGet":{"path":"/ready","port":8080,"scheme":"HTTP"},"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1},"resources":{"limits":{"memory":"64Mi"},"requests":{"cpu":"10m","memory":"16Mi"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","volumeMounts":[{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","name":"kube-api-access-x7k2p","readOnly":true}]}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority","priority":0,"restartPolicy":"Always","schedulerName":"nobody","securityContext":{},"serviceAccount":"default","serviceAccountName":"default","terminationGracePeriodSeconds":30,"tolerations":[{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}],"volumes":[{"name":"kube-api-access-x7k2p","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"items":[{"key":"ca.crt","path":"ca.crt"}],"name":"kube-root-ca.crt"}},{"downwardAPI":{"items":[{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"},"path":"namespace"}]}}]}}]},"status":{"phase":"Pending","qosClass":"Burstable"}}"#;

fn show(what: &str, mut work: impl FnMut()) {
    const TIMES: u32 = 100_000;
    (0..TIMES / 10).for_each(|_| work());
    let start = Instant::now();
    (0..TIMES).for_each(|_| work());
    println!("{what:48} {:7.2} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
}

fn main() {
    let json = std::env::args().nth(1).map_or_else(|| POD.as_bytes().to_vec(), |path| std::fs::read(path).expect("a readable file"));
    let tree = Tree::from_json(&json).expect("JSON");
    let (group, version) = api::registry::split_api_version(meta::api_version(&tree));
    let kind = meta::kind(&tree);
    let resource = Registry::get().served().find(|r| (&*r.group, &*r.version, &*r.kind) == (group, version, kind)).expect("a built-in kind");
    let form = Form::of(group, version, kind).expect("a kind with a protobuf form");
    let now = jiff::Timestamp::now();
    let mut out = Vec::new();
    form.message(&json, &mut out).expect("an object of its kind");
    println!("{kind}: {} bytes of JSON, {} of protobuf", json.len(), out.len());
    show("protobuf message", || {
        out.clear();
        form.message(black_box(&json), &mut out).expect("an object of its kind");
    });
    show("row of a table", || drop(black_box(table::row(resource, black_box(&json), now).expect("JSON"))));
    show("metadata alone", || _ = black_box(skim(black_box(&json), &Wanted::Nothing).expect("JSON").metadata));
    show("what selectors read", || drop(black_box(selector::skim(black_box(&json)).expect("JSON"))));
    show("the whole tree", || drop(black_box(Tree::from_json(black_box(&json)).expect("JSON"))));
    show("the tree printed", || drop(black_box(tree.to_json())));
}
