//! The end of a pod: containers in order, then sandbox, network and volumes, at last the records.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::{Sandbox, Volumes, Worker};
use crate::pod::event::{DIED, Event};
use crate::pod::record::{Kind, Record};
use crate::pod::spec::PodPaths;
use crate::volumes::image;
use crate::{logs, time};

const TEARDOWN_RETRY: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn act_ending(&mut self, now: Timestamp) {
        let since = *self.stopping_since.get_or_insert(now);
        self.cancelled.cancel();
        if self.records.iter().any(|r| r.starting) {
            // What is being started is stopped as soon as it is known.
            self.stop_kinds(since, now);
            return;
        }
        if self.records.iter().any(|r| r.running().is_some()) {
            self.stop_kinds(since, now);
            return;
        }
        if self.refreshing || matches!(self.volumes, Volumes::Preparing) {
            // They would be written behind the back of their removal.
            return;
        }
        match &self.sandbox {
            Sandbox::Gone | Sandbox::Stopping | Sandbox::Creating => {}
            Sandbox::Absent { retry_at } if retry_at.is_some_and(|at| at > now) && self.failures > 0 && self.stopping_retry => {}
            Sandbox::Absent { .. } => self.tear_down(None),
            Sandbox::Ready { id, .. } => {
                let id = id.clone();
                self.tear_down(Some(id));
            }
        }
    }

    /// Main and init containers first, all at once; then sidecars, the last started first.
    fn stop_kinds(&mut self, since: Timestamp, now: Timestamp) {
        let grace = self.stop_grace();
        let deadline = Instant::now() + time::until(now, time::after(since, grace));
        let first: Vec<String> = self.records.iter().filter(|r| r.kind != Kind::Sidecar && r.running().is_some()).map(|r| r.name.clone()).collect();
        let waiting = !first.is_empty() || self.records.iter().any(|r| r.kind != Kind::Sidecar && r.starting);
        for name in &first {
            self.stop_container_by(name, format!("Stopping container {name}"), deadline);
        }
        if waiting {
            return;
        }
        let last = self.records.iter().rev().find(|r| r.kind == Kind::Sidecar && r.running().is_some()).map(|r| r.name.clone());
        if let Some(name) = last {
            self.stop_container_by(&name, format!("Stopping container {name}"), deadline);
        }
    }

    /// A pod that is gone from the API was deleted by force.
    fn stop_grace(&self) -> Duration {
        if self.removed { Duration::from_secs(1) } else { self.grace(None) }
    }

    /// A second delete with less grace moves the kill forward.
    pub(super) fn shorten_grace(&mut self) {
        let Some(since) = self.stopping_since else { return };
        let deadline = Instant::now() + time::until(time::now(), time::after(since, self.stop_grace()));
        for sender in self.handles.values().filter_map(|h| h.stop.as_ref()) {
            sender.send_if_modified(|at| {
                let sooner = deadline < *at;
                if sooner {
                    *at = deadline;
                }
                sooner
            });
        }
    }

    fn tear_down(&mut self, sandbox: Option<String>) {
        self.sandbox = Sandbox::Stopping;
        let (cx, uid, events) = (self.cx.clone(), self.uid.clone(), self.events.0.clone());
        self.tasks.spawn_owing(Event::TornDown(Err(DIED.into())), async move {
            let result = cx.tear_down(&uid, sandbox.as_deref()).await;
            let _ = events.send(Event::TornDown(result)).await;
        });
    }

    pub(super) fn torn_down(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.stopping_retry = false;
                self.cx.allocations.remove(&self.uid);
                self.sandbox = Sandbox::Gone;
            }
            Err(error) => {
                warn!(pod = self.title(), error, "tear the pod down");
                self.failures += 1;
                self.stopping_retry = true;
                self.sandbox = Sandbox::Absent { retry_at: Some(time::after(time::now(), TEARDOWN_RETRY)) };
            }
        }
    }

    /// Nothing of the pod is left, here or in the API.
    pub(super) fn done(&self) -> bool {
        self.gone_from_api() && matches!(self.sandbox, Sandbox::Gone) && self.records.iter().all(|r: &Record| r.running().is_none() && !r.starting)
    }

    /// Removes records, logs and written files.
    pub(super) async fn forget(&mut self) {
        self.tasks.all_ended().await;
        let ids: Vec<(String, String)> = self.known_instances();
        let cx = self.cx.clone();
        for sandbox in cx.sandboxes_of(&self.uid).await {
            cx.remove_sandbox(&sandbox).await;
        }
        let paths = PodPaths::new(&cx.config, &self.pod);
        let (pod, uid) = (self.pod.clone(), self.uid.clone());
        let removed = tokio::task::spawn_blocking(move || {
            for (name, id) in ids {
                logs::unlink(&cx.config.log_dir, &pod, &name, &id);
                let _ = cx.images.release(&id);
            }
            let logs = std::fs::remove_dir_all(&paths.logs);
            if let Err(error) = logs
                && error.kind() != std::io::ErrorKind::NotFound
            {
                warn!(path = %paths.logs.display(), %error, "remove the pod's logs");
            }
            if let Err(error) = cx.roots.remove(&uid) {
                warn!(uid, %error, "remove the pod's directory");
            }
            image::release(&cx.images, &pod);
        });
        let _ = removed.await;
    }

    /// Name and id of every instance that has files here.
    fn known_instances(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for record in &self.records {
            let current = record.finished().map(|f| &f.id);
            for id in current.into_iter().chain(record.previous.as_ref().map(|p| &p.id)).filter(|id| !id.is_empty()) {
                out.push((record.name.clone(), id.clone()));
            }
        }
        out
    }
}
