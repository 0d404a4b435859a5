//! What scheduling reads of a pod. A typed pod weighs 20 kB; this projection a few hundred bytes.
//!
//! Models pkg/scheduler/framework/types.go `PodInfo`.
mod affinity;
mod project;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use client::{Named, ObjectKey, controller_of};
use k8s_openapi::api::core::v1::{Affinity, Container, NodeSelector, ObjectReference, Pod, PreferredSchedulingTerm, Toleration, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

pub use self::affinity::{AffinityTerm, NamespaceLabels};
pub use self::project::project;
use crate::resources::Resources;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node; `0.0.0.0` stands for every address.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    pub topology_key: String,
    pub max_skew: i32,
    pub min_domains: i32,
    pub hard: bool,
    pub selector: LabelSelector,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

/// A claim that the pod uses; `own`: the one of an ephemeral volume.
#[derive(Clone, Debug)]
pub struct ClaimUse {
    pub name: String,
    pub own: bool,
}

/// A network disk named in the pod itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Disk {
    Gce { name: String, read_only: bool },
    Aws { id: String },
    Iscsi { iqn: String, read_only: bool },
    Rbd { monitors: Vec<String>, pool: String, image: String, read_only: bool },
}

/// A ResourceClaim that the pod refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClaimUse {
    /// The name inside the pod.
    pub name: String,
    pub source: DeviceClaimSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceClaimSource {
    Named(String),
    /// Made from a template; the name is known when the controller has made it. Empty: none is needed.
    Generated(Option<String>),
}

#[derive(Debug)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub owner: Option<OwnerReference>,
    pub labels: BTreeMap<String, String>,
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: i32,
    pub never_preempts: bool,
    pub deleting: bool,
    /// The scheduler has taken the pod's place away; it is on its way out.
    pub preempted: bool,
    /// Succeeded or Failed: takes no room.
    pub finished: bool,
    pub gates: Vec<String>,
    pub nominated_node: String,
    pub start_time: Option<Time>,
    pub requests: Resources,
    /// For scoring, with defaults where nothing is asked.
    pub assumed: Resources,
    pub node_selector: BTreeMap<String, String>,
    pub required_nodes: Option<NodeSelector>,
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub affinity: Vec<Arc<AffinityTerm>>,
    pub anti_affinity: Vec<Arc<AffinityTerm>>,
    pub preferred_affinity: Vec<(i32, Arc<AffinityTerm>)>,
    pub preferred_anti_affinity: Vec<(i32, Arc<AffinityTerm>)>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    pub spread: Vec<SpreadConstraint>,
    pub images: Vec<String>,
    pub claims: Vec<ClaimUse>,
    pub disks: Vec<Disk>,
    pub device_claims: Vec<DeviceClaimUse>,
}

/// A selector that does not parse cannot come from a validated object; it then matches nothing.
pub fn selector(typed: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>) -> LabelSelector {
    LabelSelector::from_typed(typed).unwrap_or_else(|_| LabelSelector::nothing())
}

impl PodInfo {
    pub fn new(pod: &Pod) -> Self {
        static EMPTY: std::sync::LazyLock<k8s_openapi::api::core::v1::PodSpec> = std::sync::LazyLock::new(Default::default);
        let spec = pod.spec.as_ref().unwrap_or(&EMPTY);
        let status = pod.status.as_ref();
        let (namespace, labels) = (pod.namespace(), pod.metadata.labels.as_ref());
        let running = || spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&spec.containers);
        let no_affinity = Affinity::default();
        let Affinity { node_affinity, pod_affinity, pod_anti_affinity } = spec.affinity.as_ref().unwrap_or(&no_affinity);
        let (near, away) = (pod_affinity.as_ref(), pod_anti_affinity.as_ref());
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let node_name = spec.node_name.clone().unwrap_or_default();
        let images = spec.init_containers.iter().flatten().chain(&spec.containers).filter_map(|c| c.image.clone()).collect();
        let mut info = Self {
            key: pod.key(),
            uid: pod.uid().to_owned(),
            resource_version: pod.resource_version().to_owned(),
            generation: pod.metadata.generation.unwrap_or_default(),
            owner: controller_of(&pod.metadata).cloned(),
            labels: labels.cloned().unwrap_or_default(),
            scheduler_name: spec.scheduler_name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            deleting: pod.is_deleting(),
            preempted: pod.is_deleting() && is_preempted(pod),
            finished: matches!(phase, "Succeeded" | "Failed"),
            gates: spec.scheduling_gates.iter().flatten().map(|g| g.name.clone()).collect(),
            nominated_node: status.and_then(|s| s.nominated_node_name.clone()).unwrap_or_default(),
            start_time: status.and_then(|s| s.start_time.clone()),
            requests: if node_name.is_empty() { requests::of_spec(pod, false) } else { requests::of_placed(pod) },
            assumed: requests::of_spec(pod, true),
            node_name,
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_nodes: node_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()),
            preferred_nodes: node_affinity
                .as_ref()
                .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone())
                .unwrap_or_default(),
            affinity: affinity::required(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()), namespace, labels),
            anti_affinity: affinity::required(
                away.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
                namespace,
                labels,
            ),
            preferred_affinity: affinity::preferred(
                near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
                namespace,
                labels,
            ),
            preferred_anti_affinity: affinity::preferred(
                away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
                namespace,
                labels,
            ),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            host_ports: host_ports(running()),
            spread: spec.topology_spread_constraints.iter().flatten().map(|c| spread(c, pod)).collect(),
            images,
            claims: claims(pod, spec.volumes.as_deref().unwrap_or_default()),
            disks: spec.volumes.iter().flatten().filter_map(disk).collect(),
            device_claims: device_claims(pod),
        };
        if info.is_assigned() {
            info.forget_wishes();
        }
        info
    }

    /// Leaves out what only decides where the pod itself goes: of one that has its place nobody asks, and there are very many of them.
    fn forget_wishes(&mut self) {
        (self.owner, self.required_nodes) = (None, None);
        (self.gates, self.preferred_nodes, self.tolerations, self.spread, self.images) = Default::default();
        self.node_selector = BTreeMap::new();
        self.scheduler_name = String::new();
    }

    /// How events name it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.resource_version.clone()),
            field_path: None,
        }
    }

    pub fn is_assigned(&self) -> bool {
        !self.node_name.is_empty()
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut targets = conditions.into_iter().flatten().filter(|c| c.type_ == "DisruptionTarget");
    targets.next().is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler"))
}

fn claims(pod: &Pod, volumes: &[Volume]) -> Vec<ClaimUse> {
    let used = volumes.iter().filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => Some(ClaimUse { name: source.claim_name.clone(), own: false }),
        (None, Some(_)) => Some(ClaimUse { name: format!("{}-{}", pod.name(), v.name), own: true }),
        (None, None) => None,
    });
    used.collect()
}

fn disk(volume: &Volume) -> Option<Disk> {
    if let Some(gce) = &volume.gce_persistent_disk {
        return Some(Disk::Gce { name: gce.pd_name.clone(), read_only: gce.read_only.unwrap_or_default() });
    }
    if let Some(aws) = &volume.aws_elastic_block_store {
        return Some(Disk::Aws { id: aws.volume_id.clone() });
    }
    if let Some(iscsi) = &volume.iscsi {
        return Some(Disk::Iscsi { iqn: iscsi.iqn.clone(), read_only: iscsi.read_only.unwrap_or_default() });
    }
    volume.rbd.as_ref().map(|rbd| Disk::Rbd {
        monitors: rbd.monitors.clone(),
        pool: rbd.pool.clone().unwrap_or_default(),
        image: rbd.image.clone(),
        read_only: rbd.read_only.unwrap_or_default(),
    })
}

fn device_claims(pod: &Pod) -> Vec<DeviceClaimUse> {
    let claims = pod.spec.as_ref().and_then(|s| s.resource_claims.as_ref());
    let made = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_ref());
    let used = claims.into_iter().flatten().map(|claim| {
        let source = match &claim.resource_claim_name {
            Some(name) => DeviceClaimSource::Named(name.clone()),
            None => {
                let status = made.into_iter().flatten().find(|s| s.name == claim.name);
                DeviceClaimSource::Generated(status.map(|s| s.resource_claim_name.clone().unwrap_or_default()))
            }
        };
        DeviceClaimUse { name: claim.name.clone(), source }
    });
    used.collect()
}

fn host_ports<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<HostPort> {
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|p| p.host_port.unwrap_or_default() > 0)
        .map(|p| HostPort {
            ip: p.host_ip.clone().unwrap_or_default(),
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: p.host_port.unwrap_or_default(),
        })
        .collect()
}

fn spread(constraint: &k8s_openapi::api::core::v1::TopologySpreadConstraint, pod: &Pod) -> SpreadConstraint {
    let mut typed = constraint.label_selector.clone();
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.label(key) {
            typed.get_or_insert_default().match_labels.get_or_insert_default().insert(key.clone(), value.to_owned());
        }
    }
    SpreadConstraint {
        topology_key: constraint.topology_key.clone(),
        max_skew: constraint.max_skew,
        min_domains: constraint.min_domains.unwrap_or(1),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        selector: selector(typed.as_ref()),
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_conflict_across_the_wildcard_address() {
        let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
        assert!(port("").conflicts(&port("10.0.0.1")));
        assert!(!port("10.0.0.2").conflicts(&port("10.0.0.1")));
    }

    #[test]
    fn equal_terms_of_different_pods_are_one_object() {
        let pod = |name: &str| {
            let term = serde_json::json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}});
            let object = serde_json::json!({"metadata": {"name": name, "namespace": "shared-terms"}, "spec": {"containers": [],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
            PodInfo::new(&serde_json::from_value(object).unwrap())
        };
        assert!(Arc::ptr_eq(&pod("a").anti_affinity[0], &pod("b").anti_affinity[0]));
    }
}
