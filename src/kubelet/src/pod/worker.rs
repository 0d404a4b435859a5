//! The task that owns one pod: takes events in, decides by [`super::plan`], runs the effects, reports the status.
//!
//! Models pkg/kubelet/pod_workers.go and kuberuntime SyncPod, v1.37. The loop never waits for work: whatever takes time is a task
//! that reports back by an event, so that a stop is never behind a pull.

mod adopt;
mod probing;
mod publish;
mod teardown;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{Exit, SandboxStatus, Signal};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::event::Event;
use super::plan::{self, Step};
use super::record::{self, Finished, Kind, Record, Running, Waiting};
use super::spec::PodPaths;
use super::start::{self, Start, StartFailure, StartOutcome};
use super::status::Verdict;
use super::termination;
use crate::kubelet::Context;
use crate::time;
use crate::volumes::Mounted;
use crate::volumes::sources::PodSources;
use crate::volumes::token::Tokens;

/// Events waiting for the worker. Senders wait when it is full; the worker itself never sends to itself.
const QUEUE: usize = 256;
/// How long a failed pull is shown as such before it is shown as waiting.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// Between attempts at sandbox and volumes: doubled from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
    tasks: JoinSet<()>,
    records: Vec<Record>,
    handles: HashMap<String, Handle>,
    sandbox: Sandbox,
    /// Number of the next sandbox.
    sandbox_attempt: u32,
    failures: u32,
    volumes: Volumes,
    volume_failures: u32,
    refreshing: bool,
    refresh_wanted: bool,
    sources: Arc<PodSources>,
    changed: Arc<Notify>,
    tokens: Arc<Mutex<Tokens>>,
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
    /// A worker for `pod`, which takes over what `adopt` says still exists of it.
    pub fn new(cx: Arc<Context>, pod: Arc<Pod>, adopt: Vec<SandboxStatus>) -> (Self, WorkerHandle) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let changed = Arc::new(Notify::new());
        let sources = Arc::new(cx.objects.subscribe(&pod, &changed));
        let started_at = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or_else(time::now, |t| t.0);
        let mut worker = Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            records: record::records(&pod),
            events: (sender.clone(), receiver),
            tasks: JoinSet::new(),
            handles: HashMap::new(),
            sandbox: Sandbox::Absent { retry_at: None },
            sandbox_attempt: 0,
            failures: 0,
            volumes: Volumes::Missing { retry_at: None },
            volume_failures: 0,
            refreshing: false,
            refresh_wanted: false,
            sources,
            changed,
            tokens: Arc::default(),
            verdict: None,
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
                () = sleep_until(wake) => {}
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
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
                self.shorten_grace();
            }
            Event::SandboxMade(Ok(made)) => {
                self.failures = 0;
                self.sandbox = Sandbox::Ready { id: made.id, pod_ips: made.pod_ips };
            }
            Event::SandboxMade(Err(_)) if self.ending() => self.sandbox = Sandbox::Absent { retry_at: None },
            Event::SandboxMade(Err(message)) => {
                self.cx.recorder.pod(&self.pod, true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
                self.failures += 1;
                self.sandbox_attempt += 1;
                self.sandbox = Sandbox::Absent { retry_at: Some(time::after(time::now(), retry_delay(self.failures))) };
            }
            Event::VolumesMade(Ok(mounted)) => {
                self.refreshing = false;
                self.volume_failures = 0;
                self.volumes = Volumes::Ready(Arc::new(mounted));
            }
            Event::VolumesMade(Err(_)) if self.ending() => {
                self.refreshing = false;
                self.volumes = Volumes::Missing { retry_at: None };
            }
            Event::VolumesMade(Err(message)) => {
                self.cx.recorder.pod(&self.pod, true, "FailedMount", message);
                self.volume_failures += 1;
                let retry_at = Some(time::after(time::now(), retry_delay(self.volume_failures)));
                if std::mem::take(&mut self.refreshing) {
                    self.publisher.refresh_at = retry_at;
                } else {
                    self.volumes = Volumes::Missing { retry_at };
                }
            }
            Event::ContainerStarted { name, outcome } => self.container_started(&name, outcome),
            Event::StartFailed { name, attempt, failure } => self.start_failed(&name, attempt, failure),
            Event::Hooked { name, id, failure } => self.hooked(&name, &id, failure),
            Event::ContainerExited { id, exit } => self.exited(&id, Some(exit)),
            Event::ContainerLost { id } => self.exited(&id, None),
            Event::SandboxLost { id } => self.sandbox_lost(&id),
            Event::Probed { container, id, kind, verdict, message } => self.probed(&container, &id, kind, verdict, message),
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
        self.shorten_grace();
    }

    /// A pod that waits for a changed ConfigMap or Secret need not wait for its back-off.
    fn sources_changed(&mut self) {
        if !self.sources.known() {
            // The first list comes in; whoever waits for it waits for its end.
            return;
        }
        self.refresh_wanted = true;
        if let Volumes::Missing { retry_at } = &mut self.volumes {
            *retry_at = None;
        }
        for record in &mut self.records {
            if record.waiting.as_ref().is_some_and(|w| w.reason == "CreateContainerConfigError") {
                record.retry_at = None;
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

    fn ensure_volumes(&mut self, now: Timestamp) {
        let due = self.publisher.refresh_at.is_some_and(|at| at <= now);
        match &self.volumes {
            Volumes::Missing { retry_at } if retry_at.is_none_or(|at| at <= now) => self.volumes = Volumes::Preparing,
            Volumes::Ready(_) if !self.refreshing && (self.refresh_wanted || due || self.token_due(now)) => self.refreshing = true,
            _ => return,
        }
        self.refresh_wanted = false;
        self.publisher.refresh_at = None;
        let (cx, pod, sources, tokens, events) =
            (self.cx.clone(), self.pod.clone(), self.sources.clone(), self.tokens.clone(), self.events.0.clone());
        let cancelled = self.cancelled.clone();
        self.tasks.spawn(async move {
            let result = cx.make_volumes(pod, sources, tokens, &cancelled).await;
            let _ = events.send(Event::VolumesMade(result)).await;
        });
    }

    fn token_renewal(&self) -> Option<Timestamp> {
        self.tokens.try_lock().ok().and_then(|t| t.renew_at())
    }

    fn token_due(&self, now: Timestamp) -> bool {
        self.token_renewal().is_some_and(|at| at <= now)
    }

    /// Whether there is a sandbox to start containers in.
    fn ensure_sandbox(&mut self, now: Timestamp) -> bool {
        match &self.sandbox {
            Sandbox::Ready { .. } => return true,
            Sandbox::Absent { retry_at } if retry_at.is_none_or(|at| at <= now) => {}
            _ => return false,
        }
        self.sandbox = Sandbox::Creating;
        let (cx, pod, events, attempt) = (self.cx.clone(), self.pod.clone(), self.events.0.clone(), self.sandbox_attempt);
        let cancelled = self.cancelled.clone();
        self.tasks.spawn(async move {
            let result = cx.make_sandbox(&pod, attempt, &cancelled).await;
            let _ = events.send(Event::SandboxMade(result)).await;
        });
        false
    }

    fn start(&mut self, index: usize, mounted: Arc<Mounted>) {
        let Sandbox::Ready { id, pod_ips } = &self.sandbox else { return };
        let record = &mut self.records[index];
        let Some(container) = self.pod.spec.as_ref().and_then(|s| record::container(s, &record.name)).cloned() else { return };
        record.starting = true;
        if let Some(failed) = record.finished().and_then(|f| f.finished_at) {
            record.crash.advance(failed);
        }
        let start = Start {
            pod: self.pod.clone(),
            container,
            attempt: record.next_attempt(),
            sandbox: id.clone(),
            pod_ips: pod_ips.clone(),
            mounted,
            sources: self.sources.clone(),
            events: self.events.0.clone(),
            cancelled: self.cancelled.clone(),
        };
        self.tasks.spawn(start::run(self.cx.clone(), start));
    }

    fn show_crash_loop(&mut self, index: usize) {
        let title = self.title();
        let record = &mut self.records[index];
        if record.waiting.as_ref().is_some_and(|w| w.reason == "CrashLoopBackOff") {
            return;
        }
        let delay = time::go_duration(record.crash.delay());
        let message = format!("back-off {delay} restarting failed container={} pod={title}", record.name);
        self.cx.recorder.container(&self.pod, &record.name, true, "BackOff", format!("Back-off restarting failed container {} in pod {title}", record.name));
        record.waiting = Some(Waiting { reason: "CrashLoopBackOff".into(), message: Some(message) });
    }

    fn show_pull_back_off(&mut self, index: usize, now: Timestamp) {
        let record = &mut self.records[index];
        let Some(failed) = record.image_failed_at.filter(|at| time::since(now, *at) >= PULL_ERROR_SHOWN) else { return };
        let _ = failed;
        let Some(waiting) = record.waiting.as_mut().filter(|w| w.reason == "ErrImagePull") else { return };
        let back_off = format!("Back-off pulling image {:?}", record.image);
        let why = waiting.message.take().map(|m| format!(": ErrImagePull: {m}")).unwrap_or_default();
        *waiting = Waiting { reason: "ImagePullBackOff".into(), message: Some(format!("{back_off}{why}")) };
        self.cx.recorder.container(&self.pod, &record.name, false, "BackOff", back_off);
        self.cx.recorder.container(&self.pod, &record.name, true, "Failed", "Error: ImagePullBackOff");
    }

    fn record_mut(&mut self, name: &str) -> Option<&mut Record> {
        self.records.iter_mut().find(|r| r.name == name)
    }

    fn container_started(&mut self, name: &str, outcome: StartOutcome) {
        let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, name)).cloned();
        let (startup, readiness) = spec.as_ref().map_or((false, false), |c| (c.startup_probe.is_some(), c.readiness_probe.is_some()));
        let old = self.record_mut(name).and_then(|r| r.previous.clone().map(|p| (p.id, r.attempt.saturating_sub(1))));
        let Some(record) = self.record_mut(name) else { return };
        record.image_pull.reset();
        record.image_failed_at = None;
        record.image.clone_from(&outcome.image);
        record.image_id.clone_from(&outcome.image_id);
        record.started(
            outcome.attempt,
            Running { id: outcome.id.clone(), started_at: outcome.started_at, started: !startup && !outcome.hooked, ready: !readiness, stopping: false },
        );
        self.handles.insert(outcome.id.clone(), Handle::new(outcome.stop_signal, outcome.hooked));
        // Of ended instances the last is kept (upstream: MaxPerPodContainer 1).
        if let Some((id, attempt)) = old.filter(|(id, _)| !id.is_empty()) {
            self.remove_dead(name, &id, attempt);
        }
        if let Some(exit) = self.early_exits.remove(&outcome.id) {
            self.exited(&outcome.id, exit);
            return;
        }
        self.start_probes(name, &outcome.id, outcome.started_at);
    }

    fn remove_dead(&mut self, name: &str, id: &str, attempt: u32) {
        let (cx, pod, name, id) = (self.cx.clone(), self.pod.clone(), name.to_owned(), id.to_owned());
        self.tasks.spawn(async move {
            let _ = cx.runtime.remove_container(&id).await;
            start::release(&cx, &id);
            start::remove_files(&cx, &pod, &name, attempt, &id);
        });
    }

    fn start_failed(&mut self, name: &str, attempt: u32, failure: StartFailure) {
        let now = time::now();
        let restarts = self.restarts(name, 128);
        let Some(record) = self.record_mut(name) else { return };
        record.starting = false;
        match failure {
            StartFailure::Cancelled => {}
            StartFailure::Image { reason, message } => {
                record.image_pull.advance(now);
                record.image_failed_at = Some(now);
                record.retry_at = Some(time::after(now, record.image_pull.delay()));
                record.waiting = Some(Waiting { reason: reason.into(), message: Some(message) });
            }
            StartFailure::Config { reason, message } => {
                record.image_pull.advance(now);
                record.retry_at = Some(time::after(now, record.image_pull.delay()));
                record.waiting = Some(Waiting { reason: reason.into(), message: Some(message) });
            }
            StartFailure::Run { id, message } => {
                record.ended(Finished {
                    id,
                    exit_code: 128,
                    signal: None,
                    reason: "StartError".into(),
                    message: Some(message.clone()),
                    started_at: Some(Timestamp::UNIX_EPOCH),
                    finished_at: Some(now),
                });
                record.attempt = attempt;
                record.waiting = restarts.then(|| Waiting { reason: "RunContainerError".into(), message: Some(message) });
            }
        }
    }

    fn restarts(&self, name: &str, code: i32) -> bool {
        let kind = self.records.iter().find(|r| r.name == name).map_or(Kind::Main, |r| r.kind);
        let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, name));
        plan::restarts(&self.pod, spec, kind, code)
    }

    fn hooked(&mut self, name: &str, id: &str, failure: Option<String>) {
        if let Some(handle) = self.handles.get_mut(id) {
            handle.hooking = false;
        }
        if failure.is_some() {
            self.stop_container(name, "FailedPostStartHook".to_owned(), None);
            return;
        }
        let waits = self.pod.spec.as_ref().and_then(|s| record::container(s, name)).is_some_and(|c| c.startup_probe.is_some());
        if let Some(running) = self.record_mut(name).and_then(Record::running_mut).filter(|r| r.id == id && !waits) {
            running.started = true;
        }
    }

    fn exited(&mut self, id: &str, exit: Option<Exit>) {
        if let Some(handle) = self.handles.remove(id) {
            handle.exited.cancel();
        }
        let containers = self.records.len();
        let paths = PodPaths::new(&self.cx.config, &self.pod);
        let Some(record) = self.records.iter_mut().find(|r| r.running().is_some_and(|run| run.id == id)) else {
            if self.records.iter().any(|r| r.starting) {
                self.early_exits.insert(id.to_owned(), exit);
            } else {
                self.early_exits.clear();
            }
            return;
        };
        let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, &record.name));
        let finished = finished(record, spec, exit, &paths, containers);
        record.ended(finished);
    }

    fn sandbox_lost(&mut self, id: &str) {
        match &self.sandbox {
            Sandbox::Ready { id: own, .. } if own == id => {}
            _ => return,
        }
        let running: Vec<String> = self.records.iter().filter_map(Record::running).map(|r| r.id.clone()).collect();
        for container in running {
            self.exited(&container, None);
        }
        for record in &mut self.records {
            record.retry_at = None;
        }
        if !self.ending() {
            self.cx.recorder.pod(&self.pod, false, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
        self.rewind();
        let (cx, sandbox) = (self.cx.clone(), id.to_owned());
        self.sandbox_attempt += 1;
        self.sandbox = Sandbox::Absent { retry_at: None };
        self.tasks.spawn(async move {
            cx.remove_sandbox(&sandbox).await;
        });
    }

    /// A new sandbox will be made: init containers run again in it, and what restarts starts from there.
    fn rewind(&mut self) {
        if self.ending() {
            return;
        }
        let again: Vec<bool> =
            self.records.iter().map(|r| r.finished().is_some_and(|f| r.kind != Kind::Main || self.restarts(&r.name, f.exit_code))).collect();
        if again.iter().zip(&self.records).any(|(again, r)| *again && r.kind == Kind::Main) {
            for (record, _) in self.records.iter_mut().zip(again).filter(|(_, again)| *again) {
                record.rewind();
            }
        }
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let now = time::now();
        let mut times: Vec<Option<Timestamp>> = vec![self.publisher.retry_at, self.publisher.refresh_at];
        if let Sandbox::Absent { retry_at } = &self.sandbox {
            times.push(*retry_at);
        }
        if !self.ending() {
            times.push(self.active_deadline());
            if let Volumes::Missing { retry_at } = &self.volumes {
                times.push(*retry_at);
            }
            if !self.refreshing {
                times.push(self.token_renewal());
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

fn finished(record: &Record, spec: Option<&k8s_openapi::api::core::v1::Container>, exit: Option<Exit>, paths: &PodPaths, containers: usize) -> Finished {
    let running = record.running();
    let id = running.map(|r| r.id.clone()).unwrap_or_default();
    let started_at = running.map(|r| r.started_at);
    let Some(exit) = exit else {
        return Finished {
            id,
            exit_code: 137,
            signal: None,
            reason: "ContainerStatusUnknown".into(),
            message: Some("The container could not be located when the pod was terminated".into()),
            started_at,
            finished_at: Some(time::now()),
        };
    };
    let reason = match (exit.code, exit.oom_killed) {
        (0, _) => "Completed",
        (_, true) => "OOMKilled",
        _ => "Error",
    };
    let fallback = spec.and_then(|s| s.termination_message_policy.as_deref()) == Some("FallbackToLogsOnError");
    let message =
        termination::message(&paths.termination(&record.name, record.attempt), &paths.log(&record.name, record.attempt), fallback, exit.code, containers);
    Finished {
        id,
        exit_code: exit.code,
        signal: None,
        reason: reason.into(),
        message,
        started_at,
        finished_at: Some(Timestamp::try_from(exit.finished_at).unwrap_or_else(|_| time::now())),
    }
}

fn retry_delay(failures: u32) -> Duration {
    RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY.1)
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        // A millisecond more, so that the moment has come when the timer fires.
        Some(at) => tokio::time::sleep(time::until(time::now(), at) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
