//! The shapes and sizes of upstream's scheduler_perf (test/integration/scheduler_perf, v1.37).
use serde_json::{Value, json};

pub const NAMESPACES: [&str; 2] = ["sched-0", "sched-1"];

pub struct Shape {
    pub name: &'static str,
    /// Nodes, pods that are there before, pods that are measured.
    pub sizes: [usize; 3],
    pub aim: f64,
    pub before: fn(usize) -> Value,
    pub measured: fn(usize) -> Value,
    /// How many of the pods that were there before stay unbound.
    pub stuck: bool,
    /// Room has to be made first.
    pub preempts: bool,
}

pub fn shapes() -> Vec<Shape> {
    let shape = |name, sizes, aim, before, measured| Shape { name, sizes, aim, before, measured, stuck: false, preempts: false };
    vec![
        shape("SchedulingBasic", [5000, 1000, 10_000], 8000.0, plain, plain),
        shape("PodAntiAffinity", [5000, 1000, 2000], 900.0, apart, apart),
        shape("TopologySpreading", [5000, 5000, 5000], 2300.0, plain, spread),
        shape("PreferredAffinity", [5000, 5000, 5000], 800.0, near, near),
        Shape { preempts: true, ..shape("Preemption", [5000, 20_000, 5000], 2850.0, low, high) },
        Shape { stuck: true, ..shape("Unschedulable", [5000, 100, 10_000], 2950.0, huge, plain) },
    ]
}

fn pod(name: String, namespace: &str, mut spec: Value, cpu: &str, memory: &str) -> Value {
    let requests = json!({"cpu": cpu, "memory": memory});
    spec["containers"] = json!([{"name": "pause", "image": "registry.k8s.io/pause:3.10.2", "ports": [{"containerPort": 80}],
        "resources": {"requests": requests, "limits": requests}}]);
    let labels = json!({"color": "green"});
    json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec})
}

pub fn plain(i: usize) -> Value {
    pod(format!("pod-{i}"), NAMESPACES[1], json!({}), "100m", "500Mi")
}

fn term() -> Value {
    json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"color": "green"}}, "namespaces": NAMESPACES})
}

fn apart(i: usize) -> Value {
    let spec = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term()]}}});
    pod(format!("apart-{i}"), NAMESPACES[i % 2], spec, "100m", "500Mi")
}

fn near(i: usize) -> Value {
    let preferred = json!([{"weight": 1, "podAffinityTerm": term()}]);
    let spec = json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}});
    pod(format!("near-{i}"), NAMESPACES[i % 2], spec, "100m", "500Mi")
}

fn spread(i: usize) -> Value {
    let constraint = json!({"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "green"}}});
    pod(format!("spread-{i}"), NAMESPACES[1], json!({"topologySpreadConstraints": [constraint]}), "100m", "500Mi")
}

fn low(i: usize) -> Value {
    pod(format!("low-{i}"), NAMESPACES[1], json!({"terminationGracePeriodSeconds": 0}), "900m", "500Mi")
}

fn high(i: usize) -> Value {
    pod(format!("high-{i}"), NAMESPACES[1], json!({"priority": 10, "priorityClassName": "high"}), "3000m", "500Mi")
}

fn huge(i: usize) -> Value {
    pod(format!("huge-{i}"), NAMESPACES[0], json!({}), "9", "500Mi")
}

pub fn node(i: usize) -> Value {
    let labels = json!({"kubernetes.io/hostname": format!("node-{i}"), "topology.kubernetes.io/zone": format!("moon-{}", i % 3)});
    let capacity = json!({"pods": "110", "cpu": "4", "memory": "32Gi"});
    let status = json!({"capacity": capacity, "allocatable": capacity, "conditions": [{"type": "Ready", "status": "True"}]});
    json!({"metadata": {"name": format!("node-{i}"), "labels": labels}, "status": status})
}

pub fn prefix(make: fn(usize) -> Value) -> &'static str {
    let name = make(0)["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let end = name.rfind('-').map_or(name.len(), |i| i + 1);
    ["pod-", "apart-", "near-", "spread-", "low-", "high-", "huge-"].into_iter().find(|p| *p == &name[..end]).unwrap_or("")
}
