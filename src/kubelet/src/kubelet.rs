//! Wires the node's parts together: registration, network, recovery, and one worker per pod.
//!
//! Models pkg/kubelet/kubelet.go, v1.37. Reads Pod (of this node), Node (this one), Service, and the ConfigMaps and Secrets that
//! its pods name. Writes Pod/status, Node, Lease, Event. Wakes on the informer of pods and on what the runtime tells.

mod context;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use client::{Backoff, Client, Event as Change, Informer};
use images::Images;
use k8s_openapi::api::core::v1::Pod;
use network::Network;
use runtime::{Runtime, SandboxStatus};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

pub use self::context::{Context, sandbox_attempt, sandbox_uid};
use crate::config::KubeletConfig;
use crate::csi;
use crate::pod::admission;
use crate::pod::event::Event;
use crate::pod::spec::LABEL_UID;
use crate::pod::status::Verdict;
use crate::pod::worker::{Worker, WorkerHandle};
use crate::volumes::image;
use crate::{allocation, logs, node, server};

/// The kubelet cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("create {path}")]
    Directory { path: std::path::PathBuf, #[source] source: std::io::Error },
    #[error("the task of {0} has ended")]
    Task(&'static str),
}

/// Cheap to clone; all clones are the same kubelet.
#[derive(Clone)]
pub struct Kubelet {
    cx: Arc<Context>,
    workers: Arc<Mutex<HashMap<String, WorkerHandle>>>,
}

impl Kubelet {
    /// Must be called inside a tokio runtime. Nothing happens on the host before [`Kubelet::run`].
    pub fn new(config: KubeletConfig, client: Client, runtime: Runtime, images: Images) -> Self {
        Self { cx: Arc::new(Context::new(config, client, runtime, images)), workers: Arc::default() }
    }

    /// The node's network, as soon as the node has a pod CIDR and it is set up.
    pub fn network(&self) -> watch::Receiver<Option<Network>> {
        self.cx.network.subscribe()
    }

    /// Answers one HTTP/1.1 connection: logs, exec, attach, port-forward, stats.
    pub async fn serve_connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        server::serve(self.cx.clone(), stream).await;
    }

    /// Runs until `shutdown`; containers run on.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), RunError> {
        let cx = self.cx.clone();
        for path in [&cx.config.root_dir, &cx.config.run_dir, &cx.config.log_dir] {
            std::fs::create_dir_all(path).map_err(|source| RunError::Directory { path: path.clone(), source })?;
        }
        let mut tasks = JoinSet::new();
        let registering = cx.clone();
        tasks.spawn(
            async move {
                if let Err(error) = csi::registration::run(registering).await {
                    warn!(%error, "storage drivers cannot register here");
                    std::future::pending::<()>().await;
                }
            }
            .instrument(info_span!("csi")),
        );
        tasks.spawn(node::run(cx.clone(), shutdown.clone()).instrument(info_span!("node")));
        // The receiver comes first: what ends while the list is read is told here.
        let mut runtime_events = cx.runtime.events();
        let existing = cx.runtime.list().await;
        let pods = Informer::<Pod>::builder(&cx.client).fields(format!("spec.nodeName={}", cx.config.node_name)).start();
        let mut changes = pods.subscribe();
        let _ = cx.pods.set(pods.clone());
        tokio::select! {
            () = pods.synced() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        cx.allocations.recover(&pods.list());
        let mut resizes = tokio::time::interval(allocation::RETRY_EVERY);
        let mut adopted = self.sort_existing(existing, &pods);
        let mut workers: JoinSet<String> = JoinSet::new();
        info!(node = cx.config.node_name, pods = pods.len(), "kubelet runs");
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                change = changes.recv() => self.pod_changed(change, &mut adopted, &mut workers, &shutdown).await,
                event = runtime_events.recv() => match event {
                    Some(event) => self.runtime_told(event).await,
                    None => return Err(RunError::Task("the runtime's events")),
                },
                _ = resizes.tick() => cx.allocations.retry(),
                Some(ended) = workers.join_next(), if !workers.is_empty() => self.worker_ended(ended, &pods, &mut workers, &shutdown).await,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {
                    if shutdown.is_cancelled() {
                        break;
                    }
                    return Err(RunError::Task("the node's status"));
                }
            }
        }
        while workers.join_next().await.is_some() {}
        Ok(())
    }

    /// Sandboxes by pod; those of no pod, and files of no pod, are removed in the background.
    fn sort_existing(&self, existing: Vec<SandboxStatus>, pods: &Informer<Pod>) -> HashMap<String, Vec<SandboxStatus>> {
        let known: std::collections::HashSet<String> = pods.list().iter().filter_map(|p| p.metadata.uid.clone()).collect();
        let mut adopted: HashMap<String, Vec<SandboxStatus>> = HashMap::new();
        let mut orphans = Vec::new();
        let mut containers = std::collections::HashSet::new();
        for sandbox in existing {
            let uid = sandbox.labels.get(LABEL_UID).cloned().unwrap_or_else(|| sandbox_uid(&sandbox.id).to_owned());
            if known.contains(&uid) {
                containers.extend(sandbox.containers.iter().map(|c| c.id.clone()));
                adopted.entry(uid).or_default().push(sandbox);
            } else {
                orphans.push(sandbox);
            }
        }
        let cx = self.cx.clone();
        let live: std::collections::HashSet<String> = adopted.values().flatten().map(|s| s.id.clone()).collect();
        // Read before any worker makes new ones.
        let written = cx.images.containers().unwrap_or_default();
        let directories = cx.roots.pods();
        tokio::spawn(async move {
            for sandbox in orphans {
                info!(sandbox = sandbox.id, "remove the sandbox of a pod that is gone");
                cx.remove_sandbox(&sandbox.id).await;
            }
            let in_use = |id: &String| containers.contains(id) || image::pod_of(id).is_some_and(|uid| known.contains(uid));
            for id in written.into_iter().filter(|id| !in_use(id)) {
                crate::pod::start::release(&cx, &id);
            }
            cx.detach_all_but(&live).await;
            let mut gone: Vec<String> = directories.into_iter().filter(|uid| !known.contains(uid)).collect();
            // Their driver has to come first; it may take a while.
            for uid in gone.extract_if(.., |uid| cx.csi.has_volumes(uid)) {
                tokio::spawn(remove_driven(cx.clone(), uid));
            }
            let removed = tokio::task::spawn_blocking(move || {
                for uid in gone {
                    if let Err(error) = cx.roots.remove(&uid) {
                        warn!(uid, %error, "remove the directory of a pod that is gone");
                    }
                }
                remove_orphaned_logs(&cx.config.log_dir, &known);
                logs::remove_dangling_links(&cx.config.log_dir);
            });
            let _ = removed.await;
        });
        adopted
    }

    async fn pod_changed(&self, change: Change<Pod>, adopted: &mut HashMap<String, Vec<SandboxStatus>>, workers: &mut JoinSet<String>, shutdown: &CancellationToken) {
        match change {
            Change::Added(pod) => self.tell_or_spawn(pod, adopted, workers, shutdown).await,
            Change::Updated { old, new } => {
                if old.metadata.uid != new.metadata.uid {
                    self.tell(old.metadata.uid.as_deref().unwrap_or_default(), Event::Removed).await;
                }
                self.tell_or_spawn(new, adopted, workers, shutdown).await;
            }
            Change::Deleted(pod) => {
                self.tell(pod.metadata.uid.as_deref().unwrap_or_default(), Event::Removed).await;
            }
        }
    }

    async fn tell_or_spawn(&self, pod: Arc<Pod>, adopted: &mut HashMap<String, Vec<SandboxStatus>>, workers: &mut JoinSet<String>, shutdown: &CancellationToken) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.tell(&uid, Event::Spec(pod.clone())).await {
            return;
        }
        self.spawn(pod, adopted.remove(&uid).unwrap_or_default(), workers, shutdown);
    }

    fn spawn(&self, pod: Arc<Pod>, adopt: Vec<SandboxStatus>, workers: &mut JoinSet<String>, shutdown: &CancellationToken) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let span = info_span!("pod", namespace = pod.metadata.namespace, name = pod.metadata.name);
        let refused = self.refusal(&pod, &adopt);
        let (worker, handle) = span.in_scope(|| Worker::new(self.cx.clone(), pod, adopt, refused));
        self.workers.lock().expect("no holder panics").insert(uid.clone(), handle);
        let shutdown = shutdown.clone();
        let run = worker.run(shutdown).instrument(span);
        workers.spawn(async move {
            // A panic is caught by the inner task, so that the outer one can say whose it was.
            if let Err(error) = tokio::spawn(run).await {
                warn!(uid, %error, "the pod's worker has died");
            }
            uid
        });
    }

    /// Why a pod that is new here cannot stay; one that has been let in before can.
    fn refusal(&self, pod: &Arc<Pod>, adopt: &[SandboxStatus]) -> Option<Verdict> {
        let was_here = !adopt.is_empty() || pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if was_here || pod.metadata.deletion_timestamp.is_some() {
            return self.cx.allocations.admit(pod, true).err();
        }
        let mut others = self.cx.pods.get()?.list();
        {
            let workers = self.workers.lock().expect("no holder panics");
            others.retain(|p| p.metadata.uid != pod.metadata.uid && p.metadata.uid.as_ref().is_some_and(|uid| workers.contains_key(uid)));
        }
        admission::refusal(pod, &others).or_else(|| self.cx.allocations.admit(pod, false).err())
    }

    async fn tell(&self, uid: &str, event: Event) -> bool {
        let handle = self.workers.lock().expect("no holder panics").get(uid).cloned();
        match handle {
            Some(handle) => handle.events.send(event).await.is_ok(),
            None => false,
        }
    }

    async fn runtime_told(&self, event: runtime::Event) {
        match event {
            runtime::Event::ContainerExited { sandbox, container, exit } => {
                self.tell(sandbox_uid(&sandbox), Event::ContainerExited { id: container, exit }).await;
            }
            runtime::Event::SandboxLost { id } => {
                let uid = sandbox_uid(&id).to_owned();
                if !self.tell(&uid, Event::SandboxLost { id: id.clone() }).await {
                    self.cx.remove_sandbox(&id).await;
                }
            }
        }
    }

    /// A worker ends when its pod is gone. One that ended although its pod is there (a panic) is started anew, from the runtime.
    async fn worker_ended(&self, ended: Result<String, tokio::task::JoinError>, pods: &Informer<Pod>, workers: &mut JoinSet<String>, shutdown: &CancellationToken) {
        let Ok(uid) = ended else { return };
        self.workers.lock().expect("no holder panics").remove(&uid);
        if shutdown.is_cancelled() {
            return;
        }
        let Some(pod) = pods.list().into_iter().find(|p| p.metadata.uid.as_deref() == Some(&uid)) else { return };
        let existing = self.cx.runtime.list().await.into_iter().filter(|s| sandbox_uid(&s.id) == uid).collect();
        self.spawn(pod, existing, workers, shutdown);
    }
}

/// Has drivers take away what a pod that is gone has left, then removes its directory.
async fn remove_driven(cx: Arc<Context>, uid: String) {
    let mut backoff = Backoff::new(std::time::Duration::from_secs(2), std::time::Duration::from_secs(120));
    while let Err(error) = cx.clone().tear_down(&uid, None).await {
        warn!(uid, error, "remove the directory of a pod that is gone");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

fn remove_orphaned_logs(log_dir: &std::path::Path, known: &std::collections::HashSet<String>) {
    for entry in std::fs::read_dir(log_dir.join("pods")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let uid = name.to_str().and_then(|n| n.rsplit_once('_')).map(|(_, uid)| uid.to_owned());
        if uid.is_some_and(|uid| !known.contains(&uid)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
