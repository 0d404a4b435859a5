//! Stops one running container: preStop hook, stop signal, and after the grace period the kill.
//!
//! Models pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer, v1.37.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::event::Event;
use super::hooks;
use crate::kubelet::Context;

/// Even without grace a container gets this long after its signal (upstream: minimumGracePeriodInSeconds).
const GRACE_MIN: Duration = Duration::from_secs(2);
/// How long the runtime may take to report a killed container's exit.
const EXIT_REPORT_MAX: Duration = Duration::from_secs(10);

pub struct Stop {
    pub pod: Arc<Pod>,
    pub spec: Container,
    pub id: String,
    pub pod_ip: String,
    pub stop_signal: Option<Signal>,
    /// When the kill comes; may be moved forward while the stop is under way.
    pub deadline: watch::Receiver<Instant>,
    pub exited: CancellationToken,
    pub events: mpsc::Sender<Event>,
}

pub async fn run(cx: Arc<Context>, mut stop: Stop) {
    let hook = stop.spec.lifecycle.as_ref().and_then(|l| l.pre_stop.clone());
    if let Some(hook) = hook {
        let work = hooks::run(&cx.runtime, &stop.spec, &stop.id, &stop.pod_ip, &hook);
        tokio::select! {
            result = work => if let Err(error) = result {
                warn!(container = stop.spec.name, error, "preStop hook failed");
                cx.recorder.container(&stop.pod, &stop.spec.name, true, "FailedPreStopHook", "PreStopHook failed");
            },
            () = stop.exited.cancelled() => {}
            () = past(&mut stop.deadline) => {}
        }
    }
    if stop.exited.is_cancelled() {
        return;
    }
    let earliest = Instant::now() + GRACE_MIN;
    let signal = stop.stop_signal.unwrap_or(Signal::TERM);
    match cx.runtime.signal(&stop.id, signal).await {
        Ok(()) => {}
        Err(runtime::Error::NotFound { .. }) => {
            let _ = stop.events.send(Event::ContainerLost { id: stop.id.clone() }).await;
            return;
        }
        // Already on its way out, or the kill below will do.
        Err(error) => warn!(container = stop.id, %error, "stop signal"),
    }
    tokio::select! {
        () = stop.exited.cancelled() => return,
        () = async {
            past(&mut stop.deadline).await;
            tokio::time::sleep_until(earliest).await;
        } => {}
    }
    if let Err(error) = cx.runtime.kill(&stop.id).await {
        warn!(container = stop.id, %error, "kill");
    }
    if tokio::time::timeout(EXIT_REPORT_MAX, stop.exited.cancelled()).await.is_err() {
        // The exit was missed; ask once.
        let event = match cx.runtime.wait(&stop.id).await {
            Ok(exit) => Event::ContainerExited { id: stop.id.clone(), exit },
            Err(_) => Event::ContainerLost { id: stop.id.clone() },
        };
        let _ = stop.events.send(event).await;
    }
}

/// Until the deadline, as it stands at each moment.
async fn past(deadline: &mut watch::Receiver<Instant>) {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            changed = deadline.changed() => if changed.is_err() {
                tokio::time::sleep_until(at).await;
                return;
            },
        }
    }
}
