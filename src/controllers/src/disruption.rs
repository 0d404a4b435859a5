//! Counts, for each PodDisruptionBudget, how many of its pods may be evicted; takes back the mark of evictions that never came.
//!
//! Models pkg/controller/disruption/disruption.go, v1.37. Different: a pod under several budgets wakes all of them.
//! Reads PodDisruptionBudget, Pod, ReplicationController, ReplicaSet, Deployment, StatefulSet, `scale` of any other owner.
//! Writes PodDisruptionBudget/status, Pod/status.
//! Wakes on budgets and on pods that they cover, and when the time that an eviction or its mark has is over.
mod plan;
mod scale;
mod stale;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::selector::LabelSelector;
use client::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use client::k8s_openapi::api::core::v1::{Pod, ReplicationController};
use client::k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use client::{
    Client, Clock, Controller, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, WorkQueue,
};
use futures::future::join;

use self::plan::Plan;
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "disruption-controller";
/// Where its events come from.
const COMPONENT: &str = "controllermanager";

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, COMPONENT),
        client,
        clock: cx.clock.clone(),
        budgets: cx.informers.get(),
        pods: cx.informers.get(),
        controllers: cx.informers.get(),
        replica_sets: cx.informers.get(),
        deployments: cx.informers.get(),
        stateful_sets: cx.informers.get(),
    });
    // They wake nobody, but a pod whose owner is not known yet would look like one without.
    join(cx.controllers.synced(), cx.replica_sets.synced()).await;
    join(cx.deployments.synced(), cx.stateful_sets.synced()).await;
    let (budgets, pods) = (cx.budgets.clone(), cx.pods.clone());
    let counting = Controller::new(NAME, cx.clone())
        .reconciles(&budgets)
        .on(&pods, on_pod)
        .run(|cx, key| async move { reconcile(&cx, &key).await });
    let marks = Controller::new("disruption-controller-marks", cx)
        .workers(1)
        .on(&pods, stale::on_pod)
        .run(|cx, key| async move { stale::reconcile(&cx, &key).await });
    join(counting, marks).await;
}

/// A budget without a selector covers nothing, one with an empty selector everything.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    selector(budget).is_some_and(|s| s.matches_map(pod.metadata.labels.as_ref()))
}

fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    LabelSelector::from_typed(budget.spec.as_ref().and_then(|s| s.selector.as_ref())).ok()
}

fn on_pod(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let pod = event.object();
    let in_namespace = cx.budgets.list_namespace(pod.namespace());
    let covering: Vec<_> = in_namespace.iter().filter(|b| covers(b, pod)).collect();
    if let [chosen, _, ..] = covering[..]
        && !matches!(event, Event::Deleted(_))
    {
        let text = format!(
            "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
            pod.namespace(),
            pod.name(),
            chosen.name()
        );
        cx.recorder.record(&**pod, EventType::Warning, "MultiplePodDisruptionBudgets", text);
    }
    covering.into_iter().for_each(|b| queue.add(b.key()));
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(budget) = cx.budgets.get(key) else { return Ok(Next::Wait) };
    match try_reconcile(cx, &budget).await {
        // Not for the fail-safe: the newer version comes by itself.
        Err(failure) if failure.api().is_some_and(client::ApiError::is_conflict) => Err(failure),
        Err(failure) => {
            // Fails open: what cannot be counted may not be disrupted.
            let status = plan::failed(&budget, &failure.reason(), cx.clock.now());
            write(cx, &budget, status).await.map(|()| Next::Wait)
        }
        done => done,
    }
}

async fn try_reconcile(cx: &Context, budget: &PodDisruptionBudget) -> Result<Next, Failure> {
    let pods = match selector(budget) {
        Some(selector) => cx.pods.list_labelled(budget.namespace(), |labels| selector.matches_map(Some(labels))),
        None => Vec::new(),
    };
    if pods.is_empty() {
        cx.recorder.record(budget, EventType::Normal, "NoPods", "No matching pods found");
    }
    let scale = match plan::counts_owners(budget) {
        true => scale::expected(cx, &pods).await.inspect_err(|failure| {
            let text = format!("Failed to calculate the number of expected pods: {}", failure.reason());
            cx.recorder.record(budget, EventType::Warning, "CalculateExpectedPodCountFailed", text);
        })?,
        false => scale::Expected::default(),
    };
    if scale.has_unmanaged {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let text = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB \
             cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
             \".spec.minAvailable\" field of the PDB to an integer value.",
            LabelSelector::from_typed(selector).map(|s| s.to_string()).unwrap_or_default()
        );
        cx.recorder.record(budget, EventType::Warning, "UnmanagedPods", text);
    }
    let Plan { status, lost, next } = plan::plan(budget, &pods, scale.pods, cx.clock.now());
    for pod in lost {
        let text = format!(
            "Pod was expected by PDB {}/{} to be deleted but it wasn't",
            budget.namespace(),
            budget.namespace()
        );
        cx.recorder.record(&*pod, EventType::Warning, "NotDeleted", text);
    }
    write(cx, budget, status).await.map(|()| next)
}

async fn write(cx: &Context, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Failure> {
    if plan::same(&budget.status.clone().unwrap_or_default(), &status) {
        return Ok(());
    }
    let update = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    let step = || format!("update the status of PodDisruptionBudget {}", budget.key());
    unless_gone(cx.client.update_status(&update).await).during(step).map(drop)
}
