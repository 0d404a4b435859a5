//! A resize of the running pod: what the node has allocated is brought into its cgroups.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::warn;

use super::{Sandbox, Worker};
use crate::allocation::{Sizes, message};
use crate::pod::event::{DIED, Event};
use crate::pod::record::{Kind, Record};
use crate::pod::resize::{self, Target};
use crate::time;

/// After a step that failed (upstream: the pod worker's backOffPeriod).
const RETRY: Duration = Duration::from_secs(10);

pub struct Resizing {
    /// The node has decided anew.
    pub wake: Arc<Notify>,
    /// A task writes cgroups.
    in_flight: bool,
    pub retry_at: Option<Timestamp>,
}

impl Resizing {
    pub fn new(wake: Arc<Notify>) -> Self {
        Self { wake, in_flight: false, retry_at: None }
    }
}

impl Worker {
    pub(super) fn reallocated(&mut self) {
        self.pod = self.cx.allocations.allocated(&self.pod);
        self.resizing.retry_at = None;
        // Volumes can show what the pod has been given.
        self.refresh_wanted = true;
    }

    /// Whether containers may start: the pod's cgroup holds what they will need, or that has just failed.
    pub(super) fn ensure_sizes(&mut self, now: Timestamp) -> bool {
        let Sandbox::Ready { id, .. } = &self.sandbox else { return false };
        if self.resizing.in_flight || self.records.iter().any(|r| r.renew && r.running().is_some()) {
            return false;
        }
        let Some(view) = self.cx.allocations.view(&self.uid) else { return true };
        let running = self.records.iter().filter(|r| r.kind != Kind::Ephemeral);
        let running: Vec<Target> = running.filter_map(|r| r.running().filter(|run| !run.stopping).map(|run| Target { name: r.name.clone(), id: run.id.clone() })).collect();
        let plan = resize::plan(&self.pod, &view.actuated, view.cgroup, &running);
        if plan.writes.is_empty() && plan.restart.is_empty() {
            self.resizing.retry_at = None;
            return true;
        }
        if self.resizing.retry_at.is_some_and(|at| at > now) {
            return true;
        }
        if !plan.restart.is_empty() {
            for name in plan.restart {
                if let Some(record) = self.record_mut(&name) {
                    record.renew = true;
                }
                let message = format!("Container {name} resize requires restart");
                self.stop_container(&name, message, None);
            }
            return false;
        }
        self.resizing.in_flight = true;
        let (cx, uid, sandbox, events, sizes) = (self.cx.clone(), self.uid.clone(), id.clone(), self.events.0.clone(), Sizes::of(&self.pod));
        self.tasks.spawn_owing(Event::Resized(Err(DIED.into())), async move {
            let result = resize::run(&cx, &uid, &sandbox, &sizes, plan).await;
            let _ = events.send(Event::Resized(result)).await;
        });
        false
    }

    pub(super) fn resized(&mut self, result: Result<(), String>) {
        self.resizing.in_flight = false;
        self.resizing.retry_at = None;
        let Err(why) = result else { return };
        if self.ending() {
            return;
        }
        warn!(pod = self.title(), error = why, "resize the pod");
        self.resizing.retry_at = Some(time::after(time::now(), RETRY));
        if let Some(generation) = self.cx.allocations.failed(&self.uid, &why) {
            self.cx.recorder.pod(&self.pod, true, "ResizeError", message::failed(&self.pod, generation, &why));
        }
    }

    /// Brings the condition of a resize under way up to date, before a status shows it.
    pub(super) fn settle_resize(&self) {
        if self.ending() {
            // Its containers stop; that completes nothing.
            return;
        }
        let Some(view) = self.cx.allocations.view(&self.uid) else { return };
        let steady = |r: &&Record| matches!(r.kind, Kind::Main | Kind::Sidecar) && r.running().is_some();
        let differs = self.records.iter().filter(steady).any(|r| !view.allocated.agree_on(&view.actuated, &r.name))
            || !view.allocated.agree_on_pod(&view.actuated)
            // Stopped for it, and not back yet.
            || self.records.iter().any(|r| r.renew);
        if let Some(generation) = self.cx.allocations.settle(&self.uid, differs) {
            self.cx.recorder.pod(&self.pod, false, "ResizeCompleted", message::completed(&self.pod, generation));
        }
    }
}
