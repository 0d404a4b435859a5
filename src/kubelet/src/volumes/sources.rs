//! ConfigMaps and Secrets that pods refer to: one watch for each object that some pod here uses, and none else. Beside them, what pods
//! mount of bundles and certificates.
//!
//! Models pkg/kubelet/util/manager/watch_based_manager.go, v1.37. A watch ends with its last user.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use client::{Client, HandlerGuard, Informer, Kind, ObjectKey};
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, ConfigMap, Pod, Secret};
use tokio::sync::Notify;

use super::bundles::{BundleError, Bundles, PodBundles};
use super::certificates::issue::{PodRequests, Requests};
use crate::env;

/// How long a first list may take before the pod's start reports it (and goes on trying).
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

struct Watched<K: Kind> {
    key: ObjectKey,
    informer: Informer<K>,
}

struct Shared<K: Kind> {
    client: Client,
    entries: Mutex<HashMap<ObjectKey, Weak<Watched<K>>>>,
}

impl<K: Kind> Shared<K> {
    fn watch(&self, key: ObjectKey) -> Arc<Watched<K>> {
        let mut entries = self.entries.lock().expect("no holder panics");
        if let Some(found) = entries.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        entries.retain(|_, entry| entry.strong_count() > 0);
        let informer = Informer::<K>::builder(&self.client).namespace(&*key.namespace).fields(format!("metadata.name={}", key.name)).start();
        let entry = Arc::new(Watched { key: key.clone(), informer });
        entries.insert(key, Arc::downgrade(&entry));
        entry
    }
}

/// All such objects of the node. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    config_maps: Arc<Shared<ConfigMap>>,
    secrets: Arc<Shared<Secret>>,
    bundles: Arc<Bundles>,
    requests: Arc<Requests>,
}

impl Objects {
    pub fn new(client: &Client, node_name: &str) -> Self {
        Self {
            config_maps: Arc::new(Shared { client: client.clone(), entries: Mutex::default() }),
            secrets: Arc::new(Shared { client: client.clone(), entries: Mutex::default() }),
            bundles: Arc::new(Bundles::new(client)),
            requests: Arc::new(Requests::new(client, node_name)),
        }
    }

    /// Watches what `pod` refers to; `changed` is told of every change.
    pub fn subscribe(&self, pod: &Pod, changed: &Arc<Notify>) -> PodSources {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let (maps, secrets) = references(pod);
        let config_maps = maps.into_iter().map(|name| (name.clone(), Use::new(&self.config_maps, &namespace, name, changed))).collect();
        let secrets = secrets.into_iter().map(|name| (name.clone(), Use::new(&self.secrets, &namespace, name, changed))).collect();
        PodSources {
            config_maps,
            secrets,
            bundles: self.bundles.subscribe(pod, changed),
            requests: self.requests.subscribe(pod, changed),
            known: AtomicBool::new(false),
        }
    }
}

struct Use<K: Kind> {
    entry: Arc<Watched<K>>,
    _guard: HandlerGuard,
}

impl<K: Kind> Use<K> {
    fn new(shared: &Shared<K>, namespace: &str, name: String, changed: &Arc<Notify>) -> Self {
        let entry = shared.watch(ObjectKey::new(namespace, name));
        let changed = changed.clone();
        let guard = entry.informer.on_event(move |_| changed.notify_one());
        Self { entry, _guard: guard }
    }
}

/// One pod's view.
#[derive(Default)]
pub struct PodSources {
    config_maps: BTreeMap<String, Use<ConfigMap>>,
    secrets: BTreeMap<String, Use<Secret>>,
    bundles: Option<PodBundles>,
    /// For certificates of the pod's own.
    pub requests: Option<PodRequests>,
    known: AtomicBool,
}

impl PodSources {
    /// Whether [`PodSources::synced`] has been reached once: from then on a notification means a change.
    pub fn known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Waits until each object is known to be there or not; names the first that is not known in time.
    pub async fn synced(&self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + SYNC_TIMEOUT;
        for (name, used) in &self.config_maps {
            let wait = tokio::time::timeout_at(deadline, used.entry.informer.synced()).await;
            wait.map_err(|_| format!("failed to sync configmap cache for {name:?}: timed out waiting for the condition"))?;
        }
        for (name, used) in &self.secrets {
            let wait = tokio::time::timeout_at(deadline, used.entry.informer.synced()).await;
            wait.map_err(|_| format!("failed to sync secret cache for {name:?}: timed out waiting for the condition"))?;
        }
        if let Some(bundles) = &self.bundles {
            let wait = tokio::time::timeout_at(deadline, bundles.synced()).await;
            wait.map_err(|_| "ClusterTrustBundle informer has not yet synced".to_owned())?;
        }
        if let Some(requests) = &self.requests {
            let wait = tokio::time::timeout_at(deadline, requests.synced()).await;
            wait.map_err(|_| "PodCertificateRequest informer has not yet synced".to_owned())?;
        }
        self.known.store(true, Ordering::Release);
        Ok(())
    }

    pub fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let used = self.config_maps.get(name)?;
        used.entry.informer.get(&used.entry.key)
    }

    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        let used = self.secrets.get(name)?;
        used.entry.informer.get(&used.entry.key)
    }

    /// The file of a `clusterTrustBundle`.
    pub fn trust_anchors(&self, wanted: &ClusterTrustBundleProjection) -> Result<Vec<u8>, BundleError> {
        self.bundles.as_ref().ok_or(BundleError::Neither)?.anchors(wanted)
    }

    /// What an environment is made from; services are the caller's to add.
    pub fn for_environment(&self) -> env::Sources {
        env::Sources {
            config_maps: self.config_maps.keys().map(|n| (n.clone(), self.config_map(n))).collect(),
            secrets: self.secrets.keys().map(|n| (n.clone(), self.secret(n))).collect(),
            services: Vec::new(),
        }
    }
}

/// Names of all ConfigMaps and Secrets that a pod refers to.
pub fn references(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let Some(spec) = &pod.spec else { return (maps, secrets) };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let (m, s) = env::references(container);
        maps.extend(m.into_iter().map(str::to_owned));
        secrets.extend(s.into_iter().map(str::to_owned));
    }
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.as_ref().map(|s| s.name.clone()));
        secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
        for part in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(part.config_map.as_ref().map(|s| s.name.clone()));
            secrets.extend(part.secret.as_ref().map(|s| s.name.clone()));
        }
    }
    secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
    maps.retain(|n| !n.is_empty());
    secrets.retain(|n| !n.is_empty());
    (maps, secrets)
}
