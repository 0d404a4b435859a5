//! The containers of a pod: starts and how they fail, exits, hooks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::Exit;
use tracing::warn;

use super::{Handle, Sandbox, Worker};
use crate::allocation::Sizes;
use crate::logs::growth::Log;
use crate::pod::event::{DIED, Event};
use crate::pod::plan;
use crate::pod::record::{self, Finished, Kind, Record, Running, Waiting};
use crate::pod::spec::PodPaths;
use crate::pod::start::{self, Start, StartFailure, StartOutcome};
use crate::pod::termination;
use crate::time;
use crate::volumes::Mounted;

/// How long a failed pull is shown as such before it is shown as waiting.
pub(super) const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
const TARGET_RETRY: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn start(&mut self, index: usize, mounted: Arc<Mounted>) {
        let Sandbox::Ready { id, pod_ips } = &self.sandbox else { return };
        let pids_of = match self.target_of(&self.records[index].name) {
            Ok(target) => target,
            Err(name) => {
                let message = format!("unable to find target container {name}");
                let record = &mut self.records[index];
                self.cx.recorder.container(&self.pod, &record.name, true, "Failed", format!("Error: {message}"));
                record.retry_at = Some(time::after(time::now(), TARGET_RETRY));
                record.waiting = Some(Waiting { reason: "CreateContainerError".into(), message: Some(message) });
                return;
            }
        };
        let record = &mut self.records[index];
        let Some(container) = self.pod.spec.as_ref().and_then(|s| record::container(s, &record.name)).map(Cow::into_owned) else { return };
        record.starting = true;
        if let Some(failed) = record.finished().filter(|_| !record.renew).and_then(|f| f.finished_at) {
            record.crash.advance(failed);
        }
        self.cx.allocations.starts(&self.uid, &Sizes::of(&self.pod), &container.name);
        let start = Start {
            pod: self.pod.clone(),
            container,
            attempt: record.next_attempt(),
            sandbox: id.clone(),
            pids_of,
            pod_ips: pod_ips.clone(),
            mounted,
            sources: self.sources.clone(),
            events: self.events.0.clone(),
            cancelled: self.cancelled.clone(),
        };
        let owed = Event::StartDied { name: start.container.name.clone(), attempt: start.attempt };
        self.tasks.spawn_owing(owed, start::run(self.cx.clone(), start));
    }

    /// The running instance whose processes the ephemeral container of this name is to see; its name if it does not run.
    fn target_of(&self, ephemeral: &str) -> Result<Option<String>, String> {
        let all = self.pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
        let target = all.into_iter().find(|c| c.name == ephemeral).and_then(|c| c.target_container_name.clone()).filter(|t| !t.is_empty());
        let Some(target) = target else { return Ok(None) };
        match self.records.iter().find(|r| r.name == target).and_then(Record::running) {
            Some(running) => Ok(Some(running.id.clone())),
            None => Err(target),
        }
    }

    pub(super) fn show_crash_loop(&mut self, index: usize) {
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

    pub(super) fn show_pull_back_off(&mut self, index: usize, now: Timestamp) {
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

    pub(super) fn record_mut(&mut self, name: &str) -> Option<&mut Record> {
        self.records.iter_mut().find(|r| r.name == name)
    }

    pub(super) fn container_started(&mut self, name: &str, outcome: StartOutcome) {
        let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, name)).map(Cow::into_owned);
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
        self.watch_log(name, &outcome.id, outcome.attempt);
        self.start_probes(name, &outcome.id, outcome.started_at);
    }

    pub(super) fn watch_log(&self, name: &str, id: &str, attempt: u32) {
        let path = PodPaths::new(&self.cx.config, &self.pod).log(name, attempt);
        self.cx.growth.watch(Log { container: id.to_owned(), path });
    }

    pub(super) fn remove_dead(&mut self, name: &str, id: &str, attempt: u32) {
        let (cx, pod, name, id) = (self.cx.clone(), self.pod.clone(), name.to_owned(), id.to_owned());
        self.tasks.spawn(async move {
            let _ = cx.runtime.remove_container(&id).await;
            start::release(&cx, &id);
            start::remove_files(&cx, &pod, &name, attempt, &id);
        });
    }

    pub(super) fn start_failed(&mut self, name: &str, attempt: u32, failure: StartFailure) {
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
                // That was its new instance; the next one comes by its restart policy.
                record.renew = false;
                record.waiting = restarts.then(|| Waiting { reason: "RunContainerError".into(), message: Some(message) });
            }
        }
    }

    /// Either nothing was told of the instance yet, or its postStart hook was under way.
    pub(super) fn start_died(&mut self, name: &str, attempt: u32) {
        let Some(record) = self.record_mut(name) else { return };
        if record.starting {
            self.start_failed(name, attempt, StartFailure::Config { reason: "CreateContainerError", message: DIED.into() });
        } else if let Some(id) = record.running().map(|r| r.id.clone())
            && self.handles.get(&id).is_some_and(|h| h.hooking)
        {
            self.hooked(name, &id, Some(DIED.into()));
        }
    }

    /// The grace period has lost its keeper: what is left of the stop is the kill.
    pub(super) fn stop_died(&mut self, id: String) {
        let (cx, events) = (self.cx.clone(), self.events.0.clone());
        self.tasks.spawn(async move {
            let event = match cx.runtime.kill(&id).await {
                Ok(()) => match cx.runtime.wait(&id).await {
                    Ok(exit) => Event::ContainerExited { id, exit },
                    Err(_) => Event::ContainerLost { id },
                },
                Err(error) => {
                    warn!(container = id, %error, "kill");
                    Event::ContainerLost { id }
                }
            };
            let _ = events.send(event).await;
        });
    }

    pub(super) fn restarts(&self, name: &str, code: i32) -> bool {
        let kind = self.records.iter().find(|r| r.name == name).map_or(Kind::Main, |r| r.kind);
        let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, name));
        plan::restarts(&self.pod, spec.as_deref(), kind, code)
    }

    pub(super) fn hooked(&mut self, name: &str, id: &str, failure: Option<String>) {
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

    pub(super) fn exited(&mut self, id: &str, exit: Option<Exit>) {
        self.cx.growth.forget(id);
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
        let finished = finished(record, spec.as_deref(), exit, &paths, containers);
        record.ended(finished);
    }
}

pub(super) fn finished(record: &Record, spec: Option<&k8s_openapi::api::core::v1::Container>, exit: Option<Exit>, paths: &PodPaths, containers: usize) -> Finished {
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
