//! What to do so that the cgroups of a running pod hold what the node has allocated to it.
//!
//! Models kuberuntime_manager.go computePodResizeAction, doPodResizeAction and validateMemoryResizeAction, v1.37. [`plan`] is pure and
//! gives the writes in order: memory, then cpu; of each, the pod's cgroup grows before its containers' and shrinks after them; of
//! containers those that shrink come first. A container whose policy says so is restarted instead.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use runtime::Resources;

use crate::allocation::{Part, Sizes};
use crate::images::chain;
use crate::kubelet::Context;
use crate::resources::{self, Limits};

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The pod's own cgroup; afterwards it holds `holds`.
    Pod { resources: Resources, holds: Limits },
    Container { target: Target, part: Part, resources: Resources },
    /// Nothing in the kernel: the pod's own sizes of this part are in force.
    Done { part: Part },
}

/// Memory limits that come down; what is in use must be below them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lowered {
    pub pod: Option<u64>,
    pub containers: Vec<(Target, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Stopped, and started again with their new sizes.
    pub restart: Vec<String>,
    pub lowered: Lowered,
    pub writes: Vec<Write>,
}

/// The four numbers that matter of a container, zero where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    request: i64,
    limit: i64,
}

impl Numbers {
    fn of(pod: &Pod, container: Option<&ResourceRequirements>, part: Part) -> Self {
        let name = part.as_str();
        Self { request: resources::request_of(container, name).unwrap_or(0), limit: resources::effective_limit(pod, container, name).unwrap_or(0) }
    }

    /// The number by which changes are put in order.
    fn leading(self, other: Self) -> (i64, i64) {
        if self.limit == other.limit { (self.request, other.request) } else { (self.limit, other.limit) }
    }
}

/// `allocated` is the pod as the node has it; `actuated` and `cgroup` what was written last; `running` in the pod's order.
pub fn plan(allocated: &Arc<Pod>, actuated: &Sizes, cgroup: Limits, running: &[Target]) -> Plan {
    let mut out = Plan::default();
    let before = actuated.apply(allocated);
    let mut changes: [Vec<(Target, bool)>; 2] = [Vec::new(), Vec::new()];
    for target in running {
        let Some(spec) = allocated.spec.as_ref().and_then(|s| super::record::container(s, &target.name)) else { continue };
        let old = actuated.container(&target.name);
        let parts = [Part::Memory, Part::Cpu].map(|part| (part, Numbers::of(allocated, spec.resources.as_ref(), part), Numbers::of(&before, old, part)));
        if parts.iter().any(|(part, new, old)| new != old && restarts(&spec, *part)) {
            out.restart.push(target.name.clone());
            continue;
        }
        for ((part, new, old), changes) in parts.into_iter().zip(&mut changes) {
            if new == old {
                continue;
            }
            let (to, from) = new.leading(old);
            let comes_down = part == Part::Memory && new.limit > 0 && (old.limit == 0 || new.limit < old.limit);
            if let (true, Ok(limit)) = (comes_down, u64::try_from(new.limit)) {
                out.lowered.containers.push((target.clone(), limit));
            }
            changes.push((target.clone(), to < from));
        }
    }
    if !out.restart.is_empty() {
        // They stop first: what they free may be what others get.
        return Plan { restart: out.restart, ..Plan::default() };
    }
    let wanted = resources::pod_limits(allocated);
    let mut holds = cgroup;
    let [memory, cpu] = changes;
    if comes_down(cgroup.memory_limit_bytes, wanted.memory_limit_bytes) {
        out.lowered.pod = wanted.memory_limit_bytes;
    }
    write_memory(&mut out.writes, allocated, in_order(memory), &mut holds, wanted);
    write_cpu(&mut out.writes, allocated, in_order(cpu), &mut holds, wanted);
    let differs = |part: Part| pod_numbers(allocated, part) != pod_numbers(&before, part);
    out.writes.extend([Part::Memory, Part::Cpu].into_iter().filter(|p| differs(*p)).map(|part| Write::Done { part }));
    out
}

fn pod_numbers(pod: &Pod, part: Part) -> (Option<i64>, Option<i64>) {
    let own = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    (resources::request_of(own, part.as_str()), resources::limit_of(own, part.as_str()))
}

/// Those that shrink before those that grow.
fn in_order(changes: Vec<(Target, bool)>) -> Vec<Target> {
    let (shrink, grow): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, shrinks)| *shrinks);
    shrink.into_iter().rev().chain(grow).map(|(target, _)| target).collect()
}

fn restarts(container: &Container, part: Part) -> bool {
    let policy = container.resize_policy.iter().flatten().find(|p| p.resource_name == part.as_str());
    policy.is_some_and(|p| p.restart_policy == "RestartContainer")
}

/// `None` is no limit, above all others. A limit of the pod is never taken away (upstream: issue 128675).
fn comes_down(old: Option<u64>, new: Option<u64>) -> bool {
    new.is_some_and(|new| old.is_none_or(|old| new < old))
}

fn grows(old: Option<u64>, new: Option<u64>) -> bool {
    matches!((old, new), (Some(old), Some(new)) if new > old)
}

fn write_memory(out: &mut Vec<Write>, pod: &Pod, containers: Vec<Target>, holds: &mut Limits, wanted: Limits) {
    let (old, new) = (holds.memory_limit_bytes, wanted.memory_limit_bytes);
    let mut pods = |out: &mut Vec<Write>| {
        holds.memory_limit_bytes = new;
        let resources = Resources { memory_limit_bytes: new.and_then(|v| i64::try_from(v).ok()), ..Resources::default() };
        out.push(Write::Pod { resources, holds: *holds });
    };
    if grows(old, new) {
        pods(out);
    }
    for target in containers {
        let limits = limits_of(pod, &target.name);
        let resources = Resources { memory_limit_bytes: limits.memory_limit_bytes.and_then(|v| i64::try_from(v).ok()), ..Resources::default() };
        out.push(Write::Container { target, part: Part::Memory, resources });
    }
    if comes_down(old, new) {
        pods(out);
    }
}

fn write_cpu(out: &mut Vec<Write>, pod: &Pod, containers: Vec<Target>, holds: &mut Limits, wanted: Limits) {
    let old = *holds;
    let quota = |out: &mut Vec<Write>, holds: &mut Limits| {
        holds.cpu_quota_microseconds = wanted.cpu_quota_microseconds;
        out.push(Write::Pod { resources: quota_of(&wanted), holds: *holds });
    };
    let shares = |out: &mut Vec<Write>, holds: &mut Limits| {
        holds.cpu_shares = wanted.cpu_shares;
        out.push(Write::Pod { resources: Resources { cpu_shares: Some(wanted.cpu_shares), ..Resources::default() }, holds: *holds });
    };
    // Requests stay below limits at every moment.
    if grows(old.cpu_quota_microseconds, wanted.cpu_quota_microseconds) {
        quota(out, holds);
    }
    if wanted.cpu_shares > old.cpu_shares {
        shares(out, holds);
    }
    for target in containers {
        let limits = limits_of(pod, &target.name);
        let resources = Resources { cpu_shares: Some(limits.cpu_shares), ..quota_of(&limits) };
        out.push(Write::Container { target, part: Part::Cpu, resources });
    }
    if wanted.cpu_shares < old.cpu_shares {
        shares(out, holds);
    }
    if comes_down(old.cpu_quota_microseconds, wanted.cpu_quota_microseconds) {
        quota(out, holds);
    }
}

fn quota_of(limits: &Limits) -> Resources {
    Resources {
        cpu_quota_us: limits.cpu_quota_microseconds.and_then(|q| i64::try_from(q).ok()),
        cpu_period_us: limits.cpu_quota_microseconds.map(|_| limits.cpu_period_microseconds),
        ..Resources::default()
    }
}

fn limits_of(pod: &Pod, name: &str) -> Limits {
    let spec = pod.spec.as_ref().and_then(|s| super::record::container(s, name));
    spec.map(|c| resources::container_limits(pod, &c)).unwrap_or_default()
}

/// Does what is planned for `allocated`, and notes each step once it is done. Whatever fails ends it; the next plan begins where this one ended.
pub async fn run(cx: &Context, uid: &str, sandbox: &str, allocated: &Sizes, plan: Plan) -> Result<(), String> {
    check_usage(cx, sandbox, &plan.lowered).await?;
    for write in plan.writes {
        match write {
            Write::Pod { resources, holds } => {
                cx.runtime.update_sandbox_resources(sandbox, &resources).await.map_err(|e| chain(&e))?;
                cx.allocations.pod_written(uid, holds);
            }
            Write::Container { target, part, resources } => match cx.runtime.update_resources(&target.id, &resources).await {
                Ok(()) => cx.allocations.container_written(uid, allocated, &target.name, part),
                // It has ended meanwhile; its next instance starts with the new sizes.
                Err(runtime::Error::NotRunning { .. } | runtime::Error::NotFound { .. }) => {}
                Err(error) => return Err(chain(&error)),
            },
            Write::Done { part } => cx.allocations.part_written(uid, allocated, part),
        }
    }
    Ok(())
}

/// A limit below what is in use would end in a kill.
async fn check_usage(cx: &Context, sandbox: &str, lowered: &Lowered) -> Result<(), String> {
    let mut errors = Vec::new();
    if let Some(limit) = lowered.pod {
        let used = cx.runtime.sandbox_stats(sandbox).await.map_err(|_| "missing pod memory usage".to_owned())?.memory_usage_bytes;
        if used >= limit {
            errors.push(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"));
        }
    }
    for (target, limit) in &lowered.containers {
        let Ok(stats) = cx.runtime.stats(&target.id).await else { continue };
        let used = stats.memory_usage_bytes;
        if used >= *limit {
            errors.push(format!("attempting to set container {:?} memory limit ({limit}) below current usage ({used})", target.name));
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("cannot decrease memory limits: {one}")),
        many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests;
