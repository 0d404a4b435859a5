//! Removes pods that nobody else will: finished ones beyond a limit, those of nodes that are gone, those that were deleted before
//! they had a node, or on a node that somebody has said is out of service.
//!
//! Models pkg/controller/podgc/gc_controller.go, v1.37. Different: timers and events, where upstream looks at all pods every 20 seconds.
//! Reads Pod, Node. Writes Pod/status, deletes Pods. Wakes on pods, and on nodes that go or are put out of service.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Node, Pod};
use client::{Client, Clock, Controller, DeleteOptions, Event, Informer, Named, Next, ObjectKey, Patch};
use jiff::Timestamp;
use serde_json::json;

use crate::context::{Config, ControllerContext};
use crate::failure::{During, Failure, unless_gone};
use crate::node_lifecycle::{NODE_INDEX, index_by_node, is_ready};
use crate::pods;

const NAME: &str = "pod-garbage-collector";
/// How long a node must have been missing, as upstream's quarantineTime.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Who puts it on a node says that nothing runs there any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Finished pods are counted together, under this key.
const FINISHED: &str = "finished pods";
/// All finished pods, under one value.
const FINISHED_INDEX: &str = "finished";
const POISON: &str = "nothing panics while it holds the map";

struct Context {
    client: Client,
    clock: Clock,
    config: Arc<Config>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Nodes that pods name and that are not there, and since when that is known, by [`Clock::elapsed`].
    missing: Mutex<HashMap<String, Duration>>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context {
        client: cx.client(NAME),
        clock: cx.clock,
        config: cx.config,
        pods: cx.informers.get(),
        nodes: cx.informers.get(),
        missing: Mutex::default(),
    });
    index_by_node(&cx.pods);
    cx.pods.add_index(FINISHED_INDEX, |pod: &Pod| if pods::is_terminated(pod) { vec![String::new()] } else { Vec::new() });
    let (pods, nodes) = (cx.pods.clone(), cx.nodes.clone());
    Controller::new("pod-garbage-collector-controller", cx)
        .watches(&pods, |cx, event| {
            let pod = event.object();
            let finishes = pods::is_terminated(pod) && !event.old().is_some_and(|old| pods::is_terminated(old));
            let mut keys = Vec::new();
            // Counted, not listed: every pod of a Job comes by here.
            let most = cx.config.terminated_pods_max;
            if finishes && most > 0 && cx.pods.count_by_index(FINISHED_INDEX, "") > most {
                keys.push(ObjectKey::cluster(FINISHED));
            }
            let is_left = || lost_its_node(cx, pod) || is_unscheduled_and_deleted(pod) || pod.is_deleting() && is_out_of_service(cx, pod);
            if matches!(event, Event::Deleted(_)) {
                if cx.pods.count_by_index(NODE_INDEX, pods::node_name(pod)) == 0 {
                    cx.missing.lock().expect(POISON).remove(pods::node_name(pod));
                }
            } else if is_left() {
                keys.push(pod.key());
            }
            keys
        })
        .watches(&nodes, |cx, event| {
            let all = |node: &Node| cx.pods.by_index(NODE_INDEX, node.name()).iter().map(|p| p.key()).collect();
            match event {
                Event::Deleted(node) => all(node),
                Event::Added(node) => {
                    cx.missing.lock().expect(POISON).remove(node.name());
                    Vec::new()
                }
                Event::Updated { old, new } if has_failed(new) && !has_failed(old) => all(new),
                Event::Updated { .. } => Vec::new(),
            }
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn node_key(pod: &Pod) -> ObjectKey {
    ObjectKey::cluster(pods::node_name(pod))
}

fn lost_its_node(cx: &Context, pod: &Pod) -> bool {
    // Before the nodes are listed every node seems to be missing; the pods are looked at again once they are.
    !pods::node_name(pod).is_empty() && cx.nodes.get(&node_key(pod)).is_none()
}

/// Not ready, and out of service.
fn has_failed(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    !is_ready(node) && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn is_out_of_service(cx: &Context, pod: &Pod) -> bool {
    cx.nodes.get(&node_key(pod)).is_some_and(|node| has_failed(&node))
}

fn is_unscheduled_and_deleted(pod: &Pod) -> bool {
    pod.is_deleting() && pods::node_name(pod).is_empty()
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    if key.namespace.is_empty() {
        let mut finished = Vec::new();
        cx.pods.each_by_index(FINISHED_INDEX, "", |pod| finished.push(Finished::of(pod)));
        for pod in excess(finished, cx.config.terminated_pods_max).iter().filter_map(|finished| cx.pods.get(&finished.key)) {
            remove(cx, &pod, None).await?;
        }
        return Ok(Next::Wait);
    }
    let Some(pod) = cx.pods.get(key) else { return Ok(Next::Wait) };
    if is_unscheduled_and_deleted(&pod) || pod.is_deleting() && is_out_of_service(cx, &pod) {
        remove(cx, &pod, None).await?;
    } else if lost_its_node(cx, &pod) {
        return orphaned(cx, &pod).await;
    }
    Ok(Next::Wait)
}

/// Waits out the quarantine, in which the node may come back or turn out to be new, then asks the server itself.
async fn orphaned(cx: &Context, pod: &Pod) -> Result<Next, Failure> {
    let now = cx.clock.elapsed();
    let since = *cx.missing.lock().expect(POISON).entry(pods::node_name(pod).to_owned()).or_insert(now);
    let due = since.saturating_add(QUARANTINE);
    if due > now {
        return Ok(Next::After((due - now).max(Duration::from_millis(100))));
    }
    let node = node_key(pod);
    let result = unless_gone(cx.client.get::<Node>(&node).await).during(|| format!("check node {}", node.name))?;
    if result.is_none() {
        remove(cx, pod, Some(("DeletionByPodGC", "PodGC: node no longer exists"))).await?;
    }
    Ok(Next::Wait)
}

/// What decides which finished pod goes first; in that order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Finished {
    was_not_evicted: bool,
    created: Option<Timestamp>,
    key: ObjectKey,
}

impl Finished {
    fn of(pod: &Pod) -> Self {
        let reason = pod.status.as_ref().and_then(|s| s.reason.as_deref());
        Self {
            was_not_evicted: reason != Some("Evicted"),
            created: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
            key: pod.key(),
        }
    }
}

/// The oldest finished pods beyond the limit, evicted ones first.
fn excess(mut finished: Vec<Finished>, max: usize) -> Vec<Finished> {
    let count = if max == 0 { 0 } else { finished.len().saturating_sub(max) };
    finished.sort_unstable();
    finished.truncate(count);
    finished
}

/// Deletes at once; one that had not finished is marked Failed first, so that its end is told.
async fn remove(cx: &Context, pod: &Pod, disruption: Option<(&str, &str)>) -> Result<(), Failure> {
    let key = pod.key();
    if !pods::is_terminated(pod) {
        let conditions: Vec<_> = disruption
            .iter()
            .map(|(reason, message)| {
                json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
                    "lastTransitionTime": cx.clock.time()})
            })
            .collect();
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Failed", "conditions": conditions}});
        let result = cx.client.patch_status::<Pod>(&key, &Patch::Strategic(patch)).await;
        if unless_gone(result).during(|| format!("mark pod {key} failed"))?.is_none() {
            return Ok(());
        }
    }
    let options = DeleteOptions::uid(pod.uid()).now();
    unless_gone(cx.client.delete::<Pod>(&key, &options).await).during(|| format!("remove pod {key}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_failed_when_somebody_says_so_and_it_is_not_ready() {
        let node = |ready: &str, key: &str| -> Node {
            let taints = json!([{"key": key, "effect": "NoExecute"}]);
            serde_json::from_value(json!({"spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})).unwrap()
        };
        assert!(has_failed(&node("Unknown", OUT_OF_SERVICE)) && has_failed(&node("False", OUT_OF_SERVICE)));
        assert!(!has_failed(&node("True", OUT_OF_SERVICE)) && !has_failed(&node("Unknown", "node.kubernetes.io/unreachable")));
    }

    #[test]
    fn beyond_the_limit_evicted_pods_go_first_then_the_oldest() {
        let pod = |name: &str, phase: &str, reason: &str, age: i64| {
            let created = Timestamp::from_second(1_000_000 - age).unwrap().to_string();
            let value = json!({"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": phase, "reason": reason}});
            serde_json::from_value::<Pod>(value).unwrap()
        };
        let all = [
            pod("old", "Succeeded", "", 30),
            pod("older", "Failed", "", 40),
            pod("evicted", "Failed", "Evicted", 5),
            pod("oldest", "Succeeded", "", 90),
        ];
        let names = |max| excess(all.iter().map(Finished::of).collect(), max).into_iter().map(|p| p.key.name).collect::<Vec<_>>();
        assert_eq!(names(2), ["evicted", "oldest"]);
        assert!(names(4).is_empty() && names(0).is_empty());
    }
}
