//! Decides which containers of a pod start and which stop. Does nothing itself.
//!
//! Models pkg/kubelet/kuberuntime/kuberuntime_manager.go computePodActions and computeInitContainerActions, v1.37.
//! Changed resources are [`super::resize`]'s.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::record::{Instance, Kind, Record};

/// One container that may start now, or waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Start { index: usize },
    /// It crashed; the next attempt is at `until`.
    CrashLoop { index: usize, until: Timestamp },
    /// Its start failed; the next attempt is at `until`.
    Retry { index: usize, until: Timestamp },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Nothing will start any more: what still runs (sidecars) is stopped, then the pod is final.
    pub finished: bool,
    /// Every init container has done its part.
    pub initialized: bool,
}

/// Whether an instance that ended with `exit_code` is followed by another.
pub fn restarts(pod: &Pod, container: Option<&Container>, kind: Kind, exit_code: i32) -> bool {
    match kind {
        Kind::Sidecar => true,
        Kind::Ephemeral => false,
        Kind::Init => exit_code != 0 && container_policy(pod, container) != "Never",
        Kind::Main => match container_policy(pod, container) {
            "Never" => false,
            "OnFailure" => exit_code != 0,
            _ => true,
        },
    }
}

/// A container's own policy (KEP-5307) where it has one, else the pod's.
fn container_policy<'a>(pod: &'a Pod, container: Option<&'a Container>) -> &'a str {
    let own = container.and_then(|c| c.restart_policy.as_deref()).filter(|p| !p.is_empty());
    own.or_else(|| pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref())).unwrap_or("Always")
}

pub fn plan(pod: &Pod, records: &[Record], now: Timestamp) -> Plan {
    let mut out = Plan::default();
    let spec_of = |record: &Record| pod.spec.as_ref().and_then(|s| super::record::container(s, &record.name));
    let mains_begun = records.iter().any(|r| r.kind == Kind::Main && (r.current.is_some() || r.starting));

    if all_mains_done(pod, records) {
        out.finished = true;
        out.initialized = true;
        return out;
    }

    // Ephemeral containers wait for nobody.
    for (index, record) in records.iter().enumerate().filter(|(_, r)| r.kind == Kind::Ephemeral && r.current.is_none()) {
        push(&mut out, index, record, now);
    }

    // Init containers, in order; the first that has not done its part ends the walk.
    for (index, record) in records.iter().enumerate().filter(|(_, r)| r.kind.is_init()) {
        let restart = |code| restarts(pod, spec_of(record).as_deref(), record.kind, code);
        match (record.kind, &record.current) {
            (Kind::Sidecar, Some(Instance::Running(running))) => {
                if !running.started && !mains_begun {
                    return out;
                }
            }
            (Kind::Sidecar, _) => {
                push(&mut out, index, record, now);
                if !mains_begun {
                    return out;
                }
            }
            // Once main containers exist, init containers have run and are not run again.
            (_, _) if mains_begun => {}
            (_, Some(Instance::Finished(f))) if f.exit_code == 0 => {}
            (_, Some(Instance::Finished(f))) => {
                if restart(f.exit_code) {
                    push(&mut out, index, record, now);
                } else {
                    out.finished = true;
                }
                return out;
            }
            (_, Some(Instance::Running(_))) => return out,
            (_, None) => {
                push(&mut out, index, record, now);
                return out;
            }
        }
    }
    out.initialized = true;

    for (index, record) in records.iter().enumerate().filter(|(_, r)| r.kind == Kind::Main) {
        match &record.current {
            Some(Instance::Running(_)) => {}
            Some(Instance::Finished(f)) => {
                if record.renew || restarts(pod, spec_of(record).as_deref(), record.kind, f.exit_code) {
                    push(&mut out, index, record, now);
                }
            }
            None => push(&mut out, index, record, now),
        }
    }
    out
}

fn push(out: &mut Plan, index: usize, record: &Record, now: Timestamp) {
    if record.starting {
        return;
    }
    if let Some(until) = record.retry_at.filter(|at| *at > now) {
        out.steps.push(Step::Retry { index, until });
        return;
    }
    let failed = record.finished().filter(|_| !record.renew).and_then(|f| f.finished_at);
    match failed.and_then(|at| record.crash.wait_until(at, now)) {
        Some(until) => out.steps.push(Step::CrashLoop { index, until }),
        None => out.steps.push(Step::Start { index }),
    }
}

/// Every main container has ended for good, or an init container has failed for good.
fn all_mains_done(pod: &Pod, records: &[Record]) -> bool {
    let spec_of = |record: &Record| pod.spec.as_ref().and_then(|s| super::record::container(s, &record.name));
    let mut mains = records.iter().filter(|r| r.kind == Kind::Main).peekable();
    mains.peek().is_some()
        && mains.all(|r| match &r.current {
            Some(Instance::Finished(f)) => !r.starting && !r.renew && !restarts(pod, spec_of(r).as_deref(), Kind::Main, f.exit_code),
            _ => false,
        })
}

#[cfg(test)]
mod tests;
