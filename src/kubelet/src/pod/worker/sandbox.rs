//! What containers stand on: the sandbox and the volumes, made, lost and made anew.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Sandbox, Volumes, Worker};
use crate::pod::event::{DIED, Event, SandboxMade};
use crate::pod::record::{Kind, Record};
use crate::time;
use crate::volumes::Mounted;

/// Between attempts at sandbox and volumes: doubled from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Worker {
    pub(super) fn sandbox_made(&mut self, result: Result<SandboxMade, String>) {
        match result {
            Ok(made) => {
                self.failures = 0;
                self.cx.allocations.pod_written(&self.uid, made.limits);
                self.sandbox = Sandbox::Ready { id: made.id, pod_ips: made.pod_ips };
            }
            Err(_) if self.ending() => self.sandbox = Sandbox::Absent { retry_at: None },
            Err(message) => {
                self.cx.recorder.pod(&self.pod, true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
                self.failures += 1;
                self.sandbox_attempt += 1;
                self.sandbox = Sandbox::Absent { retry_at: Some(time::after(time::now(), retry_delay(self.failures))) };
            }
        }
    }

    pub(super) fn volumes_made(&mut self, result: Result<Mounted, String>) {
        match result {
            Ok(mounted) => {
                self.refreshing = false;
                self.volume_failures = 0;
                self.volumes = Volumes::Ready(Arc::new(mounted));
            }
            Err(_) if self.ending() => {
                self.refreshing = false;
                self.volumes = Volumes::Missing { retry_at: None };
            }
            Err(message) => {
                self.cx.recorder.pod(&self.pod, true, "FailedMount", message);
                self.volume_failures += 1;
                let retry_at = Some(time::after(time::now(), retry_delay(self.volume_failures)));
                if std::mem::take(&mut self.refreshing) {
                    self.publisher.refresh_at = retry_at;
                } else {
                    self.volumes = Volumes::Missing { retry_at };
                }
            }
        }
    }

    /// A pod that waits for a changed ConfigMap or Secret need not wait for its back-off.
    pub(super) fn sources_changed(&mut self) {
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

    pub(super) fn ensure_volumes(&mut self, now: Timestamp) {
        // After a failure the next attempt has its time, however long something is due.
        let due = self.publisher.refresh_at.map_or_else(|| self.credential_due(now), |at| at <= now);
        match &self.volumes {
            Volumes::Missing { retry_at } if retry_at.is_none_or(|at| at <= now) => self.volumes = Volumes::Preparing,
            Volumes::Ready(_) if !self.refreshing && (self.refresh_wanted || due) => self.refreshing = true,
            _ => return,
        }
        self.refresh_wanted = false;
        self.publisher.refresh_at = None;
        let (cx, pod, sources, credentials, events) =
            (self.cx.clone(), self.pod.clone(), self.sources.clone(), self.credentials.clone(), self.events.0.clone());
        let cancelled = self.cancelled.clone();
        self.tasks.spawn_owing(Event::VolumesMade(Err(DIED.into())), async move {
            let result = cx.make_volumes(pod, sources, credentials, &cancelled).await;
            let _ = events.send(Event::VolumesMade(result)).await;
        });
    }

    pub(super) fn credential_renewal(&self) -> Option<Timestamp> {
        self.credentials.try_lock().ok().and_then(|t| t.renew_at())
    }

    pub(super) fn credential_due(&self, now: Timestamp) -> bool {
        self.credential_renewal().is_some_and(|at| at <= now)
    }

    /// Whether there is a sandbox to start containers in.
    pub(super) fn ensure_sandbox(&mut self, now: Timestamp) -> bool {
        match &self.sandbox {
            Sandbox::Ready { .. } => return true,
            Sandbox::Absent { retry_at } if retry_at.is_none_or(|at| at <= now) => {}
            _ => return false,
        }
        self.sandbox = Sandbox::Creating;
        let (cx, pod, events, attempt) = (self.cx.clone(), self.pod.clone(), self.events.0.clone(), self.sandbox_attempt);
        let cancelled = self.cancelled.clone();
        self.tasks.spawn_owing(Event::SandboxMade(Err(DIED.into())), async move {
            let result = cx.make_sandbox(&pod, attempt, &cancelled).await;
            let _ = events.send(Event::SandboxMade(result)).await;
        });
        false
    }

    pub(super) fn sandbox_lost(&mut self, id: &str) {
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
    pub(super) fn rewind(&mut self) {
        if self.ending() {
            return;
        }
        let again: Vec<bool> =
            self.records.iter().map(|r| r.finished().is_some_and(|f| r.kind.is_init() || self.restarts(&r.name, f.exit_code))).collect();
        if again.iter().zip(&self.records).any(|(again, r)| *again && r.kind == Kind::Main) {
            for (record, _) in self.records.iter_mut().zip(again).filter(|(_, again)| *again) {
                record.rewind();
            }
        }
    }
}

fn retry_delay(failures: u32) -> Duration {
    RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY.1)
}
