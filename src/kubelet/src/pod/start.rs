//! Starts one container: image, environment, files, process, postStart hook. Reports to the pod's worker.
//!
//! Models pkg/kubelet/kuberuntime/kuberuntime_container.go startContainer, v1.37.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::event::Event;
use super::hooks;
use super::spec::{self, PodPaths};
use crate::images::{self, chain};
use crate::kubelet::Context;
use crate::volumes::{Mounted, image};
use crate::volumes::sources::PodSources;
use crate::{logs, time};

pub struct Start {
    pub pod: Arc<Pod>,
    pub container: Container,
    pub attempt: u32,
    pub sandbox: String,
    /// An ephemeral container looks at the processes of this one.
    pub pids_of: Option<String>,
    pub pod_ips: Vec<String>,
    pub mounted: Arc<Mounted>,
    pub sources: Arc<PodSources>,
    pub events: mpsc::Sender<Event>,
    /// The pod is being stopped: give up as long as nothing runs.
    pub cancelled: CancellationToken,
}

#[derive(Debug, Clone)]
pub struct StartOutcome {
    pub id: String,
    pub attempt: u32,
    pub started_at: jiff::Timestamp,
    pub image: String,
    pub image_id: String,
    pub stop_signal: Option<Signal>,
    /// A postStart hook follows.
    pub hooked: bool,
}

#[derive(Debug, Clone)]
pub enum StartFailure {
    /// No image; retried with the image's own back-off.
    Image { reason: &'static str, message: String },
    /// It could not be described or prepared; retried when what it refers to changes, and by and by.
    Config { reason: &'static str, message: String },
    Cancelled,
    /// The program could not be started: counts as an instance that ended with this code.
    Run { id: String, message: String },
}

pub async fn run(cx: Arc<Context>, start: Start) {
    let name = start.container.name.clone();
    let (pod, container, events) = (start.pod.clone(), start.container.clone(), start.events.clone());
    let (attempt, pod_ip) = (start.attempt, start.pod_ips.first().cloned().unwrap_or_default());
    let outcome = match launch(&cx, start).await {
        Ok(outcome) => outcome,
        Err(failure) => {
            if let StartFailure::Config { message, .. } | StartFailure::Run { message, .. } = &failure {
                cx.recorder.container(&pod, &name, true, "Failed", format!("Error: {message}"));
            }
            let _ = events.send(Event::StartFailed { name, attempt, failure }).await;
            return;
        }
    };
    let id = outcome.id.clone();
    if events.send(Event::ContainerStarted { name: name.clone(), outcome }).await.is_err() {
        return;
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.clone()) {
        let failure = hooks::run(&cx.runtime, &container, &id, &pod_ip, &hook).await.err();
        if let Some(error) = &failure {
            warn!(container = name, error, "postStart hook failed");
            cx.recorder.container(&pod, &name, true, "FailedPostStartHook", "PostStartHook failed");
        }
        let _ = events.send(Event::Hooked { name, id, failure }).await;
    }
}

async fn launch(cx: &Arc<Context>, start: Start) -> Result<StartOutcome, StartFailure> {
    let Start { pod, container, attempt, sandbox, pids_of, pod_ips, mounted, sources, cancelled, .. } = start;
    let config_error = |message: String| StartFailure::Config { reason: "CreateContainerConfigError", message };
    let gather = async {
        sources.synced().await.map_err(config_error)?;
        let secrets: Vec<_> =
            pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()).filter_map(|s| sources.secret(&s.name)).collect();
        let image = images::ensure(&cx.images, &cx.recorder, &pod, &container, &secrets)
            .await
            .map_err(|e| StartFailure::Image { reason: e.reason, message: e.message })?;
        let mut volumes = Vec::new();
        for (name, stand_in) in image::wanted(&pod, &container) {
            let found = images::ensure(&cx.images, &cx.recorder, &pod, &stand_in, &secrets).await;
            volumes.push((name, found.map_err(|e| StartFailure::Image { reason: e.reason, message: e.message })?));
        }
        let mut environment = sources.for_environment();
        environment.services = cx.services_for(pod.metadata.namespace.as_deref().unwrap_or_default()).await;
        Ok((image, environment, volumes))
    };
    let (image, environment, volumes) = tokio::select! {
        gathered = gather => gathered?,
        () = cancelled.cancelled() => return Err(StartFailure::Cancelled),
    };

    let id = new_id();
    let (cx2, image2, id2, pod2, container2) = (cx.clone(), image.clone(), id.clone(), pod.clone(), container.clone());
    // File work, off the event loop.
    let built = tokio::task::spawn_blocking(move || {
        let facts = cx2.facts(&pod_ips);
        let snapshot = cx2.images.prepare(&id2, &image2).map_err(|e| StartFailure::Config { reason: "CreateContainerError", message: chain(&e) })?;
        let mut mounted = Mounted::clone(&mounted);
        let uid = pod2.metadata.uid.as_deref().unwrap_or_default();
        for (name, image) in &volumes {
            let prepared = image::set_up(&cx2.roots, &cx2.images, uid, name, image);
            let prepared = prepared.map_err(|e| StartFailure::Config { reason: "CreateContainerError", message: chain(&e) })?;
            mounted.insert(name.clone(), prepared);
        }
        let built = spec::build(spec::Request {
            config: &cx2.config,
            pod: &pod2,
            container: &container2,
            attempt,
            id: &id2,
            image: &image2,
            snapshot,
            mounted: &mounted,
            sources: &environment,
            facts: &facts,
            memory_capacity_bytes: cx2.machine.memory_bytes,
        });
        built.map_err(|e| {
            let _ = cx2.images.release(&id2);
            StartFailure::Config { reason: e.reason(), message: chain(&e) }
        })
    })
    .await
    .map_err(|e| config_error(e.to_string()))??;

    let log = built.log_path.clone();
    let stop_signal = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.clone())
        .or_else(|| Some(image.config.stop_signal.clone()).filter(|s| !s.is_empty()))
        .and_then(|s| Signal::parse(&s));
    let started = match cx.runtime.start_container(&sandbox, runtime::ContainerSpec { pids_of, ..built }).await {
        Ok(started) => started,
        Err(error) => {
            let message = chain(&error);
            let _ = cx.runtime.remove_container(&id).await;
            release(cx, &id);
            return Err(match error {
                runtime::Error::Start(_) => {
                    cx.recorder.container(&pod, &container.name, false, "Created", "Container created");
                    StartFailure::Run { id, message }
                }
                // The sandbox's end is reported by itself; the start is tried again in the next one.
                _ => StartFailure::Config { reason: "CreateContainerError", message },
            });
        }
    };
    cx.recorder.container(&pod, &container.name, false, "Created", "Container created");
    cx.recorder.container(&pod, &container.name, false, "Started", "Container started");
    if let Some(log) = log
        && let Err(error) = logs::link(&cx.config.log_dir, &pod, &container.name, &id, &log)
    {
        warn!(%error, "link the container's log");
    }
    Ok(StartOutcome {
        id,
        attempt,
        started_at: jiff::Timestamp::try_from(started.started_at).unwrap_or_else(|_| time::now()),
        image: spec::shown_image(&container, &image),
        image_id: spec::image_id(&image),
        stop_signal,
        hooked: container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()),
    })
}

/// Removes what the container wrote, in the background.
pub fn release(cx: &Arc<Context>, id: &str) {
    let (images, id) = (cx.images.clone(), id.to_owned());
    tokio::task::spawn_blocking(move || {
        if let Err(error) = images.release(&id) {
            warn!(container = id, %error, "remove the container's files");
        }
    });
}

/// The files of an ended instance: log, rotated logs, links, last words.
pub fn remove_files(cx: &Arc<Context>, pod: &Pod, container: &str, attempt: u32, id: &str) {
    let paths = PodPaths::new(&cx.config, pod);
    logs::remove(&cx.config.log_dir, pod, container, id, &paths.log(container, attempt));
    let _ = std::fs::remove_file(paths.termination(container, attempt));
}

/// 64 hexadecimal digits, as every runtime's ids.
fn new_id() -> String {
    let mut bytes = [0u8; 32];
    // The kernel's generator does not fail once it is seeded.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
