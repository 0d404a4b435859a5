//! What it costs to note who set which field, beside what a write costs anyway: reading and typing the object.
//!
//! `cargo run --release -p api --example track_cost`
use std::hint::black_box;
use std::time::Instant;

use api::apply::{Type, Versions, Write};
use api::{Registry, Tree, meta, schema};

struct One {
    api_version: &'static str,
    kind: &'static str,
}

impl One {
    fn schema(&self) -> &'static api::Schema {
        let (group, version) = api::registry::split_api_version(self.api_version);
        Registry::get().kind_schema(group, version, self.kind).expect("a built-in kind")
    }
}

impl Versions for One {
    fn type_of(&self, api_version: &str) -> Option<Type<'_>> {
        (api_version == self.api_version).then(|| Type::BuiltIn(self.schema()))
    }
    fn empty(&self) -> Tree {
        schema::zero(self.schema())
    }
    fn convert(&self, _: &Tree, _: &str) -> Result<Option<Tree>, String> {
        Ok(None)
    }
}

fn typed(kind: &One, json: &str) -> Tree {
    let mut tree = Tree::from_json(json.as_bytes()).expect("JSON");
    meta::set_type(&mut tree, kind.api_version, kind.kind);
    schema::decode(kind.schema(), tree).expect("an object of its kind").tree
}

fn micros(mut work: impl FnMut()) -> f64 {
    const TIMES: u32 = 20_000;
    (0..TIMES / 10).for_each(|_| work());
    let start = Instant::now();
    (0..TIMES).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
}

fn measure(name: &str, kind: One, before: Option<&str>, after: &str, subresource: &str) {
    let write = |versions| Write { versions, api_version: kind.api_version, kind: kind.kind, subresource, filter: None, now: "2026-01-02T00:00:00Z" };
    let write = write(&kind);
    let live = before.map(|json| {
        let mut live = typed(&kind, json);
        write.track("kubelet", None, &mut live);
        meta::set_uid(&mut live, "u");
        live
    });
    let mut new = typed(&kind, after);
    if let Some(live) = &live {
        meta::set_uid(&mut new, "u");
        new.set(&["metadata", "managedFields"], live.at(&["metadata", "managedFields"]).expect("managers").clone());
    }
    let bytes = new.to_json();
    let read = micros(|| drop(black_box(schema::decode(kind.schema(), Tree::from_json(&bytes).expect("JSON")).expect("typed"))));
    let cloned = micros(|| drop(black_box(new.clone())));
    let tracked = micros(|| {
        let mut new = new.clone();
        write.track("kubelet", live.as_ref(), &mut new);
        black_box(new);
    });
    println!("{name:24} {:6} bytes  read and type {read:6.1} us  track {:6.1} us", bytes.len(), tracked - cloned);
}

const LEASE: &str = r#"{"metadata":{"name":"node","namespace":"kube-node-lease","ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node","uid":"u"}]},
    "spec":{"holderIdentity":"node","leaseDurationSeconds":40,"renewTime":"2026-01-01T00:00:00.000000Z"}}"#;

fn pod(ready: &str, phase: &str) -> String {
    let container = |name: &str| {
        format!(
            r#"{{"name":"{name}","image":"registry.example/{name}:1","env":[{{"name":"A","value":"1"}},{{"name":"B","value":"2"}}],
            "ports":[{{"containerPort":8080,"protocol":"TCP"}}],"resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}}}},
            "volumeMounts":[{{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}}],
            "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}}"#
        )
    };
    let conditions: Vec<String> = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|c| format!(r#"{{"type":"{c}","status":"{ready}","lastTransitionTime":"2026-01-01T00:00:00Z"}}"#))
        .collect();
    format!(
        r#"{{"metadata":{{"name":"p","namespace":"n","labels":{{"app":"a","pod-template-hash":"abc"}},"ownerReferences":[{{"apiVersion":"apps/v1",
        "kind":"ReplicaSet","name":"r","uid":"r","controller":true,"blockOwnerDeletion":true}}]}},"spec":{{"containers":[{},{}],"nodeName":"node",
        "restartPolicy":"Always","dnsPolicy":"ClusterFirst","serviceAccountName":"default","schedulerName":"default-scheduler",
        "tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],
        "volumes":[{{"name":"token","projected":{{"sources":[{{"serviceAccountToken":{{"path":"token","expirationSeconds":3607}}}}]}}}}]}},
        "status":{{"phase":"{phase}","podIP":"10.0.0.1","podIPs":[{{"ip":"10.0.0.1"}}],"hostIP":"10.1.0.1","conditions":[{}],
        "containerStatuses":[{{"name":"a","ready":true,"restartCount":0,"image":"a","imageID":"a"}},{{"name":"b","ready":true,"restartCount":0,
        "image":"b","imageID":"b"}}]}}}}"#,
        container("a"),
        container("b"),
        conditions.join(",")
    )
}

fn main() {
    let lease = || One { api_version: "coordination.k8s.io/v1", kind: "Lease" };
    let pods = || One { api_version: "v1", kind: "Pod" };
    let event = r#"{"metadata":{"name":"e","namespace":"n"},"involvedObject":{"kind":"Pod","name":"p","namespace":"n","uid":"u"},"reason":"Started",
        "message":"Started container a","type":"Normal","count":1,"firstTimestamp":"2026-01-01T00:00:00Z","lastTimestamp":"2026-01-01T00:00:00Z",
        "source":{"component":"kubelet","host":"node"},"reportingComponent":"kubelet"}"#;
    measure("Lease, renewed", lease(), Some(LEASE), &LEASE.replace("00:00:00.0", "00:00:10.0"), "");
    measure("Event, created", One { api_version: "v1", kind: "Event" }, None, event, "");
    measure("Pod, created", pods(), None, &pod("False", "Pending"), "");
    measure("Pod, status", pods(), Some(&pod("False", "Pending")), &pod("True", "Running"), "status");
    measure("Pod, nothing changed", pods(), Some(&pod("True", "Running")), &pod("True", "Running"), "status");
}
