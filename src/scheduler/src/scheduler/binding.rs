//! Sending a pod to its node: its volumes and devices first, then the pod; and taking all back where that fails.
//!
//! Models pkg/scheduler/schedule_one.go `bindingCycle`, `handleBindingCycleError`, v1.37.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{ApiError, Client, Clock, EventType, Named};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::attempt::told;
use super::failure::{Failure, write_status};
use super::{Done, Scheduler};
use crate::dra::{self, BindClaimsError, Devices};
use crate::events::ClusterEvent;
use crate::extender::{Extender, ExtenderError};
use crate::plugins::volume_binding::choices;
use crate::pod::PodInfo;
use crate::volumes::{BindVolumesError, Choice, Volumes};

/// What came back from a binding.
pub struct Bound {
    pod: Arc<PodInfo>,
    profile: usize,
    chosen: Chosen,
    result: Result<(), BindError>,
}

/// What has to be written before the pod is bound.
#[derive(Default)]
struct Chosen {
    volumes: Vec<Choice>,
    devices: Vec<dra::Choice>,
}

impl Chosen {
    fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.devices.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("running Bind plugin \"DefaultBinder\"")]
    Pod(#[source] ApiError),
    #[error(transparent)]
    Extender(ExtenderError),
    #[error("running PreBind plugin \"VolumeBinding\"")]
    Volumes(#[source] BindVolumesError),
    #[error("running PreBind plugin \"DynamicResources\"")]
    Devices(#[source] BindClaimsError),
    #[error("preempted by DefaultPreemption")]
    Preempted,
}

/// Whether a pod that is not bound yet may still be stopped.
#[derive(Default)]
struct PreBinding {
    decided: Mutex<Option<bool>>,
    stopped: Notify,
}

const POISON: &str = "nothing panics while it holds the map";

impl PreBinding {
    /// The first to decide wins: whether to go on (`true`) or to stop.
    fn decide(&self, go_on: bool) -> bool {
        *self.decided.lock().expect(POISON).get_or_insert(go_on) == go_on
    }
}

/// Pods whose volumes are being bound, by uid: taking their place away needs no call.
#[derive(Clone, Default)]
pub struct PreBindings(Arc<Mutex<HashMap<String, Arc<PreBinding>>>>);

impl PreBindings {
    fn start(&self, uid: &str) -> Arc<PreBinding> {
        let new = Arc::new(PreBinding::default());
        self.0.lock().expect(POISON).insert(uid.to_owned(), new.clone());
        new
    }

    fn end(&self, uid: &str) {
        self.0.lock().expect(POISON).remove(uid);
    }

    /// Stops the binding; false where it is too late, or there is none.
    pub fn cancel(&self, uid: &str) -> bool {
        let Some(binding) = self.0.lock().expect(POISON).get(uid).cloned() else { return false };
        let stopped = binding.decide(false);
        if stopped {
            binding.stopped.notify_one();
        }
        stopped
    }
}

/// What all bindings need.
pub struct Binder {
    pub client: Client,
    pub clock: Clock,
    pub volumes: Volumes,
    pub devices: Devices,
    pub extenders: Arc<Vec<Extender>>,
    pub pre_bindings: PreBindings,
}

/// One binding on its way.
struct Binding {
    binder: Arc<Binder>,
    timeout: Duration,
    pod: Arc<PodInfo>,
    /// Where there are extenders.
    object: Option<Arc<Pod>>,
    node: String,
}

impl Binding {
    async fn prepare(&self, chosen: &Chosen) -> Result<(), BindError> {
        let Binder { client, clock, volumes, devices, .. } = &*self.binder;
        volumes.bind(client, &self.node, &chosen.volumes, self.timeout).await.map_err(BindError::Volumes)?;
        devices.bind(client, clock, &self.pod, &chosen.devices).await.map_err(BindError::Devices)
    }

    async fn run(&self, chosen: &Chosen) -> Result<(), BindError> {
        let result = self.try_run(chosen).await;
        if result.is_err() && !chosen.devices.is_empty() {
            self.binder.devices.unreserve(&self.binder.client, &self.pod, &chosen.devices).await;
        }
        result
    }

    async fn try_run(&self, chosen: &Chosen) -> Result<(), BindError> {
        if !chosen.is_empty() {
            let uid = &self.pod.uid;
            let guard = self.binder.pre_bindings.start(uid);
            let result = tokio::select! {
                done = self.prepare(chosen) => done,
                () = guard.stopped.notified() => Err(BindError::Preempted),
            };
            let may_go_on = guard.decide(true);
            self.binder.pre_bindings.end(uid);
            result?;
            if !may_go_on {
                return Err(BindError::Preempted);
            }
        }
        if let Some(object) = &self.object {
            for extender in self.binder.extenders.iter().filter(|e| e.binds() && e.is_interested(object)) {
                match extender.bind(object, &self.node).await {
                    Err(error) if extender.is_ignorable() => {
                        tracing::info!(extender = extender.name(), error = &error as &dyn std::error::Error, "extender skipped");
                    }
                    done => return done.map_err(BindError::Extender),
                }
            }
        }
        self.binder.client.bind(&self.pod.key, &self.pod.uid, &self.node).await.map_err(BindError::Pod)
    }
}

impl Scheduler {
    /// Counts the pod on its node at once, and writes it there in the background.
    pub(super) fn send(&mut self, pod: Arc<PodInfo>, object: Option<Arc<Pod>>, profile: usize, node: &str) {
        let timeout = self.profiles[profile].binds_volumes;
        let mut chosen = Chosen::default();
        if let Some(state) = self.cache.node(node) {
            if timeout.is_some() {
                chosen.volumes = choices(&pod, state, &self.volumes);
            }
            if self.profiles[profile].binds_devices && !pod.device_claims.is_empty() {
                chosen.devices = dra::choices(&pod, state, &self.devices);
            }
        }
        self.volumes.assume(node, &chosen.volumes);
        self.devices.reserve(&chosen.devices);
        self.queue.remove(&pod.key);
        self.nominator.remove(&pod.key);
        self.cache.assume(pod.clone(), node);
        self.bindings += 1;
        if !chosen.is_empty() && pod.nominated_node != node {
            // It will take a while: others see where the pod is going (NominatedNodeNameForExpectation).
            let patch = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node}});
            write_status(&self.client, pod.key.clone(), patch);
        }
        let timeout = timeout.unwrap_or_default();
        let binding = Binding { binder: self.binder.clone(), timeout, pod: pod.clone(), object, node: node.to_owned() };
        let (events, done) = (self.events[profile].clone(), self.done.clone());
        tokio::spawn(async move {
            let result = binding.run(&chosen).await;
            if result.is_ok() {
                let message = format!("Successfully assigned {} to {}", pod.key, binding.node);
                events.record_on(pod.reference(), EventType::Normal, "Scheduled", message);
            }
            // The loop ends only with the process.
            let _ = done.send(Done::Bound(Bound { pod, profile, chosen, result }));
        });
    }

    pub(super) fn binding_done(&mut self, Bound { pod, profile, chosen, result }: Bound) {
        self.bindings -= 1;
        self.volumes.give_back(&chosen.volumes);
        let Err(error) = result else { return };
        let now = Instant::now();
        let object = self.pods.get(&pod.key).filter(|o| o.uid() == pod.uid);
        let current = object.as_ref().map(|o| PodInfo::new(o));
        if current.as_ref().is_some_and(PodInfo::is_assigned) {
            // Somebody bound it all the same; the watch tells where.
            tracing::debug!(pod = %pod.key, error = told(&error), "binding refused");
            return;
        }
        // A successor of the same name is none of this binding's business.
        if self.cache.pod(&pod.key).is_some_and(|p| p.uid == pod.uid) {
            self.cache.remove_pod(&pod.key);
            self.queue.happened(&ClusterEvent::pod_deleted(&pod), None, now);
        }
        let Some(current) = current.filter(|c| !c.deleting) else {
            tracing::debug!(pod = %pod.key, error = told(&error), "binding of a pod that has gone");
            return;
        };
        tracing::warn!(pod = %pod.key, error = told(&error), "binding failed");
        let current = Arc::new(current);
        self.queue.failed(current.clone(), profile, now);
        self.report(&current, profile, Failure::error(told(&error)));
    }
}
