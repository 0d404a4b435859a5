//! One metadata watch for each kind that can be deleted.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{
    ApiResource, Backoff, Client, Event, HandlerGuard, Informer, Named, ObjectKey, PartialObject, WorkQueue,
};
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::{Context, POISON};
use crate::discovery::{Served, discover};

/// As upstream's initialSyncTimeout.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Monitors {
    client: Client,
    running: Mutex<HashMap<ApiResource, Monitor>>,
    /// By group and kind.
    kinds: Mutex<HashMap<(String, String), Arc<ApiResource>>>,
    changed: Arc<Notify>,
    synced: watch::Sender<bool>,
}

struct Monitor {
    informer: Informer<PartialObject>,
    _guard: HandlerGuard,
}

impl Monitors {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            running: Mutex::default(),
            kinds: Mutex::default(),
            changed: Arc::new(Notify::new()),
            synced: watch::channel(false).0,
        }
    }

    /// Where objects of this kind are found; its version is the group's preferred one.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<Arc<ApiResource>> {
        self.kinds.lock().expect(POISON).get(&(group.to_owned(), kind.to_owned())).cloned()
    }

    /// Waits until every kind of the first discovery has been listed, or could not be for too long.
    pub async fn synced(&self) {
        // The sender is ours.
        let _ = self.synced.subscribe().wait_for(|done| *done).await;
    }

    /// One kind that cannot be listed must not keep all others from being collected: whether an owner exists is asked of the server.
    async fn wait_for_all(&self) {
        let informers: Vec<_> = self.running.lock().expect(POISON).values().map(|m| m.informer.clone()).collect();
        let all = futures::future::join_all(informers.iter().map(Informer::synced));
        if tokio::time::timeout(SYNC_TIMEOUT, all).await.is_err() {
            warn!("not all kinds could be listed; collecting garbage without them");
        }
    }
}

/// Keeps the watches in step with what the server has. Never ends.
pub(super) async fn keep(cx: Arc<Context>, queue: WorkQueue<ObjectKey>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let monitors = &cx.monitors;
    loop {
        let (reached, complete) = match discover(&monitors.client).await {
            Ok(discovery) => {
                let complete = discovery.failures.is_empty();
                adjust(&cx, &queue, discovery.resources, complete);
                for (group, error) in discovery.failures {
                    warn!(%group, error = &error as &dyn std::error::Error, "cannot discover");
                }
                (true, complete)
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot discover the server's resources");
                (false, false)
            }
        };
        if reached && !*monitors.synced.borrow() {
            monitors.wait_for_all().await;
            monitors.synced.send_replace(true);
        }
        if !complete {
            tokio::time::sleep(backoff.next_delay()).await;
            continue;
        }
        backoff.reset();
        monitors.changed.notified().await;
        // A definition is served a moment after it is written; several often come together.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn is_watched(served: &Served) -> bool {
    let resource = &served.resource;
    // Events have no owners and are many.
    let events = resource.plural == "events" && matches!(resource.group.as_str(), "" | "events.k8s.io");
    !events && ["delete", "list", "watch"].iter().all(|verb| served.can(verb))
}

fn adjust(cx: &Arc<Context>, queue: &WorkQueue<ObjectKey>, served: Vec<Served>, complete: bool) {
    let monitors = &cx.monitors;
    let wanted: Vec<_> = served.iter().filter(|s| is_watched(s)).map(|s| s.resource.clone()).collect();
    {
        let mut kinds = monitors.kinds.lock().expect(POISON);
        if complete {
            kinds.clear();
        }
        for served in &served {
            let resource = &served.resource;
            kinds.insert((resource.group.clone(), resource.kind.clone()), Arc::new(resource.clone()));
        }
    }
    let mut running = monitors.running.lock().expect(POISON);
    if complete {
        running.retain(|resource, _| wanted.contains(resource));
    }
    for resource in wanted {
        running.entry(resource).or_insert_with_key(|resource| start(cx, queue, resource));
    }
}

fn start(cx: &Arc<Context>, queue: &WorkQueue<ObjectKey>, resource: &ApiResource) -> Monitor {
    let informer = Informer::<PartialObject>::builder_at(&cx.monitors.client, resource.clone()).project(slim).start();
    let resource = Arc::new(resource.clone());
    let brings_kinds = matches!(resource.plural.as_str(), "customresourcedefinitions" | "apiservices");
    // Weak: the context holds the monitor that holds this handler.
    let (weak, queue, changed) = (Arc::downgrade(cx), queue.clone(), cx.monitors.changed.clone());
    let guard = informer.on_event(move |event| {
        let Some(cx) = weak.upgrade() else { return };
        let wake = match event {
            Event::Deleted(object) => cx.graph.lock().expect(POISON).remove(object.uid()),
            Event::Added(object) | Event::Updated { new: object, .. } => {
                cx.graph.lock().expect(POISON).put(&resource, object)
            }
        };
        wake.into_iter().for_each(|uid| queue.add(ObjectKey::cluster(&*uid)));
        if brings_kinds {
            changed.notify_one();
        }
    });
    Monitor { informer, _guard: guard }
}

/// Keeps identity, owners, finalizers and the time of deletion.
fn slim(object: &mut PartialObject) {
    object.api_version = String::new();
    object.kind = String::new();
    let meta = &mut object.metadata;
    meta.labels = None;
    meta.annotations = None;
    meta.managed_fields = None;
    meta.generate_name = None;
}
