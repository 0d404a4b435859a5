//! The node's labels and status.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::machine::Machine;
use crate::config::KubeletConfig;
use crate::kubelet::Context;
use crate::time;

/// Upstream lists no more (nodeStatusMaxImages).
const IMAGES_MAX: usize = 50;
const KUBELET_PORT: i32 = 10250;
/// Upstream's default eviction thresholds.
pub const MEMORY_MIN_BYTES: u64 = 100 << 20;
pub const DISK_MIN: f64 = 0.10;
const INODES_MIN: f64 = 0.05;
const PIDS_MIN: f64 = 0.02;

pub fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let architecture = Machine::default_architecture();
    let mut out: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    out.extend(config.node_labels.clone());
    out
}

impl Machine {
    fn default_architecture() -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }
}

pub async fn status(cx: &Arc<Context>, node: &Node, now: Timestamp) -> NodeStatus {
    let (config, machine) = (&cx.config, &cx.machine);
    let quantity = |text: String| Quantity(text);
    let cpus = machine.cpu_milli / 1000;
    let capacity: BTreeMap<String, Quantity> = [
        ("cpu", cpus.to_string()),
        ("memory", format!("{}Ki", machine.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", machine.storage_bytes / 1024)),
        ("pods", config.max_pods.to_string()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), quantity(v)))
    .collect();
    let mut allocatable = capacity.clone();
    allocatable.insert("memory".into(), quantity(format!("{}Ki", machine.allocatable_memory_bytes() / 1024)));
    allocatable.insert("ephemeral-storage".into(), quantity(machine.allocatable_storage_bytes().to_string()));
    let images = {
        let images = cx.images.clone();
        tokio::task::spawn_blocking(move || images.list().unwrap_or_default()).await.unwrap_or_default()
    };
    let old = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    NodeStatus {
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".into(), address: config.node_ip.to_string() },
            NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() },
        ]),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(cx, old.map(Vec::as_slice).unwrap_or_default(), now)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: KUBELET_PORT }) }),
        images: Some(image_list(images)),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: config.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kubelet_version: config.kubelet_version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            name: Some(String::new()),
            features: Some(NodeRuntimeHandlerFeatures { recursive_read_only_mounts: Some(true), user_namespaces: Some(false) }),
        }]),
        volumes_in_use: Some(cx.csi.in_use()).filter(|names| !names.is_empty() || node.status.iter().any(|s| s.volumes_in_use.is_some())),
        ..NodeStatus::default()
    }
}

fn image_list(mut images: Vec<images::Image>) -> Vec<ContainerImage> {
    images.sort_by_key(|i| (std::cmp::Reverse(i.size_bytes), i.id.as_str().to_owned()));
    images
        .into_iter()
        .take(IMAGES_MAX)
        .map(|image| ContainerImage {
            names: Some(image.digests.into_iter().chain(image.tags).take(5).collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect()
}

fn conditions(cx: &Arc<Context>, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let free = cx.machine.free();
    let pressure = |type_: &str, bad: bool, yes: (&str, &str), no: (&str, &str)| {
        let (reason, message) = if bad { yes } else { no };
        (type_.to_owned(), bad, reason.to_owned(), message.to_owned())
    };
    let network = cx.network.borrow().is_some();
    let ready = if network {
        ("Ready".to_owned(), true, "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned())
    } else {
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:the node has no pod network yet";
        ("Ready".to_owned(), false, "KubeletNotReady".to_owned(), message.to_owned())
    };
    let all = [
        pressure(
            "MemoryPressure",
            free.memory_available_bytes < MEMORY_MIN_BYTES,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            free.disk_available_fraction < DISK_MIN || free.inodes_available_fraction < INODES_MIN,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            free.pids_available_fraction < PIDS_MIN,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ];
    all.into_iter()
        .map(|(type_, is, reason, message)| {
            let status = if is { "True" } else { "False" };
            let before = old.iter().find(|c| c.type_ == type_ && c.status == status);
            NodeCondition {
                last_heartbeat_time: Some(time::api(now)),
                last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(time::api(now))),
                status: status.into(),
                reason: Some(reason),
                message: Some(message),
                type_,
            }
        })
        .collect()
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether more than heartbeats differ.
pub fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let told = |status: &NodeStatus| -> Vec<(String, String, Option<String>)> {
        let mut list: Vec<_> =
            status.conditions.iter().flatten().filter(|c| OWN.contains(&c.type_.as_str())).map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
        list.sort();
        list
    };
    told(old) != told(new)
        || old.addresses != new.addresses
        || old.capacity != new.capacity
        || old.allocatable != new.allocatable
        || old.node_info != new.node_info
        || old.volumes_in_use.as_deref().unwrap_or_default() != new.volumes_in_use.as_deref().unwrap_or_default()
        || old.images.as_deref().unwrap_or_default() != new.images.as_deref().unwrap_or_default()
}

/// The conditions that this kubelet writes.
const OWN: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// The strategic merge patch: conditions and addresses merge by type, everything else is replaced.
pub fn patch(old: &NodeStatus, new: &NodeStatus) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (serde_json::to_value(old), serde_json::to_value(new)) else { return None };
    let mut status = serde_json::Map::new();
    for (key, value) in new {
        if old.get(&key) != Some(&value) {
            status.insert(key, value);
        }
    }
    (!status.is_empty()).then(|| json!({"status": status}))
}
