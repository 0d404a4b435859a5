//! Takes over what an earlier run of the kubelet left running.
//!
//! Nothing is restarted because of it: what runs is watched again, what ended meanwhile is accounted, what was ready stays so
//! until a probe says otherwise (as upstream's prober does after a restart).

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus as ApiStatus, PodStatus};
use runtime::{ContainerState, ContainerStatus, Exit, SandboxState, SandboxStatus, Signal};
use tracing::info;

use super::containers::finished;
use super::{Handle, Sandbox, Worker};
use crate::kubelet::sandbox_attempt;
use crate::pod::record::{self, Instance, Record, Running};
use crate::pod::spec::{LABEL_ATTEMPT, LABEL_CONTAINER, LABEL_IMAGE, LABEL_IMAGE_ID, LABEL_STOP_SIGNAL, PodPaths};
use crate::time;

impl Worker {
    pub(super) fn adopt(&mut self, mut sandboxes: Vec<SandboxStatus>) {
        self.recall();
        sandboxes.sort_by_key(|s| sandbox_attempt(&s.id));
        self.sandbox_attempt = sandboxes.last().map_or(0, |s| sandbox_attempt(&s.id) + 1);
        let ready = sandboxes.iter().rev().find(|s| s.state == SandboxState::Ready).map(|s| s.id.clone());
        if let Some(id) = &ready {
            let pod_ips = self.cx.addresses_of(&self.pod, id);
            info!(pod = self.title(), sandbox = id, "adopted");
            self.sandbox = Sandbox::Ready { id: id.clone(), pod_ips };
        }
        let mut instances: Vec<(u32, ContainerStatus, bool)> = Vec::new();
        for sandbox in sandboxes {
            let live = Some(&sandbox.id) == ready.as_ref();
            let attempt = |c: &ContainerStatus| c.labels.get(LABEL_ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(0);
            instances.extend(sandbox.containers.into_iter().map(|c| (attempt(&c), c, live)));
            if !live && sandbox.state != SandboxState::Stopped {
                let (cx, id) = (self.cx.clone(), sandbox.id);
                self.tasks.spawn(async move {
                    cx.stop_sandbox(&id).await;
                });
            }
        }
        instances.sort_by_key(|(attempt, ..)| *attempt);
        for (attempt, status, live) in instances {
            self.adopt_container(attempt, &status, live);
        }
        self.account_lost();
        if ready.is_none() {
            self.rewind();
        }
        let running: Vec<(String, String, u32, Timestamp)> =
            self.records.iter().filter_map(|r| r.running().map(|run| (r.name.clone(), run.id.clone(), r.attempt, run.started_at))).collect();
        for (name, id, attempt, started_at) in running {
            self.watch_log(&name, &id, attempt);
            self.start_probes(&name, &id, started_at);
        }
    }

    /// What only the API remembers: restart counts and how the last instances ended.
    fn recall(&mut self) {
        let Some(status) = self.pod.status.clone() else { return };
        for old in statuses(&status) {
            let Some(record) = self.records.iter_mut().find(|r| r.name == old.name) else { continue };
            record.attempt = u32::try_from(old.restart_count).unwrap_or(0);
            if !old.image.is_empty() {
                record.image.clone_from(&old.image);
            }
            record.image_id.clone_from(&old.image_id);
            let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref().and_then(|s| s.terminated.as_ref()).map(recalled);
            if let Some(finished) = ended(&old.state) {
                record.current = Some(Instance::Finished(finished));
                record.previous = ended(&old.last_state);
            } else if let Some(finished) = ended(&old.last_state) {
                // It waited for its next attempt.
                if old.state.as_ref().is_some_and(|s| s.waiting.is_some()) {
                    record.current = Some(Instance::Finished(finished));
                } else {
                    record.previous = Some(finished);
                }
            }
        }
    }

    /// What the API knows to run and the runtime does not know at all (the machine was restarted) has ended.
    fn account_lost(&mut self) {
        let Some(status) = self.pod.status.clone() else { return };
        let paths = PodPaths::new(&self.cx.config, &self.pod);
        let containers = self.records.len();
        for old in statuses(&status) {
            let Some(running) = old.state.as_ref().and_then(|s| s.running.as_ref()) else { continue };
            let Some(record) = self.records.iter_mut().find(|r| r.name == old.name && r.current.is_none()) else { continue };
            let id = old.container_id.as_deref().map(|id| id.trim_start_matches("rk://").to_owned()).unwrap_or_default();
            let started_at = running.started_at.as_ref().map_or_else(time::now, |t| t.0);
            record.started(record.attempt, Running { id, started_at, started: true, ready: false, stopping: false });
            let ended = finished(record, None, None, &paths, containers);
            record.ended(ended);
        }
    }

    fn adopt_container(&mut self, attempt: u32, status: &ContainerStatus, live: bool) {
        let name = status.labels.get(LABEL_CONTAINER).unwrap_or(&status.name).clone();
        let paths = PodPaths::new(&self.cx.config, &self.pod);
        let containers = self.records.len();
        let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, &name)).map(Cow::into_owned);
        let told = self.pod.status.as_ref().and_then(|s| {
            statuses(s).find(|c| c.name == name).map(|c| (c.container_id.clone(), c.started, c.ready))
        });
        let Some(record) = self.records.iter_mut().find(|r| r.name == name) else { return };
        let own = format!("rk://{}", status.id);
        let known = told.as_ref().filter(|(id, ..)| id.as_deref() == Some(own.as_str()));
        let image = |record: &mut Record| {
            if let Some(image) = status.labels.get(LABEL_IMAGE) {
                record.image.clone_from(image);
            }
            if let Some(id) = status.labels.get(LABEL_IMAGE_ID) {
                record.image_id.clone_from(id);
            }
        };
        // An instance that the API knows to have ended needs no second account.
        if record.finished().is_some_and(|f| f.id == status.id) || record.previous.as_ref().is_some_and(|p| p.id == status.id) {
            return;
        }
        if attempt < record.attempt {
            return;
        }
        let run = |started_at: Timestamp| Running {
            id: status.id.clone(),
            started_at,
            started: known.map_or_else(|| spec.as_ref().is_none_or(|c| c.startup_probe.is_none()), |(_, started, _)| *started == Some(true)),
            ready: known.map_or_else(|| spec.as_ref().is_none_or(|c| c.readiness_probe.is_none()), |(.., ready)| *ready),
            stopping: false,
        };
        let stamp = |at: std::time::SystemTime| Timestamp::try_from(at).unwrap_or_else(|_| time::now());
        match &status.state {
            ContainerState::Running(started) if live => {
                image(record);
                record.started(attempt, run(stamp(started.started_at)));
                let stop_signal = status.labels.get(LABEL_STOP_SIGNAL).and_then(|s| Signal::parse(s));
                self.handles.insert(status.id.clone(), Handle::new(stop_signal, false));
            }
            ContainerState::Running(started) => {
                image(record);
                record.started(attempt, run(stamp(started.started_at)));
                let ended = finished(record, spec.as_ref(), None, &paths, containers);
                record.ended(ended);
            }
            ContainerState::Exited { started_at, exit } => {
                image(record);
                record.started(attempt, run(stamp(*started_at)));
                let exit: Exit = exit.clone();
                let ended = finished(record, spec.as_ref(), Some(exit), &paths, containers);
                record.ended(ended);
            }
            ContainerState::Unknown { started_at } => {
                image(record);
                record.started(attempt, run(started_at.map_or_else(time::now, stamp)));
                let ended = finished(record, spec.as_ref(), None, &paths, containers);
                record.ended(ended);
            }
        }
    }
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ApiStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).chain(&status.ephemeral_container_statuses).flatten()
}

fn recalled(state: &k8s_openapi::api::core::v1::ContainerStateTerminated) -> record::Finished {
    record::Finished {
        id: state.container_id.as_deref().map(|id| id.trim_start_matches("rk://").to_owned()).unwrap_or_default(),
        exit_code: state.exit_code,
        signal: state.signal,
        reason: state.reason.clone().unwrap_or_default(),
        message: state.message.clone(),
        started_at: state.started_at.as_ref().map(|t| t.0),
        finished_at: state.finished_at.as_ref().map(|t| t.0),
    }
}
