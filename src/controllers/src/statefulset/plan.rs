//! What a StatefulSet needs next. Models updateStatefulSet, processReplica and processCondemned of stateful_set_control.go.
use std::cmp::Reverse;
use std::sync::Arc;

use client::Named;
use client::k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use jiff::Timestamp;

use super::identity::{self, identity_matches, is_in_range, ordinal, storage_matches};
use super::revisions::Revisions;
use super::{claims, rolling, status};
use crate::failure::Failure;
use crate::history::template_of;
use crate::pods;

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// With its claims first.
    Create(Arc<Pod>),
    Delete(Arc<Pod>),
    /// Makes the claims that a pending pod waits for.
    MakeClaims(Arc<Pod>),
    /// Puts identity, storage and the owners of claims right.
    Repair(Arc<Pod>),
    /// Puts the owners of claims right.
    OwnClaims(Arc<Pod>),
}

/// Work that must succeed before the next phase begins.
#[derive(Debug)]
pub(super) struct Phase {
    /// Pod by pod in batches, or one after another.
    pub parallel: bool,
    /// For each pod what is done about it, in order.
    pub work: Vec<Vec<Step>>,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub phases: Vec<Phase>,
    pub status: StatefulSetStatus,
}

pub(super) type FindClaim<'a> = &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>;

pub(super) struct Planner<'a> {
    pub set: &'a StatefulSet,
    pub revisions: &'a Revisions,
    find_claim: FindClaim<'a>,
    pub now: Timestamp,
    pub monotonic: bool,
    /// By index: the pods that are to be, made or not.
    pub replicas: Vec<Arc<Pod>>,
    /// Outside of the wanted ordinals, the highest first.
    condemned: Vec<Arc<Pod>>,
}

/// What comes after a pod was looked at.
enum Flow {
    GoOn,
    /// The pods behind this one wait for it.
    Stop,
}

pub(super) fn is_created(pod: &Pod) -> bool {
    !pods::phase(pod).is_empty()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

pub(super) fn plan(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: &Revisions,
    find_claim: FindClaim<'_>,
    now: Timestamp,
) -> Result<Plan, Failure> {
    let current = template_of(&revisions.current)?;
    let template_for = |ordinal: i32| -> (&PodTemplateSpec, &str) {
        match takes_current(set, ordinal) {
            true => (&current, revisions.current.name()),
            false => (&set.spec.template, revisions.update.name()),
        }
    };
    let found = |o: i32| pods.iter().find(|p| ordinal(p) == Some(o)).cloned();
    let made = |o: i32| {
        let (template, revision) = template_for(o);
        Arc::new(identity::new_pod(set, template, revision, o))
    };
    let replicas = identity::ordinals(set).map(|o| found(o).unwrap_or_else(|| made(o))).collect();
    let mut condemned: Vec<_> =
        pods.iter().filter(|p| ordinal(p).is_some() && !is_in_range(set, p)).cloned().collect();
    condemned.sort_by_key(|p| Reverse(ordinal(p)));
    let monotonic = set.spec.pod_management_policy.as_deref() != Some("Parallel");
    let planner = Planner { set, revisions, find_claim, now, monotonic, replicas, condemned };
    let mut plan = Plan { phases: Vec::new(), status: status::count(set, pods, revisions, now) };
    if !set.is_deleting() {
        planner.decide(&mut plan);
    }
    status::complete(set, &mut plan.status);
    Ok(plan)
}

/// newVersionedStatefulSetPod: whether a pod of this ordinal is made from the old template.
fn takes_current(set: &StatefulSet, ordinal: i32) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    let is_rolling = strategy.and_then(|s| s.type_.as_deref()) == Some("RollingUpdate");
    let index = ordinal - identity::start(set);
    match strategy.and_then(|s| s.rolling_update.as_ref()) {
        Some(rolling) => index < rolling.partition.unwrap_or(0),
        None => is_rolling && index < set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
    }
}

impl Planner<'_> {
    pub fn min_ready_seconds(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or(0)
    }

    pub fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds(), self.now)
    }

    pub fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod.is_deleting()
    }

    fn decide(&self, plan: &mut Plan) {
        let phases: [&dyn Fn(&mut Vec<Vec<Step>>) -> Flow; 3] = [
            &|work| self.each(&self.replicas, work, |pod, steps| self.replica(pod, steps)),
            &|work| self.each(&self.condemned, work, |pod, steps| self.condemned_claims(pod, steps)),
            &|work| self.each(&self.condemned, work, |pod, steps| self.condemned_pod(pod, steps)),
        ];
        for phase in phases {
            let mut work = Vec::new();
            let flow = phase(&mut work);
            plan.phases.push(Phase { parallel: !self.monotonic, work });
            if matches!(flow, Flow::Stop) {
                return;
            }
        }
        if self.set.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let deleted = rolling::deletions(self);
        let current = plan.status.current_replicas.get_or_insert(0);
        *current = (*current - i32::try_from(deleted.len()).unwrap_or(i32::MAX)).max(0);
        let work = deleted.into_iter().map(|pod| vec![Step::Delete(pod)]).collect();
        plan.phases.push(Phase { parallel: false, work });
    }

    /// In order, each pod may stop those behind it; in parallel none does.
    fn each(
        &self,
        pods: &[Arc<Pod>],
        work: &mut Vec<Vec<Step>>,
        decide: impl Fn(&Arc<Pod>, &mut Vec<Step>) -> Flow,
    ) -> Flow {
        for pod in pods {
            let mut steps = Vec::new();
            let flow = decide(pod, &mut steps);
            if !steps.is_empty() {
                work.push(steps);
            }
            if matches!(flow, Flow::Stop) && self.monotonic {
                return Flow::Stop;
            }
        }
        Flow::GoOn
    }

    fn replica(&self, pod: &Arc<Pod>, steps: &mut Vec<Step>) -> Flow {
        // Succeeded counts as failed: how a container ended does not say why the pod did.
        if pods::is_terminated(pod) {
            if !pod.is_deleting() {
                steps.push(Step::Delete(pod.clone()));
            }
            return Flow::Stop;
        }
        if !is_created(pod) {
            if !self.is_blocked(pod) {
                steps.push(Step::Create(pod.clone()));
            }
            return Flow::Stop;
        }
        if pods::phase(pod) == "Pending" && !identity::templates(self.set).is_empty() {
            steps.push(Step::MakeClaims(pod.clone()));
        }
        if self.monotonic && (pod.is_deleting() || !is_running_and_ready(pod) || !self.is_available(pod)) {
            return Flow::Stop;
        }
        let fits = identity_matches(self.set, pod) && storage_matches(self.set, pod) && self.claims_match(pod);
        if !fits {
            steps.push(Step::Repair(pod.clone()));
        }
        Flow::GoOn
    }

    fn condemned_claims(&self, pod: &Arc<Pod>, steps: &mut Vec<Step>) -> Flow {
        if !self.claims_match(pod) {
            steps.push(Step::OwnClaims(pod.clone()));
        }
        Flow::GoOn
    }

    /// Highest ordinal first, one at a time, and only while all others are well, but for the one that is not.
    fn condemned_pod(&self, pod: &Arc<Pod>, steps: &mut Vec<Step>) -> Flow {
        if pod.is_deleting() {
            return Flow::Stop;
        }
        let is_well = is_running_and_ready(pod) && self.is_available(pod);
        if self.monotonic && !is_well && self.first_unavailable().is_none_or(|first| first.name() != pod.name()) {
            return Flow::Stop;
        }
        steps.push(Step::Delete(pod.clone()));
        Flow::Stop
    }

    fn first_unavailable(&self) -> Option<&Arc<Pod>> {
        self.replicas.iter().chain(self.condemned.iter().rev()).find(|p| self.is_unavailable(p))
    }

    fn claims(&self, pod: &Pod) -> impl Iterator<Item = Arc<PersistentVolumeClaim>> {
        let ordinal = ordinal(pod).unwrap_or(-1);
        let names = identity::templates(self.set).iter().map(move |t| identity::claim_name(self.set, t, ordinal));
        names.filter_map(|name| (self.find_claim)(&name))
    }

    /// Claims that are missing are made elsewhere.
    fn claims_match(&self, pod: &Pod) -> bool {
        self.claims(pod).all(|claim| claims::is_up_to_date(&claim, self.set, pod))
    }

    fn is_blocked(&self, pod: &Pod) -> bool {
        self.claims(pod).any(|claim| claims::blocks_creation(&claim, self.set, pod))
    }
}
