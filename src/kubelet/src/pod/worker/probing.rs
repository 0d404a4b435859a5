//! Probes of running instances, and the stop of one instance.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Sandbox, Worker};
use crate::pod::event::Event;
use crate::pod::record::{self, Record};
use crate::pod::stop::{self, Stop};
use crate::probe::attempt::Target;
use crate::probe::{self, ProbeKind, Probing, state};

impl Worker {
    /// Startup first; the other two once it has passed.
    pub(super) fn start_probes(&mut self, name: &str, id: &str, started_at: Timestamp) {
        let Some(spec) = self.pod.spec.as_ref().and_then(|s| record::container(s, name)).map(Cow::into_owned) else { return };
        let Some(handle) = self.handles.get(id) else { return };
        let running = self.records.iter().find(|r| r.name == name).and_then(Record::running);
        let (startup_passed, ready) = running.map_or((false, false), |r| (r.started, r.ready));
        let Sandbox::Ready { pod_ips, .. } = &self.sandbox else { return };
        let target = Arc::new(Target {
            runtime: self.cx.runtime.clone(),
            container: name.to_owned(),
            container_id: id.to_owned(),
            pod_ip: pod_ips.first().cloned().unwrap_or_default(),
            spec: spec.clone(),
        });
        let wanted = if spec.startup_probe.is_some() && !startup_passed {
            vec![(ProbeKind::Startup, spec.startup_probe)]
        } else {
            vec![(ProbeKind::Liveness, spec.liveness_probe), (ProbeKind::Readiness, spec.readiness_probe)]
        };
        for (kind, probe) in wanted {
            let Some(probe) = probe else { continue };
            let end = if kind == ProbeKind::Readiness { handle.exited.clone() } else { handle.vital_probes.clone() };
            let probing = Probing { kind, probe, target: target.clone(), started_at, ready, events: self.events.0.clone(), end };
            self.tasks.spawn(probe::run(probing));
        }
    }

    pub(super) fn probed(&mut self, name: &str, id: &str, kind: ProbeKind, verdict: Option<state::Verdict>, message: Option<(bool, String)>) {
        let current = self.records.iter().find(|r| r.name == name).and_then(Record::running).filter(|r| r.id == id).cloned();
        let Some(running) = current else { return };
        if let Some((failure, text)) = message {
            let reason = if failure { "Unhealthy" } else { "ProbeWarning" };
            self.cx.recorder.container(&self.pod, name, true, reason, text);
        }
        match (kind, verdict) {
            (_, None) => {}
            (ProbeKind::Startup, Some(state::Verdict::Passing)) => {
                if let Some(r) = self.record_mut(name).and_then(Record::running_mut) {
                    r.started = true;
                }
                self.start_probes(name, id, running.started_at);
            }
            (ProbeKind::Readiness, Some(verdict)) => {
                if let Some(r) = self.record_mut(name).and_then(Record::running_mut) {
                    r.ready = verdict == state::Verdict::Passing;
                }
            }
            (ProbeKind::Liveness, Some(state::Verdict::Passing)) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, Some(state::Verdict::Failing)) => {
                let spec = self.pod.spec.as_ref().and_then(|s| record::container(s, name));
                let probe = spec.as_deref().and_then(|c| if kind == ProbeKind::Startup { c.startup_probe.as_ref() } else { c.liveness_probe.as_ref() });
                let grace = probe.and_then(|p| p.termination_grace_period_seconds);
                let word = kind.title().to_lowercase();
                self.stop_container(name, format!("Container {name} failed {word} probe, will be restarted"), grace);
            }
        }
    }

    pub(super) fn grace(&self, own: Option<i64>) -> Duration {
        let spec = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
        let seconds = match self.pod.metadata.deletion_grace_period_seconds {
            Some(seconds) => seconds.max(1),
            None => own.or(spec).unwrap_or(30),
        };
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Begins to stop a running container; once.
    pub(super) fn stop_container(&mut self, name: &str, message: String, grace: Option<i64>) {
        let deadline = Instant::now() + self.grace(grace);
        self.stop_container_by(name, message, deadline);
    }

    pub(super) fn stop_container_by(&mut self, name: &str, message: String, deadline: Instant) {
        let Some(spec) = self.pod.spec.as_ref().and_then(|s| record::container(s, name)).map(Cow::into_owned) else { return };
        let Some(running) = self.records.iter_mut().find(|r| r.name == name).and_then(Record::running_mut) else { return };
        if running.stopping {
            // Under way already, perhaps with more grace than is left now.
            let stop = self.handles.get(&running.id).and_then(|h| h.stop.as_ref());
            if let Some(sender) = stop {
                sender.send_if_modified(|at| std::mem::replace(at, deadline.min(*at)) > deadline);
            }
            return;
        }
        running.stopping = true;
        let id = running.id.clone();
        let Some(handle) = self.handles.get_mut(&id) else { return };
        let (sender, receiver) = watch::channel(deadline);
        handle.stop = Some(sender);
        // What is being stopped is not killed for failing to live; readiness is probed to the end (upstream: StopLivenessAndStartup).
        handle.vital_probes.cancel();
        let pod_ip = match &self.sandbox {
            Sandbox::Ready { pod_ips, .. } => pod_ips.first().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        self.cx.recorder.container(&self.pod, name, false, "Killing", message);
        let stop = Stop {
            pod: self.pod.clone(),
            spec,
            id,
            pod_ip,
            stop_signal: handle.stop_signal,
            deadline: receiver,
            exited: handle.exited.clone(),
            events: self.events.0.clone(),
        };
        self.tasks.spawn_owing(Event::StopDied { id: stop.id.clone() }, stop::run(self.cx.clone(), stop));
    }
}
