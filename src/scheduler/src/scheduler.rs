//! The loop around the decision: informers in, bindings, conditions and events out.
//!
//! Models pkg/scheduler/{scheduler,eventhandlers,schedule_one}.go. Bindings do not wait for each other; one that fails
//! takes its assumption back and the pod is tried again.
use std::collections::BTreeMap;
use std::sync::Arc;

use client::{ApiError, Client, Clock, Event, EventRecorder, EventType, Informer, Named, ObjectKey, Patch};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::plugins::volume_binding::choices;
use crate::plugins::{ClusterEvent, FILTERS, World};
use crate::pod::{PodInfo, project};
use crate::queue::Queue;
use crate::schedule::{Decision, decide};
use crate::volumes::{BindVolumesError, Volumes};

const NAME: &str = "default-scheduler";
/// Bindings on their way at once; decisions wait beyond that.
const BINDINGS_MAX: usize = 256;

/// What came back from a binding.
struct Bound {
    pod: Arc<PodInfo>,
    result: Result<(), BindError>,
}

#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error(transparent)]
    Pod(#[from] ApiError),
    #[error(transparent)]
    Volumes(#[from] BindVolumesError),
}

pub struct Scheduler {
    client: Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
    volumes: Volumes,
    events: EventRecorder,
    clock: Clock,
    cache: Cache,
    queue: Queue,
    bindings: usize,
    /// Turns ties between equal nodes around.
    turn: usize,
}

impl Scheduler {
    /// Starts to watch; nothing is scheduled before [`Self::run`].
    pub fn new(client: Client, clock: Clock) -> Self {
        let pods = Informer::<Pod>::builder(&client).project(project).start();
        let nodes = Informer::<Node>::builder(&client).start();
        let namespaces = Informer::<Namespace>::builder(&client).start();
        let volumes = Volumes::new(&client);
        let events = EventRecorder::new(&client, NAME, None, clock.clone());
        Self { client, pods, nodes, namespaces, volumes, events, clock, cache: Cache::default(), queue: Queue::default(), bindings: 0, turn: 0 }
    }

    /// Schedules until the task is dropped.
    pub async fn run(mut self) {
        let (mut pods, mut nodes, mut namespaces) = (self.pods.subscribe(), self.nodes.subscribe(), self.namespaces.subscribe());
        let (mut claims, mut persistent) = (self.volumes.claims.subscribe(), self.volumes.volumes.subscribe());
        let mut classes = self.volumes.classes.subscribe();
        // A decision over half a world would be a wrong one.
        tokio::join!(self.pods.synced(), self.nodes.synced(), self.namespaces.synced(), self.volumes.synced());
        while let Some(event) = nodes.try_recv() {
            self.node_event(&event);
        }
        while let Some(event) = pods.try_recv() {
            self.pod_event(&event);
        }
        let (sender, mut bound) = mpsc::channel(BINDINGS_MAX);
        loop {
            while self.bindings < BINDINGS_MAX {
                let Some(pod) = self.queue.pop() else { break };
                self.schedule_one(pod, &sender);
            }
            let backoff = self.queue.next_backoff();
            tokio::select! {
                event = pods.recv() => self.pod_event(&event),
                event = nodes.recv() => self.node_event(&event),
                _ = namespaces.recv() => self.queue.happened(ClusterEvent::NamespaceLabels, Instant::now()),
                _ = claims.recv() => self.queue.happened(ClusterEvent::Volumes, Instant::now()),
                _ = persistent.recv() => self.queue.happened(ClusterEvent::Volumes, Instant::now()),
                _ = classes.recv() => self.queue.happened(ClusterEvent::Volumes, Instant::now()),
                Some(done) = bound.recv() => self.binding_done(done),
                () = tokio::time::sleep_until(backoff.unwrap_or_else(Instant::now)), if backoff.is_some() => self.queue.end_backoffs(Instant::now()),
            }
        }
    }

    fn node_event(&mut self, event: &Event<Node>) {
        let now = Instant::now();
        match event {
            Event::Added(node) => {
                self.cache.set_node(node);
                self.queue.happened(ClusterEvent::NodeAdded, now);
            }
            Event::Updated { old, new } => {
                self.cache.set_node(new);
                for happened in node_changes(old, new) {
                    self.queue.happened(happened, now);
                }
            }
            Event::Deleted(node) => self.cache.remove_node(node.name()),
        }
    }

    fn pod_event(&mut self, event: &Event<Pod>) {
        let now = Instant::now();
        let pod = Arc::new(PodInfo::new(event.object()));
        if matches!(event, Event::Deleted(_)) || pod.finished {
            self.queue.remove(&pod.key);
            if self.cache.remove_pod(&pod.key) {
                self.queue.happened(ClusterEvent::PodRemoved, now);
            }
            return;
        }
        if !pod.node_name.is_empty() {
            self.queue.remove(&pod.key);
            let node = pod.node_name.clone();
            let known = matches!(event, Event::Updated { .. });
            self.cache.set_pod(pod, &node);
            self.queue.happened(if known { ClusterEvent::PodUpdated } else { ClusterEvent::PodAdded }, now);
            return;
        }
        if pod.scheduler_name != NAME {
            return;
        }
        if pod.deleting || pod.gated {
            self.queue.remove(&pod.key);
            return;
        }
        // Our own condition and the controller's annotations change nothing about where the pod may go.
        let same = event.old().is_some_and(|old| old.spec == event.object().spec && old.metadata.labels == event.object().metadata.labels);
        if !same {
            self.queue.put(pod);
        }
    }

    fn schedule_one(&mut self, pod: Arc<PodInfo>, bound: &mpsc::Sender<Bound>) {
        self.turn = self.turn.wrapping_add(1);
        let namespaces = self.namespaces.clone();
        let labels = move |name: &str| -> Option<BTreeMap<String, String>> { namespaces.get(&ObjectKey::cluster(name))?.metadata.labels.clone() };
        let world = World { cache: &self.cache, namespace_labels: &labels, volumes: &self.volumes };
        match decide(&pod, &world, |equal| self.turn % equal) {
            Decision::Node(node) => {
                let choices = self.cache.nodes.get(&node).map(|state| choices(&pod, state, &self.volumes)).unwrap_or_default();
                self.volumes.assume(&choices);
                let volumes = self.volumes.clone();
                self.queue.remove(&pod.key);
                self.cache.set_pod(pod.clone(), &node);
                self.bindings += 1;
                let (client, events, bound) = (self.client.clone(), self.events.clone(), bound.clone());
                let object = self.pods.get(&pod.key);
                tokio::spawn(async move {
                    let result = async {
                        let Some(object) = &object else { return Ok(()) }; // deleted meanwhile; its event takes the assumption back
                        volumes.bind(&client, &node, &choices).await?;
                        Ok::<_, BindError>(client.bind(object, &node).await?)
                    };
                    let result = result.await;
                    volumes.give_back(&choices);
                    if let (Ok(()), Some(object)) = (&result, &object) {
                        let message = format!("Successfully assigned {} to {node}", pod.key);
                        events.record(&**object, EventType::Normal, "Scheduled", message);
                    }
                    // The loop ends only with the process.
                    let _ = bound.send(Bound { pod, result }).await;
                });
            }
            Decision::None { message, plugins } => {
                let refused_by: Vec<_> = plugins.iter().map(|i| FILTERS[*i].name()).collect();
                tracing::debug!(pod = %pod.key, ?refused_by, message, "no node");
                self.queue.unschedulable(&pod.key, plugins, Instant::now());
                self.report(&pod, message);
            }
        }
    }

    fn binding_done(&mut self, Bound { pod, result }: Bound) {
        self.bindings -= 1;
        let Err(error) = result else { return };
        let is_stale = match &error {
            BindError::Pod(error) | BindError::Volumes(BindVolumesError::Choose { source: error, .. }) => error.is_not_found() || error.is_conflict(),
            BindError::Volumes(BindVolumesError::Timeout) => false,
        };
        if is_stale {
            // Gone, or bound by somebody else: the watch tells what is true.
            tracing::debug!(pod = %pod.key, %error, "binding refused");
        } else {
            tracing::warn!(pod = %pod.key, error = &error as &dyn std::error::Error, "binding failed");
        }
        let current = self.pods.get(&pod.key).map(|p| PodInfo::new(&p)).filter(|p| p.uid == pod.uid);
        match current {
            Some(p) if !p.node_name.is_empty() => {
                let node = p.node_name.clone();
                self.cache.set_pod(Arc::new(p), &node);
            }
            Some(p) if !p.deleting => {
                self.cache.remove_pod(&pod.key);
                self.queue.retry(Arc::new(p), Instant::now());
            }
            _ => {
                self.cache.remove_pod(&pod.key);
            }
        }
        self.queue.happened(ClusterEvent::PodRemoved, Instant::now());
    }

    /// Tells why the pod waits: an event, and the condition PodScheduled where it says something new.
    fn report(&self, pod: &Arc<PodInfo>, message: String) {
        let Some(object) = self.pods.get(&pod.key) else { return };
        self.events.record(&*object, EventType::Warning, "FailedScheduling", message.clone());
        let conditions = object.status.as_ref().and_then(|s| s.conditions.as_ref());
        let told = conditions.into_iter().flatten().any(|c| c.type_ == "PodScheduled" && c.status == "False" && c.message.as_deref() == Some(&message));
        if told {
            return;
        }
        let patch = Patch::Strategic(serde_json::json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": self.clock.time(), "lastProbeTime": null,
            }]}
        }));
        let (client, key) = (self.client.clone(), pod.key.clone());
        tokio::spawn(async move {
            if let Err(error) = client.patch_status::<Pod>(&key, &patch).await {
                tracing::debug!(pod = %key, %error, "condition not written");
            }
        });
    }
}

fn node_changes(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let spec = |n: &Node| n.spec.clone().unwrap_or_default();
    let (before, after) = (spec(old), spec(new));
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let mut changes = Vec::new();
    if before.taints != after.taints || before.unschedulable != after.unschedulable {
        changes.push(ClusterEvent::NodeTaints);
    }
    if old.metadata.labels != new.metadata.labels {
        changes.push(ClusterEvent::NodeLabels);
    }
    if allocatable(old) != allocatable(new) {
        changes.push(ClusterEvent::NodeAllocatable);
    }
    changes
}
