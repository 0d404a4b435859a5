//! Finding a container by name, its log, and a command in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::ObjectKey;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{ContainerStatus as ApiStatus, Pod};
use runtime::ContainerState;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Body, Query, Refusal, streamed, text};
use crate::kubelet::{Context, sandbox_attempt};
use crate::logs::follow::{self, Options};
use crate::pod::record;
use crate::pod::spec::{LABEL_ATTEMPT, LABEL_CONTAINER, LABEL_NAMESPACE, LABEL_POD};
use crate::time;

const CHUNKS: usize = 8;
const RUN_BYTES_MAX: usize = 1 << 20;

/// One instance of a container on this node.
pub struct Instance {
    pub id: String,
    pub attempt: u32,
    pub running: bool,
    pub log: Option<PathBuf>,
}

pub fn pod(cx: &Context, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
    let pods = cx.pods.get().ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the kubelet is starting"))?;
    pods.get(&ObjectKey::new(namespace, name)).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("pod {name:?} not found\n")))
}

/// Instances of one container, the oldest first.
pub async fn instances(cx: &Context, pod: &Pod, container: &str) -> Vec<Instance> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let _ = (LABEL_POD, LABEL_NAMESPACE);
    let mut out: Vec<(u32, Instance)> = Vec::new();
    for sandbox in cx.runtime.list().await.into_iter().filter(|s| crate::kubelet::sandbox_uid(&s.id) == uid) {
        let generation = sandbox_attempt(&sandbox.id);
        for found in sandbox.containers {
            if found.labels.get(LABEL_CONTAINER).unwrap_or(&found.name) != container {
                continue;
            }
            let attempt = found.labels.get(LABEL_ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(0);
            let running = matches!(found.state, ContainerState::Running(_));
            out.push((generation, Instance { id: found.id, attempt, running, log: found.log_path }));
        }
    }
    out.sort_by_key(|(generation, i)| (*generation, i.attempt));
    out.into_iter().map(|(_, i)| i).collect()
}

/// The running instance, for exec and attach.
pub async fn running(cx: &Context, namespace: &str, name: &str, container: &str) -> Result<Instance, Refusal> {
    let pod = pod(cx, namespace, name)?;
    let found = instances(cx, &pod, container).await.into_iter().rev().find(|i| i.running);
    found.ok_or_else(|| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})")))
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ApiStatus> {
    let status = pod.status.as_ref()?;
    status.container_statuses.iter().chain(&status.init_container_statuses).flatten().find(|s| s.name == container)
}

pub async fn logs(cx: &Arc<Context>, namespace: &str, name: &str, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let pod = pod(cx, namespace, name)?;
    if pod.spec.as_ref().and_then(|s| record::container(s, container)).is_none() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}\n")));
    }
    let options = options(query)?;
    let mut found = instances(cx, &pod, container).await;
    let newest = found.pop();
    let instance = if query.flag(&["previous"]) {
        // A container that waits for its next attempt has only its last instance: that one is the previous.
        let waiting = newest.as_ref().is_some_and(|i| !i.running) && status_of(&pod, container).is_some_and(|s| s.state.as_ref().is_some_and(|s| s.waiting.is_some()));
        let previous = if waiting { newest } else { found.pop() };
        previous.ok_or_else(|| bad(format!("previous terminated container {container:?} in pod {name:?} not found")))?
    } else {
        newest.ok_or_else(|| {
            let waiting = status_of(&pod, container).and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
            match waiting {
                Some(reason) if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff") => {
                    bad(format!("container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image"))
                }
                Some(reason) => bad(format!("container {container:?} in pod {name:?} is waiting to start: {reason}")),
                None => bad(format!("container {container:?} in pod {name:?} is not available")),
            }
        })?
    };
    let path = instance.log.ok_or_else(|| bad(format!("container {container:?} in pod {name:?} has no log")))?;
    let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS);
    let ended = CancellationToken::new();
    if instance.running && options.follow {
        let (cx, id, ended, sender) = (cx.clone(), instance.id.clone(), ended.clone(), sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = cx.runtime.wait(&id) => {}
                () = sender.closed() => {}
            }
            ended.cancel();
        });
    } else {
        ended.cancel();
    }
    let shown = path.display().to_string();
    tokio::spawn(async move {
        let told = sender.clone();
        if let Err(error) = follow::stream(path, options, ended, sender).await {
            debug!(path = shown, %error, "log");
            let _ = told.send(Bytes::from(format!("failed to try resolving symlinks in path {shown:?}: {error}\n"))).await;
        }
    });
    Ok(streamed("text/plain", receiver))
}

fn options(query: &Query) -> Result<Options, Refusal> {
    let invalid = |name: &str| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("invalid value of {name}"));
    let number = |name: &str| query.get(name).filter(|v| !v.is_empty()).map(|v| v.parse::<u64>().map_err(|_| invalid(name))).transpose();
    let since = match (number("sinceSeconds")?, query.get("sinceTime").filter(|v| !v.is_empty())) {
        (Some(seconds), _) => {
            let span = jiff::SignedDuration::try_from(Duration::from_secs(seconds)).map_err(|_| invalid("sinceSeconds"))?;
            Some(time::now().saturating_sub(span).map_err(|_| invalid("sinceSeconds"))?)
        }
        (None, Some(text)) => Some(text.parse().map_err(|_| invalid("sinceTime"))?),
        (None, None) => None,
    };
    Ok(Options {
        follow: query.flag(&["follow"]),
        tail: number("tailLines")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        limit_bytes: number("limitBytes")?,
        since,
        timestamps: query.flag(&["timestamps"]),
        stderr: match query.get("stream") {
            Some("Stdout") => Some(false),
            Some("Stderr") => Some(true),
            _ => None,
        },
    })
}

/// A command without streams; its output is the answer.
pub async fn run(cx: &Arc<Context>, namespace: &str, name: &str, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
    let instance = running(cx, namespace, name, container).await?;
    let command: Vec<String> = query.get("cmd").map(|c| c.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    let done = cx.runtime.exec_sync(&instance.id, command, None, RUN_BYTES_MAX).await;
    match done {
        Ok(output) => Ok(text(StatusCode::OK, [output.stdout, output.stderr].concat())),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
