//! The task that owns one pod: takes events in, decides by [`super::plan`], runs the effects, reports the status.
//!
//! Models pkg/kubelet/pod_workers.go and kuberuntime SyncPod, v1.37. The loop never waits for work: whatever takes time is a task
//! that reports back by an event, so that a stop is never behind a pull.

mod adopt;
mod containers;
mod probing;
mod publish;
mod resizing;
mod sandbox;
mod tasks;
mod teardown;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{Exit, SandboxStatus, Signal};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use self::containers::PULL_ERROR_SHOWN;
use self::tasks::Tasks;
use super::event::Event;
use super::plan::{self, Step};
use super::record::{self, Record};
use super::status::Verdict;
use crate::kubelet::Context;
use crate::time;
use crate::volumes::Mounted;
use crate::volumes::credentials::Credentials;
use crate::volumes::sources::PodSources;

/// Events waiting for the worker. Senders wait when it is full; the worker itself never sends to itself.
const QUEUE: usize = 256;
enum Sandbox {
    /// None yet, or the last one was lost; made at `retry_at` at the earliest.
    Absent { retry_at: Option<Timestamp> },
    /// A task makes it.
    Creating,
    Ready { id: String, pod_ips: Vec<String> },
    /// A task takes it down.
    Stopping,
    /// Nothing of the pod is left in the kernel.
    Gone,
}

enum Volumes {
    Missing { retry_at: Option<Timestamp> },
    Preparing,
    Ready(Arc<Mounted>),
}

/// What a running instance needs beside its record.
struct Handle {
    exited: CancellationToken,
    /// Ends the probes whose failure kills. The readiness probe goes on until the exit.
    vital_probes: CancellationToken,
    stop: Option<watch::Sender<Instant>>,
    stop_signal: Option<Signal>,
    /// Its postStart hook has not ended.
    hooking: bool,
}

impl Handle {
    fn new(stop_signal: Option<Signal>, hooking: bool) -> Self {
        let exited = CancellationToken::new();
        Self { vital_probes: exited.child_token(), exited, stop: None, stop_signal, hooking }
    }
}

pub struct Worker {
    cx: Arc<Context>,
    pod: Arc<Pod>,
    uid: String,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    tasks: Tasks,
    records: Vec<Record>,
    handles: HashMap<String, Handle>,
    sandbox: Sandbox,
    /// Number of the next sandbox.
    sandbox_attempt: u32,
    failures: u32,
    resizing: resizing::Resizing,
    volumes: Volumes,
    volume_failures: u32,
    refreshing: bool,
    refresh_wanted: bool,
    sources: Arc<PodSources>,
    changed: Arc<Notify>,
    credentials: Arc<Mutex<Credentials>>,
    verdict: Option<Verdict>,
    /// Gone from the API.
    removed: bool,
    stopping_since: Option<Timestamp>,
    started_at: Timestamp,
    /// All main containers are done; the sandbox is no longer needed.
    finished: bool,
    /// Exits of instances whose start has not been told yet: a short program can end before its start task reports.
    early_exits: HashMap<String, Option<Exit>>,
    /// Ends starts, pulls and waits when the pod is to stop.
    cancelled: CancellationToken,
    /// A teardown failed and is tried again.
    stopping_retry: bool,
    publisher: publish::Publisher,
}

/// The kubelet's end of a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    pub events: mpsc::Sender<Event>,
}

impl Worker {
    /// A worker for `pod`, which takes over what `adopt` says still exists of it. A pod that is `refused` fails at once.
    pub fn new(cx: Arc<Context>, pod: Arc<Pod>, adopt: Vec<SandboxStatus>, refused: Option<Verdict>) -> (Self, WorkerHandle) {
        let verdict = refused.map(|Verdict { reason, message }| {
            cx.recorder.pod(&pod, true, &reason, message.clone());
            Verdict { reason, message: format!("Pod was rejected: {message}") }
        });
        let (sender, receiver) = mpsc::channel(QUEUE);
        let changed = Arc::new(Notify::new());
        let sources = Arc::new(cx.objects.subscribe(&pod, &changed));
        let resizing = resizing::Resizing::new(cx.allocations.wake(pod.metadata.uid.as_deref().unwrap_or_default()));
        let pod = cx.allocations.consider(&pod);
        let started_at = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or_else(time::now, |t| t.0);
        let mut worker = Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            records: record::records(&pod),
            events: (sender.clone(), receiver),
            tasks: Tasks::default(),
            handles: HashMap::new(),
            sandbox: Sandbox::Absent { retry_at: None },
            sandbox_attempt: 0,
            failures: 0,
            resizing,
            volumes: Volumes::Missing { retry_at: None },
            volume_failures: 0,
            refreshing: false,
            refresh_wanted: false,
            sources,
            changed,
            credentials: Arc::default(),
            verdict,
            removed: false,
            stopping_since: None,
            started_at,
            finished: false,
            early_exits: HashMap::new(),
            cancelled: CancellationToken::new(),
            stopping_retry: false,
            publisher: publish::Publisher::default(),
            cx,
            pod,
        };
        worker.adopt(adopt);
        (worker, WorkerHandle { events: sender })
    }

    /// Runs until nothing of the pod is left, in the API or here.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.act();
            self.publish();
            if self.done() {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(event) = self.events.1.recv() => self.take(event),
                () = self.changed.notified() => self.sources_changed(),
                () = self.resizing.wake.notified() => self.reallocated(),
                () = sleep_until(wake) => {}
                owed = self.tasks.ended() => if let Some(owed) = owed {
                    // What the task said before it died comes first.
                    while let Ok(event) = self.events.1.try_recv() {
                        self.take(event);
                    }
                    self.take(owed);
                }
            }
            // Everything that is there already is taken in before the next decision: one status for all of it.
            while let Ok(event) = self.events.1.try_recv() {
                self.take(event);
            }
        }
        self.forget().await;
        info!(pod = self.title(), "pod is gone");
    }

    /// `name_namespace(uid)`, as upstream's messages have it.
    fn title(&self) -> String {
        let meta = &self.pod.metadata;
        format!("{}_{}({})", meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default(), self.uid)
    }

    fn take(&mut self, event: Event) {
        debug!(pod = self.pod.metadata.name, ?event, "pod event");
        match event {
            Event::Spec(pod) => self.respec(pod),
            Event::Removed => {
                self.removed = true;
                self.cx.allocations.remove(&self.uid);
                self.shorten_grace();
            }
            Event::SandboxMade(result) => self.sandbox_made(result),
            Event::VolumesMade(result) => self.volumes_made(result),
            Event::StartDied { name, attempt } => self.start_died(&name, attempt),
            Event::StopDied { id } => self.stop_died(id),
            Event::ContainerStarted { name, outcome } => self.container_started(&name, outcome),
            Event::StartFailed { name, attempt, failure } => self.start_failed(&name, attempt, failure),
            Event::Hooked { name, id, failure } => self.hooked(&name, &id, failure),
            Event::ContainerExited { id, exit } => self.exited(&id, Some(exit)),
            Event::ContainerLost { id } => self.exited(&id, None),
            Event::SandboxLost { id } => self.sandbox_lost(&id),
            Event::Probed { container, id, kind, verdict, message } => self.probed(&container, &id, kind, verdict, message),
            Event::Resized(result) => self.resized(result),
            Event::TornDown(result) => self.torn_down(result),
            Event::StatusWritten(result) => self.status_written(result),
            Event::Deleted(result) => self.deleted(result),
        }
    }

    fn respec(&mut self, pod: Arc<Pod>) {
        let meta = |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone());
        if meta(&pod) != meta(&self.pod) {
            self.refresh_wanted = true;
        }
        self.newer(pod);
        self.admit_ephemeral();
        self.shorten_grace();
    }

    /// Containers that were added to the running pod get their records.
    fn admit_ephemeral(&mut self) {
        for record in record::records(&self.pod).into_iter().filter(|r| r.kind == record::Kind::Ephemeral) {
            if self.records.iter().all(|r| r.name != record.name) {
                self.records.push(record);
            }
        }
    }

    fn act(&mut self) {
        let now = time::now();
        self.check_deadline(now);
        if self.ending() {
            self.act_ending(now);
            return;
        }
        let plan = plan::plan(&self.pod, &self.records, now);
        if plan.finished {
            self.finished = true;
            self.act_ending(now);
            return;
        }
        self.ensure_volumes(now);
        if !self.ensure_sandbox(now) {
            return;
        }
        if !self.ensure_sizes(now) {
            return;
        }
        let Volumes::Ready(mounted) = &self.volumes else { return };
        let mounted = mounted.clone();
        for step in plan.steps {
            match step {
                Step::Start { index } => self.start(index, mounted.clone()),
                Step::CrashLoop { index, .. } => self.show_crash_loop(index),
                Step::Retry { index, .. } => self.show_pull_back_off(index, now),
            }
        }
    }

    /// The pod is to stop for good: deleted, failed by the kubelet, or done before this process started.
    fn ending(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        self.removed || self.verdict.is_some() || self.finished || self.pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
    }

    fn check_deadline(&mut self, now: Timestamp) {
        let Some(at) = self.active_deadline() else { return };
        if now >= at && self.verdict.is_none() && !self.ending() {
            let message = "Pod was active on the node longer than the specified deadline";
            self.cx.recorder.pod(&self.pod, false, "DeadlineExceeded", message);
            self.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message: message.into() });
        }
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        Some(time::after(self.started_at, Duration::from_secs(u64::try_from(seconds).ok()?)))
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let now = time::now();
        let mut times: Vec<Option<Timestamp>> = vec![self.publisher.retry_at, self.publisher.refresh_at];
        if let Sandbox::Absent { retry_at } = &self.sandbox {
            times.push(*retry_at);
        }
        if !self.ending() {
            times.push(self.active_deadline());
            times.push(self.resizing.retry_at);
            if let Volumes::Missing { retry_at } = &self.volumes {
                times.push(*retry_at);
            }
            if !self.refreshing {
                times.push(self.credential_renewal());
            }
            for record in &self.records {
                times.push(record.retry_at);
                times.push(record.finished().and_then(|f| f.finished_at).and_then(|at| record.crash.wait_until(at, now)));
                if record.waiting.as_ref().is_some_and(|w| w.reason == "ErrImagePull") {
                    times.push(record.image_failed_at.map(|at| time::after(at, PULL_ERROR_SHOWN)));
                }
            }
        }
        times.into_iter().flatten().filter(|at| *at > now).min()
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        // A millisecond more, so that the moment has come when the timer fires.
        Some(at) => tokio::time::sleep(time::until(time::now(), at) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
