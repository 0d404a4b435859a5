//! The loop around the decision: informers in, bindings, conditions and events out.
//!
//! Models pkg/scheduler/{scheduler,eventhandlers,schedule_one}.go, v1.37. One pod is decided at a time; bindings and the removal of victims
//! do not wait for each other, nor does the next decision wait for them.
mod attempt;
mod binding;
mod cluster;
mod failure;
mod pending;
mod victims;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, Clock, EventRecorder, Informer, ObjectKey};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::pending::Pending;

use self::binding::{Binder, Bound, PreBindings};
use crate::alike::Alike;
use crate::cache::Cache;
use crate::config::SchedulerConfig;
use crate::dra::{Devices, ExtendedResources, claims_of};
use crate::extender::{Extender, SetupError};
use crate::nominator::Nominator;
use crate::owners::Owners;
use crate::pod::{PodInfo, project};
use crate::profile::Profile;
use crate::queue::Queue;
use crate::schedule::Random;
use crate::volumes::Volumes;

/// Bindings on their way at once; decisions wait beyond that.
const BINDINGS_MAX: usize = 512;
/// So many pods are decided before the loop looks at what has happened.
const DECISIONS_IN_A_ROW: usize = 64;
/// So many events of a kind are taken in before it decides again.
const EVENTS_IN_A_ROW: usize = 1024;

/// What comes back from the tasks that the loop starts.
enum Done {
    Bound(Bound),
    /// The victims of a pod have been told to go.
    Preempted { key: ObjectKey, uid: String, failed: bool },
}

pub struct Scheduler {
    client: Client,
    profiles: Arc<Vec<Profile>>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
    budgets: Informer<PodDisruptionBudget>,
    volumes: Volumes,
    devices: Devices,
    owners: Owners,
    /// By profile.
    events: Vec<EventRecorder>,
    extenders: Arc<Vec<Extender>>,
    clock: Clock,
    cache: Cache,
    alike: Alike,
    queue: Queue,
    nominator: Nominator,
    random: Random,
    /// Where in the order of nodes the next search begins.
    next_node: usize,
    bindings: usize,
    binder: Arc<Binder>,
    pending: Pending,
    done: mpsc::UnboundedSender<Done>,
    finished: Option<mpsc::UnboundedReceiver<Done>>,
}

impl Scheduler {
    /// Starts to watch; nothing is scheduled before [`Self::run`].
    pub fn new(client: Client, clock: Clock, config: &SchedulerConfig) -> Result<Self, SetupError> {
        let profiles = Arc::new(config.profiles(&Arc::new(ExtendedResources::default())));
        let extenders = config.extenders.iter().cloned().map(Extender::new).collect::<Result<Vec<_>, _>>()?;
        // What it needs of a pod's earlier state stands in its cache and its queue.
        let pods = Informer::<Pod>::builder(&client).newest_only();
        // Extenders are shown the whole pod.
        let pods = if extenders.is_empty() { pods.project(project) } else { pods }.start();
        let nodes = Informer::<Node>::builder(&client).start();
        let namespaces = Informer::<Namespace>::builder(&client).start();
        let budgets = Informer::<PodDisruptionBudget>::builder(&client).start();
        let (volumes, owners, devices) = (Volumes::new(&client), Owners::new(&client), Devices::new(&client));
        let recorder = |p: &Profile| EventRecorder::new(&client, &p.scheduler_name, None, clock.clone());
        let events = profiles.iter().map(recorder).collect();
        // A pod whose claims are not there yet is not tried before they are.
        let known = devices.clone();
        let gate = move |pod: &PodInfo| !pod.device_claims.is_empty() && claims_of(pod, &known).is_err();
        let queue = Queue::new(profiles.clone(), config.backoff, Box::new(gate));
        let extenders = Arc::new(extenders);
        let binder = Binder {
            client: client.clone(),
            clock: clock.clone(),
            volumes: volumes.clone(),
            devices: devices.clone(),
            extenders: extenders.clone(),
            pre_bindings: PreBindings::default(),
        };
        // The channel holds no more than what is under way: bindings are counted, and a pod preempts once at a time.
        let (done, finished) = mpsc::unbounded_channel();
        Ok(Self {
            client,
            profiles,
            pods,
            nodes,
            namespaces,
            budgets,
            volumes,
            devices,
            owners,
            events,
            extenders,
            random: Random::new(clock.now().as_nanosecond() as u64),
            clock,
            cache: Cache::default(),
            alike: Alike::default(),
            queue,
            nominator: Nominator::default(),
            next_node: 0,
            bindings: 0,
            binder: Arc::new(binder),
            pending: Pending::default(),
            done,
            finished: Some(finished),
        })
    }

    /// What its metrics page tells from now on.
    pub fn pending(&self) -> Pending {
        self.pending.clone()
    }

    /// Schedules until the task is dropped.
    pub async fn run(mut self) {
        let Some(mut finished) = self.finished.take() else { return };
        let mut cluster = cluster::Subscriptions::new(&self);
        // A decision over half a world would be a wrong one.
        self.synced().await;
        while cluster.drain(&mut self) {}
        loop {
            let now = Instant::now();
            self.queue.timers(now);
            let mut busy = cluster.drain(&mut self);
            while let Ok(done) = finished.try_recv() {
                self.take_back(done);
            }
            for _ in 0..DECISIONS_IN_A_ROW {
                if self.bindings >= BINDINGS_MAX {
                    break;
                }
                let Some((pod, profile)) = self.queue.pop() else { break };
                busy = true;
                self.attempt(pod, profile).await;
            }
            self.nominator.tell(&mut self.cache);
            self.pending.set(self.queue.counts());
            if busy {
                tokio::task::yield_now().await;
                continue;
            }
            if self.queue.is_empty() {
                self.alike.rest();
            }
            let timer = self.queue.next_timer();
            tokio::select! {
                () = cluster.next(&mut self) => {}
                Some(done) = finished.recv() => self.take_back(done),
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    /// Returns when all that decisions need to know has been listed.
    pub async fn synced(&self) {
        tokio::join!(self.pods.synced(), self.nodes.synced(), self.namespaces.synced(), self.budgets.synced());
        tokio::join!(self.volumes.synced(), self.owners.synced(), self.devices.synced());
    }

    fn take_back(&mut self, done: Done) {
        match done {
            Done::Bound(bound) => self.binding_done(bound),
            Done::Preempted { key, uid, failed } => self.queue.preempted(&key, &uid, failed, Instant::now()),
        }
    }

    /// The profile that a pod has chosen.
    fn profile_of(&self, scheduler_name: &str) -> Option<usize> {
        self.profiles.iter().position(|p| p.scheduler_name == scheduler_name)
    }

    fn namespace_labels(&self) -> impl Fn(&str) -> Option<Arc<BTreeMap<String, String>>> + Send + Sync + use<> {
        let namespaces = self.namespaces.clone();
        move |name: &str| Some(Arc::new(namespaces.get(&ObjectKey::cluster(name))?.metadata.labels.clone()?))
    }
}
