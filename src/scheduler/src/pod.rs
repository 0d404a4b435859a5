//! What scheduling reads of a pod. A typed pod weighs 20 kB; this projection a few hundred bytes.
//!
//! Models pkg/scheduler/framework/types.go `PodInfo` and component-helpers/resource `PodRequests`.
use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use client::{Named, ObjectKey};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerStatus, NodeSelector, Pod, PodAffinityTerm, PodSpec, PodStatus, PreferredSchedulingTerm, Toleration,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Amounts by resource name. CPU in millicores, everything else in whole units (bytes, pieces).
pub type Amounts = BTreeMap<Arc<str>, i64>;

/// Requests assumed of a pod that names none, for scoring only (pkg/scheduler/util/pod_resources.go).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

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

/// One required or preferred term of inter-pod affinity, its selectors compiled.
#[derive(Debug)]
pub struct AffinityTerm {
    namespaces: Vec<String>,
    /// Set where the term selects namespaces by label; every namespace where the selector is empty.
    all_namespaces: bool,
    namespace_selector: Option<LabelSelector>,
    selector: LabelSelector,
    pub topology_key: String,
}

impl AffinityTerm {
    fn new(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        let namespace_selector = term.namespace_selector.as_ref().map(|s| selector(Some(s)));
        Self {
            namespaces,
            all_namespaces: namespace_selector.as_ref().is_some_and(LabelSelector::is_empty),
            namespace_selector,
            selector: selector(term.label_selector.as_ref()),
            topology_key: term.topology_key.clone(),
        }
    }

    pub fn matches(&self, pod: &PodInfo, namespace_labels: &dyn Fn(&str) -> Option<BTreeMap<String, String>>) -> bool {
        let namespace = pod.key.namespace.as_str();
        let in_namespace = self.all_namespaces
            || self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches_map(namespace_labels(namespace).as_ref()));
        in_namespace && self.selector.matches_map(Some(&pod.labels))
    }
}

#[derive(Debug)]
pub struct SpreadConstraint {
    pub topology_key: String,
    pub max_skew: i32,
    pub min_domains: i32,
    pub hard: bool,
    pub selector: LabelSelector,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

#[derive(Debug)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: i32,
    pub deleting: bool,
    /// Succeeded or Failed: takes no room.
    pub finished: bool,
    pub gated: bool,
    pub requests: Amounts,
    /// CPU and memory for scoring, with defaults where nothing is asked.
    pub scoring_milli_cpu: i64,
    pub scoring_memory_bytes: i64,
    pub node_selector: BTreeMap<String, String>,
    pub required_nodes: Option<NodeSelector>,
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<(i32, AffinityTerm)>,
    pub preferred_anti_affinity: Vec<(i32, AffinityTerm)>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    pub spread: Vec<SpreadConstraint>,
    pub images: Vec<String>,
    pub claims: Vec<ClaimUse>,
    /// Names in the pod that need a part of the scheduler that is not there yet.
    pub unsupported: Option<&'static str>,
}

/// A claim that the pod uses; `own`: the one of an ephemeral volume.
#[derive(Clone, Debug)]
pub struct ClaimUse {
    pub name: String,
    pub own: bool,
}

/// A selector that does not parse cannot come from a validated object; it then matches nothing.
fn selector(typed: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>) -> LabelSelector {
    LabelSelector::from_typed(typed).or_else(|_| LabelSelector::from_typed(None)).expect("no selector at all is valid")
}

impl PodInfo {
    pub fn new(pod: &Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.namespace().to_owned();
        let requests = requests(pod);
        let containers: Vec<&Container> = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&spec.containers).collect();
        let nonzero = |name: &str, default: i64| match requests.get(name) {
            Some(amount) if *amount > 0 => *amount,
            _ => default * containers.len() as i64,
        };
        let Affinity { node_affinity, pod_affinity, pod_anti_affinity } = spec.affinity.unwrap_or_default();
        let terms = |list: Option<Vec<PodAffinityTerm>>| -> Vec<_> { list.iter().flatten().map(|t| AffinityTerm::new(t, &namespace)).collect() };
        let weighted = |list: Option<Vec<WeightedPodAffinityTerm>>| -> Vec<_> {
            list.iter().flatten().map(|w| (w.weight, AffinityTerm::new(&w.pod_affinity_term, &namespace))).collect()
        };
        let pod_affinity = pod_affinity.unwrap_or_default();
        let anti = pod_anti_affinity.unwrap_or_default();
        let node_affinity = node_affinity.unwrap_or_default();
        let claims = spec.volumes.iter().flatten().filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(source), _) => Some(ClaimUse { name: source.claim_name.clone(), own: false }),
            (None, Some(_)) => Some(ClaimUse { name: format!("{}-{}", pod.name(), v.name), own: true }),
            (None, None) => None,
        });
        let claims = claims.collect();
        let unsupported = match () {
            () if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) => Some("resource claims"),
            () => None,
        };
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        Self {
            key: pod.key(),
            uid: pod.uid().to_owned(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            node_name: spec.node_name.unwrap_or_default(),
            scheduler_name: spec.scheduler_name.unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            deleting: pod.is_deleting(),
            finished: matches!(phase, "Succeeded" | "Failed"),
            gated: spec.scheduling_gates.is_some_and(|g| !g.is_empty()),
            scoring_milli_cpu: nonzero("cpu", DEFAULT_MILLI_CPU),
            scoring_memory_bytes: nonzero("memory", DEFAULT_MEMORY_BYTES),
            requests: requests.clone(),
            node_selector: spec.node_selector.unwrap_or_default(),
            required_nodes: node_affinity.required_during_scheduling_ignored_during_execution,
            preferred_nodes: node_affinity.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
            affinity: terms(pod_affinity.required_during_scheduling_ignored_during_execution),
            anti_affinity: terms(anti.required_during_scheduling_ignored_during_execution),
            preferred_affinity: weighted(pod_affinity.preferred_during_scheduling_ignored_during_execution),
            preferred_anti_affinity: weighted(anti.preferred_during_scheduling_ignored_during_execution),
            tolerations: spec.tolerations.unwrap_or_default(),
            host_ports: host_ports(spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&spec.containers)),
            spread: spec.topology_spread_constraints.iter().flatten().map(|c| spread(c, pod)).collect(),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            claims,
            unsupported,
        }
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
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

/// Amount of `quantity` in the unit of [`Amounts`].
pub fn amount(resource: &str, quantity: &str) -> i64 {
    let Ok(parsed) = Quantity::parse(quantity) else { return 0 };
    if resource == "cpu" { parsed.milli_value() } else { parsed.value() }
}

type Requests = BTreeMap<String, ApiQuantity>;

fn amounts(requests: Option<&Requests>) -> Amounts {
    requests.into_iter().flatten().map(|(name, q)| (Arc::from(name.as_str()), amount(name, &q.0))).collect()
}

/// What the pod takes of its node: the most of what it wants, what it was granted and what it still has, for a resize of a running
/// pod takes its time. What the node can never give is not counted.
/// Models k8s.io/component-helpers/resource/helpers.go PodRequests with UseStatusResources, v1.37.
fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let status = pod.status.as_ref();
    let infeasible = status.into_iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
    let status_of = |name: &str| {
        let all = status.into_iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        all.into_iter().find(|c| c.name == name)
    };
    let wanted = |c: &Container| c.resources.as_ref().and_then(|r| r.requests.clone());
    let granted = |c: &Container| status_of(&c.name).and_then(|s| s.allocated_resources.clone()).or_else(|| wanted(c).filter(|_| !infeasible));
    let in_force = |c: &Container| {
        let reported = status_of(&c.name).and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.clone());
        reported.or_else(|| granted(c))
    };
    let mut total = if infeasible { Amounts::new() } else { of_containers(spec, &wanted) };
    for of in [&granted as &dyn Fn(&Container) -> Option<Requests>, &in_force] {
        raise(&mut total, &of_containers(spec, of));
    }
    // Pod-level requests stand for the sum of the containers'.
    if let Some(pod_level) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let mut most = if infeasible { Amounts::new() } else { amounts(Some(pod_level)) };
        let reported = status.and_then(|s| s.resources.as_ref()).map(|r| r.requests.as_ref());
        if let Some(reported) = reported {
            let others = [reported, status.and_then(|s| s.allocated_resources.as_ref())];
            for other in others {
                let mut other = amounts(other);
                other.retain(|name, _| pod_level.contains_key(&**name));
                raise(&mut most, &other);
            }
        }
        total.extend(most);
    }
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// Containers and sidecars together, or the largest moment of the init phase, whichever is more.
fn of_containers(spec: &PodSpec, requests: &dyn Fn(&Container) -> Option<Requests>) -> Amounts {
    let of = |c: &Container| amounts(requests(c).as_ref());
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut init_peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if is_sidecar(container) {
            add(&mut total, &now);
            add(&mut sidecars, &now);
            now = sidecars.clone();
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut init_peak, &now);
    }
    raise(&mut total, &init_peak);
    total
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += amount;
    }
}

pub fn subtract(total: &mut Amounts, less: &Amounts) {
    for (name, amount) in less {
        *total.entry(name.clone()).or_default() -= amount;
    }
}

fn raise(total: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let now = total.entry(name.clone()).or_default();
        *now = (*now).max(*amount);
    }
}

/// Whether what the pod has been granted, or has, is not what it wants: hardly ever.
fn is_resized(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return false };
    let differs = |wanted: Option<&Requests>, status: &ContainerStatus| {
        let has = status.resources.as_ref().and_then(|r| r.requests.as_ref());
        [status.allocated_resources.as_ref(), has].into_iter().flatten().any(|other| wanted != Some(other))
    };
    let statuses: Vec<&ContainerStatus> = status.container_statuses.iter().chain(&status.init_container_statuses).flatten().collect();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    spec.resources.is_some()
        || containers.into_iter().any(|c| {
            let wanted = c.resources.as_ref().and_then(|r| r.requests.as_ref());
            statuses.iter().any(|s| s.name == c.name && differs(wanted, s))
        })
}

/// Of statuses only what their containers have been granted.
fn sizes(statuses: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let keep = |s: ContainerStatus| ContainerStatus { name: s.name, allocated_resources: s.allocated_resources, resources: s.resources, ..ContainerStatus::default() };
    statuses.into_iter().map(keep).collect()
}

/// Drops what scheduling never reads, before an informer stores the pod.
pub fn project(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.metadata.owner_references = None;
    if let Some(spec) = &mut pod.spec {
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            *container = Container {
                image: container.image.take(),
                ports: container.ports.take(),
                resources: container.resources.take(),
                restart_policy: container.restart_policy.take(),
                ..Container::default()
            };
        }
        spec.ephemeral_containers = None;
        for volume in spec.volumes.iter_mut().flatten() {
            *volume = k8s_openapi::api::core::v1::Volume {
                name: std::mem::take(&mut volume.name),
                persistent_volume_claim: volume.persistent_volume_claim.take(),
                ephemeral: volume.ephemeral.take(),
                ..Default::default()
            };
        }
        spec.security_context = None;
        spec.dns_config = None;
        spec.host_aliases = None;
    }
    let resizes = is_resized(pod);
    if let Some(status) = &mut pod.status {
        *status = PodStatus {
            phase: status.phase.take(),
            conditions: status.conditions.take().map(|c| c.into_iter().filter(|c| matches!(&*c.type_, "PodScheduled" | "PodResizePending")).collect()),
            resources: status.resources.take().filter(|_| resizes),
            allocated_resources: status.allocated_resources.take().filter(|_| resizes),
            container_statuses: status.container_statuses.take().filter(|_| resizes).map(sizes),
            init_container_statuses: status.init_container_statuses.take().filter(|_| resizes).map(sizes),
            nominated_node_name: status.nominated_node_name.take(),
            ..Default::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> PodInfo {
        PodInfo::new(&serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_pod_that_is_resized_counts_with_the_most_of_what_it_wants_and_has() {
        let of = |wanted: &str, granted: &str, has: &str, reason: &str| {
            let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": wanted}}}]},
                "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "allocatedResources": {"cpu": granted}, "resources": {"requests": {"cpu": has}}}]}});
            PodInfo::new(&serde_json::from_value(pod).unwrap()).requests.get("cpu").copied()
        };
        assert_eq!(of("2", "1", "1", "Deferred"), Some(2000));
        assert_eq!(of("1", "1", "3", "Deferred"), Some(3000));
        assert_eq!(of("9", "1", "2", "Infeasible"), Some(2000));
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_init_container() {
        let p = pod(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}, {"name": "b", "resources": {"requests": {"cpu": "200m"}}}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1"}}}
            ],
            "overhead": {"cpu": "10m"}
        }));
        assert_eq!(p.requests.get("cpu"), Some(&1060));
        assert_eq!(p.requests.get("memory"), Some(&(1 << 30)));
    }

    #[test]
    fn scoring_assumes_something_of_a_pod_that_asks_for_nothing() {
        let p = pod(serde_json::json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        assert_eq!((p.scoring_milli_cpu, p.scoring_memory_bytes), (200, 400 << 20));
    }

    #[test]
    fn host_ports_conflict_across_the_wildcard_address() {
        let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
        assert!(port("").conflicts(&port("10.0.0.1")) && !port("10.0.0.1").conflicts(&port("10.0.0.2")));
    }
}
