//! Prints a pod's records as the API's PodStatus.
//!
//! Models pkg/kubelet/kubelet_pods.go getPhase, generateAPIPodStatus, convertToAPIContainerStatuses and
//! pkg/kubelet/status/generate.go, v1.37. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ContainerUser, HostIP,
    LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::plan::restarts;
use super::record::{Finished, Instance, Kind, Record};
use crate::allocation::{IN_PROGRESS, PENDING, Sizes, sizes};
use crate::resources::totals;
use crate::{resources, time};

/// What the status says beside the containers.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The sandbox exists and its network is up.
    pub sandbox_ready: bool,
    pub pod_ips: Vec<String>,
    pub host_ip: String,
    pub started_at: Option<Timestamp>,
    /// The pod is being stopped for good: no container is waited for any more.
    pub terminating: bool,
    /// Set when the kubelet failed the pod itself (DeadlineExceeded, rejected at admission ...).
    pub verdict: Option<Verdict>,
    /// Nothing runs any more, and nothing will.
    pub all_stopped: bool,
    /// What the pod's cgroups were told last: containers', and its own.
    pub actuated: Option<(Sizes, resources::Limits)>,
    /// How a change of its resources fares.
    pub resize: Vec<PodCondition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

pub fn status(pod: &Pod, records: &[Record], facts: &Facts, now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let phase = match &facts.verdict {
        Some(_) => Phase::Failed,
        None => final_phase(phase(pod, records), pod, facts),
    };
    let before = old.phase.as_deref();
    // A pod that has ended never comes back.
    let phase = match before {
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        _ => phase,
    };
    let initialized = records.iter().any(|r| r.kind == Kind::Main && r.current.is_some()) || init_done(records);
    let terminal = facts.all_stopped && (facts.terminating || phase.terminal());
    let of = |kinds: fn(Kind) -> bool| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = records
            .iter()
            .filter(|r| kinds(r.kind))
            .map(|r| container_status(pod, r, initialized, terminal, &old, facts))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let init_statuses = of(Kind::is_init);
    let statuses = of(|k| k == Kind::Main);
    let ephemeral = of(|k| k == Kind::Ephemeral);

    let everything: Vec<&ContainerStatus> = init_statuses.iter().flatten().chain(statuses.iter().flatten()).collect();
    let generation = pod.metadata.generation;
    let ready = containers_ready(pod, &everything, phase);
    let mut wanted = vec![
        condition("PodReadyToStartContainers", facts.sandbox_ready && !facts.all_stopped),
        initialized_condition(pod, &everything, phase),
        pod_ready(pod, old.conditions.as_deref().unwrap_or_default(), &ready),
        ready,
    ];
    if old.conditions.iter().flatten().all(|c| c.type_ != "PodScheduled") {
        wanted.push(condition("PodScheduled", true));
    }
    let mut before = old.conditions.unwrap_or_default();
    before.retain(|c| c.type_ != PENDING && c.type_ != IN_PROGRESS);
    let mut conditions = merge_conditions(before, wanted, generation, now);
    if !phase.terminal() {
        conditions.extend(facts.resize.iter().cloned());
    }
    let (resources, allocated_resources) = pod_resources(pod, phase, facts);

    PodStatus {
        phase: Some(phase.as_str().into()),
        reason: facts.verdict.as_ref().map(|v| v.reason.clone()).or(old.reason),
        message: facts.verdict.as_ref().map(|v| v.message.clone()).or(old.message),
        observed_generation: generation,
        conditions: Some(conditions),
        container_statuses: statuses,
        init_container_statuses: init_statuses,
        host_ip: Some(facts.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: facts.host_ip.clone() }]),
        pod_ip: facts.pod_ips.first().cloned().or(old.pod_ip),
        pod_ips: if facts.pod_ips.is_empty() { old.pod_ips } else { Some(facts.pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()) },
        qos_class: Some(old.qos_class.unwrap_or_else(|| resources::qos(pod).as_str().into())),
        start_time: old.start_time.or(facts.started_at.map(time::api)),
        ephemeral_container_statuses: ephemeral,
        nominated_node_name: old.nominated_node_name,
        resource_claim_statuses: old.resource_claim_statuses,
        resources: Some(resources),
        allocated_resources,
        ..PodStatus::default()
    }
}

/// Of the pod as a whole: what is in force (while it runs: as its cgroup has it), and the requests that it was granted.
/// Models convertToAPIPodLevelResourcesStatus.
fn pod_resources(pod: &Pod, phase: Phase, facts: &Facts) -> (ResourceRequirements, Option<BTreeMap<String, Quantity>>) {
    let some = |list: BTreeMap<String, Quantity>| (!list.is_empty()).then_some(list);
    let granted = some(totals::requests(pod));
    let own = pod.spec.as_ref().and_then(|s| s.resources.clone()).unwrap_or_default();
    let Some((actuated, cgroup)) = facts.actuated.as_ref().filter(|_| phase == Phase::Running) else {
        return (ResourceRequirements { requests: granted.clone(), limits: some(totals::limits(pod)), ..own }, granted);
    };
    let before = actuated.apply(&std::sync::Arc::new(pod.clone()));
    let own = actuated.pod.clone().unwrap_or(own);
    let (mut requests, mut limits) = (own.requests.clone().unwrap_or_default(), own.limits.clone().unwrap_or_default());
    let all = totals::requests(&before);
    // At or below the least that a cgroup can hold, what was asked for stands.
    if totals::request(&before, "cpu").is_some_and(|milli| milli > CPU_MILLI_MIN) {
        requests.extend(all.get("cpu").map(|q| ("cpu".to_owned(), q.clone())));
    }
    if let Some(memory) = all.get("memory") {
        requests.entry("memory".to_owned()).or_insert_with(|| memory.clone());
    }
    let in_force = totals::limits(&before);
    for (name, set) in [("cpu", cgroup.cpu_quota_microseconds.is_some()), ("memory", cgroup.memory_limit_bytes.is_some())] {
        if set && let Some(limit) = in_force.get(name) {
            limits.insert(name.to_owned(), limit.clone());
        }
    }
    (ResourceRequirements { requests: some(requests), limits: some(limits), ..own }, granted)
}

/// The kernel's least shares are 2.
const CPU_MILLI_MIN: i64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub fn terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A terminal phase is only reported once nothing runs; until then the pod counts as running.
fn final_phase(phase: Phase, _pod: &Pod, facts: &Facts) -> Phase {
    if phase.terminal() && !facts.all_stopped { Phase::Running } else { phase }
}

/// Models getPhase.
pub fn phase(pod: &Pod, records: &[Record]) -> Phase {
    let spec_of = |r: &Record| pod.spec.as_ref().and_then(|s| super::record::container(s, &r.name));
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let restart_policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let (mut pending_init, mut failed_init) = (0, 0);
    for record in records.iter().filter(|r| r.kind == Kind::Init) {
        match &record.current {
            None => pending_init += 1,
            Some(Instance::Running(_)) => pending_init += 1,
            Some(Instance::Finished(f)) if f.exit_code == 0 => {}
            Some(Instance::Finished(f)) if restarts(pod, spec_of(record).as_deref(), Kind::Init, f.exit_code) => pending_init += 1,
            Some(Instance::Finished(_)) => failed_init += 1,
        }
    }
    for record in records.iter().filter(|r| r.kind == Kind::Sidecar) {
        if record.running().is_none_or(|r| !r.started) && record.finished().is_none() {
            pending_init += 1;
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded, mut unknown) = (0, 0, 0, 0, 0);
    for record in records.iter().filter(|r| r.kind == Kind::Main) {
        match &record.current {
            Some(Instance::Running(_)) => running += 1,
            Some(Instance::Finished(f)) => {
                if record.waiting.is_some() || record.renew {
                    waiting += 1;
                } else {
                    stopped += 1;
                    if f.exit_code == 0 {
                        succeeded += 1;
                    }
                }
            }
            None if record.waiting.is_some() || record.starting => waiting += 1,
            None => unknown += 1,
        }
    }
    let begun = records.iter().any(|r| r.kind == Kind::Main && r.current.is_some());
    if failed_init > 0 && restart_policy == "Never" {
        return Phase::Failed;
    }
    if failed_init > 0 {
        return Phase::Failed;
    }
    if pending_init > 0 && !begun {
        return Phase::Pending;
    }
    // A container that crashed and waits for its next attempt keeps the pod running.
    if waiting > 0 {
        return if begun { Phase::Running } else { Phase::Pending };
    }
    if running > 0 && unknown == 0 {
        return Phase::Running;
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        if restart_policy == "Always" && !terminating {
            return Phase::Running;
        }
        if stopped == succeeded {
            return Phase::Succeeded;
        }
        if restart_policy == "Never" || terminating {
            return Phase::Failed;
        }
        return Phase::Running;
    }
    if begun { Phase::Running } else { Phase::Pending }
}

fn init_done(records: &[Record]) -> bool {
    records.iter().filter(|r| r.kind.is_init()).all(|r| match (r.kind, &r.current) {
        (Kind::Sidecar, Some(Instance::Running(running))) => running.started,
        (Kind::Init, Some(Instance::Finished(f))) => f.exit_code == 0,
        _ => false,
    })
}

fn terminated(finished: &Finished) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: (!finished.id.is_empty()).then(|| format!("rk://{}", finished.id)),
            exit_code: finished.exit_code,
            signal: finished.signal,
            reason: Some(finished.reason.clone()),
            message: finished.message.clone(),
            started_at: finished.started_at.or(finished.finished_at).map(time::api),
            finished_at: finished.finished_at.map(time::api),
        }),
        ..ContainerState::default()
    }
}

fn waiting(reason: &str, message: Option<&str>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message: message.map(Into::into) }),
        ..ContainerState::default()
    }
}

fn container_status(pod: &Pod, record: &Record, initialized: bool, terminal: bool, old: &PodStatus, facts: &Facts) -> ContainerStatus {
    let spec = pod.spec.as_ref().and_then(|s| super::record::container(s, &record.name));
    let has_init = pod.spec.as_ref().is_some_and(|s| s.init_containers.as_ref().is_some_and(|i| !i.is_empty()));
    let mut status = ContainerStatus {
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        restart_count: i32::try_from(record.attempt).unwrap_or(i32::MAX),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let previous = record.previous.as_ref().map(terminated).unwrap_or_default();
    match &record.current {
        Some(Instance::Running(running)) => {
            status.container_id = Some(format!("rk://{}", running.id));
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(time::api(running.started_at)) }),
                ..ContainerState::default()
            });
            status.last_state = Some(previous);
            // A regular init container is neither started nor ready while it runs: it is ready once it has succeeded.
            status.started = Some(running.started && record.kind != Kind::Init);
            status.ready = running.started && running.ready && record.kind != Kind::Init;
        }
        Some(Instance::Finished(finished)) => {
            status.container_id = (!finished.id.is_empty()).then(|| format!("rk://{}", finished.id));
            match record.waiting.as_ref().filter(|_| !terminal) {
                Some(why) => {
                    status.state = Some(waiting(&why.reason, why.message.as_deref()));
                    status.last_state = Some(terminated(finished));
                }
                None => {
                    status.state = Some(terminated(finished));
                    status.last_state = Some(previous);
                }
            }
            status.ready = record.kind == Kind::Init && finished.exit_code == 0;
        }
        None => {
            status.last_state = Some(previous);
            status.state = Some(match (&record.waiting, terminal) {
                (Some(why), false) => waiting(&why.reason, why.message.as_deref()),
                (None, false) => {
                    let behind = has_init && !initialized;
                    waiting(if behind { "PodInitializing" } else { "ContainerCreating" }, None)
                }
                // It never ran and never will: upstream reports what it cannot know, unless it knew it was waiting.
                (why, true) => never_ran(why.as_ref().map(|w| w.reason.as_str()), old, record),
            });
        }
    }
    if let Some(spec) = spec {
        decorate(&mut status, &spec, record, pod, facts);
    }
    status
}

fn never_ran(waiting_for: Option<&str>, old: &PodStatus, record: &Record) -> ContainerState {
    let before = old.container_statuses.iter().chain(&old.init_container_statuses).flatten().find(|s| s.name == record.name);
    if let (Some(state), Some(_)) = (before.and_then(|s| s.state.clone()), waiting_for) {
        return state;
    }
    match before.and_then(|s| s.state.clone()) {
        Some(state) if state.waiting.is_some() => state,
        _ => ContainerState {
            terminated: Some(ContainerStateTerminated {
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                exit_code: 137,
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
    }
}

fn decorate(status: &mut ContainerStatus, spec: &Container, record: &Record, pod: &Pod, facts: &Facts) {
    if let Some(current) = &record.current {
        let allocated = spec.resources.clone().unwrap_or_default();
        status.allocated_resources.clone_from(&allocated.requests);
        let actuated = facts.actuated.as_ref().and_then(|(sizes, _)| sizes.container(&record.name));
        status.resources = Some(match (current, actuated) {
            (Instance::Running(_), Some(actuated)) => sizes::shown(&allocated, actuated),
            _ => ResourceRequirements { claims: None, ..allocated },
        });
    }
    let mounts: Vec<VolumeMountStatus> = spec
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only,
            recursive_read_only: (m.read_only == Some(true)).then(|| m.recursive_read_only.clone().unwrap_or_else(|| "Disabled".into())),
            ..VolumeMountStatus::default()
        })
        .collect();
    status.volume_mounts = (!mounts.is_empty()).then_some(mounts);
    if record.running().is_some() {
        status.user = container_user(pod, spec);
    }
}

/// Only when the pod states the user: the image's default is not looked up again for each status.
fn container_user(pod: &Pod, spec: &Container) -> Option<ContainerUser> {
    let own = spec.security_context.as_ref();
    let all = pod.spec.as_ref()?.security_context.as_ref();
    let uid = own.and_then(|s| s.run_as_user).or(all.and_then(|s| s.run_as_user))?;
    let gid = own.and_then(|s| s.run_as_group).or(all.and_then(|s| s.run_as_group)).unwrap_or(0);
    let mut groups: Vec<i64> = all.and_then(|s| s.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(all.and_then(|s| s.fs_group));
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Some(ContainerUser { linux: Some(LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) }) })
}

fn condition(type_: &str, status: bool) -> PodCondition {
    PodCondition { type_: type_.into(), status: if status { "True" } else { "False" }.into(), ..PodCondition::default() }
}

fn unready(type_: &str, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: type_.into(),
        status: "False".into(),
        reason: Some(reason.into()),
        message: (!message.is_empty()).then_some(message),
        ..PodCondition::default()
    }
}

fn containers_ready(pod: &Pod, statuses: &[&ContainerStatus], phase: Phase) -> PodCondition {
    let Some(spec) = &pod.spec else { return condition("ContainersReady", false) };
    if phase == Phase::Failed {
        return unready("ContainersReady", "PodFailed", String::new());
    }
    if phase == Phase::Succeeded {
        return unready("ContainersReady", "PodCompleted", String::new());
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let not_ready: Vec<&str> = sidecars
        .chain(&spec.containers)
        .map(|c| c.name.as_str())
        .filter(|name| statuses.iter().find(|s| s.name == *name).is_none_or(|s| !s.ready))
        .collect();
    if not_ready.is_empty() {
        condition("ContainersReady", true)
    } else {
        unready("ContainersReady", "ContainersNotReady", format!("containers with unready status: [{}]", not_ready.join(" ")))
    }
}

fn pod_ready(pod: &Pod, conditions: &[PodCondition], containers: &PodCondition) -> PodCondition {
    if containers.status != "True" {
        return PodCondition { type_: "Ready".into(), ..containers.clone() };
    }
    let mut messages = Vec::new();
    for gate in pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten()) {
        match conditions.iter().find(|c| c.type_ == gate.condition_type) {
            None => messages.push(format!("corresponding condition of pod readiness gate {:?} does not exist.", gate.condition_type)),
            Some(c) if c.status != "True" => {
                messages.push(format!("the status of pod readiness gate {:?} is not \"True\", but {}", gate.condition_type, c.status));
            }
            Some(_) => {}
        }
    }
    if messages.is_empty() { condition("Ready", true) } else { unready("Ready", "ReadinessGatesNotReady", messages.join(", ")) }
}

fn initialized_condition(pod: &Pod, statuses: &[&ContainerStatus], phase: Phase) -> PodCondition {
    let Some(spec) = &pod.spec else { return condition("Initialized", true) };
    if phase == Phase::Succeeded {
        return PodCondition { reason: Some("PodCompleted".into()), ..condition("Initialized", true) };
    }
    let begun = |name: &str| {
        statuses.iter().find(|s| s.name == name).is_some_and(|s| {
            s.started == Some(true)
                || s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
                || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
        })
    };
    if spec.containers.iter().any(|c| begun(&c.name)) {
        return condition("Initialized", true);
    }
    let incomplete: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| {
            let status = statuses.iter().find(|s| s.name == c.name);
            match c.restart_policy.as_deref() {
                Some("Always") => status.is_none_or(|s| s.started != Some(true)),
                _ => status.is_none_or(|s| !s.ready),
            }
        })
        .map(|c| c.name.as_str())
        .collect();
    if incomplete.is_empty() {
        condition("Initialized", true)
    } else {
        unready("Initialized", "ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" ")))
    }
}

/// Keeps what others wrote (readiness gates, PodScheduled, DisruptionTarget), and transition times of what did not change.
fn merge_conditions(old: Vec<PodCondition>, wanted: Vec<PodCondition>, generation: Option<i64>, now: Timestamp) -> Vec<PodCondition> {
    let mut out: Vec<PodCondition> = Vec::with_capacity(wanted.len() + old.len());
    for mut condition in wanted {
        let before = old.iter().find(|c| c.type_ == condition.type_);
        condition.last_transition_time = match before {
            Some(c) if c.status == condition.status => c.last_transition_time.clone(),
            _ => Some(time::api(now)),
        };
        condition.observed_generation = generation;
        out.push(condition);
    }
    for condition in old {
        if out.iter().all(|c| c.type_ != condition.type_) {
            out.push(condition);
        }
    }
    out
}

#[cfg(test)]
mod tests;
