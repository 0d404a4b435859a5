//! What controllers ask of pods: ready, available, active; which to delete first; how to make one from a template.
//!
//! Models pkg/api/v1/pod/util.go and pkg/controller/controller_utils.go, v1.37.
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use client::{Event, Expectations, Informer, Kind, Named, ObjectKey, WorkQueue};
use jiff::{SignedDuration, Timestamp};

use crate::ownership::owner_key;

pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Pods by `namespace/uid-of-controller`; orphans under `namespace/`.
pub(crate) const OWNER_INDEX: &str = "pod-owner";

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

pub(crate) fn is_terminated(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminated(pod) && !pod.is_deleting()
}

/// Being deleted, but not finished yet.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminated(pod) && pod.is_deleting()
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// When a ready pod is or will be available; `None` while it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// A pod of `template`, as GetPodFromTemplate.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    owner_name: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(format!("{owner_name}-")),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

pub(crate) fn index_by_owner(pods: &Informer<Pod>) {
    pods.add_index(OWNER_INDEX, |pod: &Pod| {
        let owner = client::controller_of(&pod.metadata).map(|c| c.uid.as_str()).unwrap_or_default();
        vec![format!("{}/{owner}", pod.namespace())]
    });
}

/// The pods that `owner` controls, and the orphans of its namespace, which it might adopt.
pub(crate) fn owned_and_orphans(pods: &Informer<Pod>, owner: &impl Named) -> Vec<Arc<Pod>> {
    let mut found = pods.by_index(OWNER_INDEX, &format!("{}/{}", owner.namespace(), owner.uid()));
    found.extend(pods.by_index(OWNER_INDEX, &format!("{}/", owner.namespace())));
    found
}

pub(crate) fn owned(pods: &Informer<Pod>, owner: &impl Named) -> Vec<Arc<Pod>> {
    pods.by_index(OWNER_INDEX, &format!("{}/{}", owner.namespace(), owner.uid()))
}

/// Lowers what is expected of the owner of kind `O` by what an event shows, and wakes its owners.
pub(crate) fn on_owned<O: Kind>(expectations: &Expectations, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let pod = event.object();
    if let Some(key) = owner_key::<Pod, O>(pod) {
        match (is_going(event), event) {
            // Being deleted counts as deleted; a restart may show a pod for the first time in that state.
            (true, _) => expectations.deletion_observed(&key, pod.uid()),
            (false, Event::Added(_)) => expectations.creation_observed(&key),
            _ => {}
        }
    }
    wake_owners::<O>(queue, event);
}

/// Wakes the owner of kind `O` that the pod has, and the one that it had.
pub(crate) fn wake_owners<O: Kind>(queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let now = owner_key::<Pod, O>(event.object());
    let before = event.old().and_then(|old| owner_key::<Pod, O>(old)).filter(|key| Some(key) != now.as_ref());
    now.into_iter().chain(before).for_each(|key| queue.add(key));
}

fn is_going(event: &Event<Pod>) -> bool {
    matches!(event, Event::Deleted(_)) || event.object().is_deleting()
}

/// An orphan that appeared, or whose labels or owners have changed.
pub(crate) fn may_be_adopted_now(event: &Event<Pod>) -> bool {
    let pod = event.object();
    let changed = event.old().is_none_or(|o| {
        o.metadata.labels != pod.metadata.labels || o.metadata.owner_references != pod.metadata.owner_references
    });
    client::controller_of(&pod.metadata).is_none() && !is_going(event) && changed
}

/// The first `count` pods in the order in which they are deleted; `related` are all pods whose doubling up on a node counts.
pub(crate) fn choose_deletions(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut chosen = pods.to_vec();
    if count < chosen.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|p| is_active(p)) {
            *on_node.entry(node_name(pod)).or_default() += 1;
        }
        let rank = |pod: &Pod| on_node.get(node_name(pod)).copied().unwrap_or(0);
        chosen.sort_by_cached_key(|pod| deletion_key(pod, rank(pod), now));
        chosen.truncate(count);
    }
    chosen
}

/// ActivePodsWithRanks.Less as a key: what is deleted first is less. Upstream lets the uid decide between two pods that became ready at different
/// times of one magnitude, but restarts and age where those times are equal; that is no order (three pods can each come before the
/// next), so here restarts and age come first and the uid last.
fn deletion_key(pod: &Pod, rank: usize, now: Timestamp) -> impl Ord + use<> {
    let phase_order = match phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    };
    let is_ready = is_ready(pod);
    let since = condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref()).filter(|_| is_ready);
    let state = (!node_name(pod).is_empty(), phase_order, is_ready, deletion_cost(pod), Reverse(rank));
    let age = |time: Option<&Time>| time.map(|time| magnitude(time, now));
    (state, age(since), Reverse(restarts(pod)), age(pod.metadata.creation_timestamp.as_ref()), pod.uid().to_owned())
}

/// Of an age: younger is less, and an unset time counts as youngest.
fn magnitude(time: &Time, now: Timestamp) -> i64 {
    let age = now.duration_since(time.0).as_nanos();
    if age > 0 { i64::from(age.ilog2()) } else { -1 }
}

/// Sorts what is deleted first to the front, where neither cost nor nodes matter. Models ActivePods.Less.
pub(crate) fn sort_by_activity(pods: &mut [Arc<Pod>]) {
    let phase_order = |pod: &Pod| match phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    };
    let nanos = |time: Option<&Time>| time.map(|t| Reverse(t.0));
    pods.sort_by_cached_key(|pod| {
        let since = condition(pod, "Ready").filter(|c| c.status == "True").and_then(|c| c.last_transition_time.as_ref());
        let state = (!node_name(pod).is_empty(), phase_order(pod), is_ready(pod));
        (state, nanos(since), Reverse(restarts(pod)), nanos(pod.metadata.creation_timestamp.as_ref()))
    });
}

fn deletion_cost(pod: &Pod) -> i32 {
    // What does not parse counts as 0; the API server refuses it anyway.
    pod.annotation(DELETION_COST).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Highest restart count: of the containers, then of restartable init containers.
fn restarts(pod: &Pod) -> (i32, i32) {
    let status = pod.status.as_ref();
    let of = |list: Option<&Vec<client::k8s_openapi::api::core::v1::ContainerStatus>>| {
        list.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0)
    };
    (of(status.and_then(|s| s.container_statuses.as_ref())), of(status.and_then(|s| s.init_container_statuses.as_ref())))
}

/// Time from `now` until `at`, nothing if it has passed.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn running(name: &str, node: &str, ready: bool, cost: i32, age_seconds: i64) -> Arc<Pod> {
        let at = Timestamp::from_second(1_000_000 - age_seconds).unwrap().to_string();
        pod(serde_json::json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at, "annotations": {DELETION_COST: cost.to_string()}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": at}]},
        }))
    }

    fn order(pods: &[Arc<Pod>]) -> Vec<String> {
        // One more than asked for, so that the order is looked at.
        let mut all = pods.to_vec();
        all.push(running("never", "n9", true, i32::MAX, 1));
        let chosen = choose_deletions(&all, &all, pods.len(), Timestamp::from_second(1_000_000).unwrap());
        chosen.iter().map(|p| p.name().to_owned()).collect()
    }

    #[test]
    fn unassigned_then_pending_then_unready_pods_go_first() {
        let pending = pod(serde_json::json!({"metadata": {"name": "pending"}, "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Pending"}}));
        let unassigned = pod(serde_json::json!({"metadata": {"name": "unassigned"}, "spec": {"containers": []},
            "status": {"phase": "Pending"}}));
        let pods = [running("ready", "n", true, 0, 9), running("unready", "n", false, 0, 9), pending, unassigned];
        assert_eq!(order(&pods), ["unassigned", "pending", "unready", "ready"]);
    }

    #[test]
    fn cost_beats_doubling_up_which_beats_age() {
        let pods = [
            running("alone", "n1", true, 0, 1),
            running("double-old", "n2", true, 0, 100_000),
            running("double-young", "n2", true, 0, 5),
            running("cheap", "n3", true, -5, 100_000),
            running("dear", "n2", true, 5, 1),
        ];
        assert_eq!(order(&pods), ["cheap", "double-young", "double-old", "alone", "dear"]);
    }

    #[test]
    fn the_order_is_one_whatever_the_times_of_hundreds_of_pods() {
        let ages = [3, 3, 4, 5, 40, 41, 60, 60, 900];
        let mut pods: Vec<_> = (0..300)
            .map(|i: usize| {
                let mut pod = Arc::unwrap_or_clone(running(&format!("{:x}", i.wrapping_mul(2_654_435_761) % 977), "n", true, 0, ages[i % ages.len()]));
                let made = Timestamp::from_second(1_000_000 - ages[i / 7 % ages.len()]).unwrap();
                pod.metadata.creation_timestamp = Some(Time(made));
                Arc::new(pod)
            })
            .collect();
        let first = order(&pods);
        for turn in 1..10 {
            pods.rotate_left(turn * 31);
            assert_eq!(order(&pods), first);
        }
    }

    #[test]
    fn a_pod_is_available_only_after_its_minimum_of_ready_seconds() {
        let pod = running("a", "n", true, 0, 10);
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert!(is_available(&pod, 0, now) && is_available(&pod, 10, now) && !is_available(&pod, 11, now));
        assert_eq!(until(available_at(&pod, 15).unwrap(), now), Duration::from_secs(5));
    }
}
