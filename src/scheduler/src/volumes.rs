//! Claims and volumes as scheduling sees them, and the writes that bind a pod's claims for its node.
//!
//! Models pkg/scheduler/framework/plugins/volumebinding/{binder,assume_cache}.go, v1.37. Left out: storage capacity and the score by it. A
//! volume that is chosen for a claim counts as taken until the binding has succeeded or failed.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::volume::{BIND_COMPLETED, SELECTED_NODE, bound_volume};
use client::{ApiError, Client, Informer, Named, ObjectKey, Patch};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use tokio::sync::Notify;

/// As upstream's bindTimeoutSeconds.
const TIMEOUT: Duration = Duration::from_secs(600);
const POISON: &str = "nothing panics while it holds the map";

/// What the plugin may look at.
pub trait VolumeView {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    /// Whether the volume was chosen for another claim a moment ago.
    fn is_taken(&self, volume: &str, claim: &ObjectKey) -> bool;
}

/// What is to be done for one claim before its pod is bound.
#[derive(Clone, Debug)]
pub enum Choice {
    Bind {
        claim: Arc<PersistentVolumeClaim>,
        volume: Arc<PersistentVolume>,
    },
    /// A provisioner makes a volume that the node can reach.
    Provision {
        claim: Arc<PersistentVolumeClaim>,
    },
}

impl Choice {
    fn claim(&self) -> &PersistentVolumeClaim {
        match self {
            Self::Bind { claim, .. } | Self::Provision { claim } => claim,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BindVolumesError {
    #[error("choose a volume for the claim {claim}")]
    Choose {
        claim: ObjectKey,
        #[source]
        source: ApiError,
    },
    #[error("binding volumes: context deadline exceeded")]
    Timeout,
}

#[derive(Clone)]
pub struct Volumes {
    pub claims: Informer<PersistentVolumeClaim>,
    pub volumes: Informer<PersistentVolume>,
    pub classes: Informer<StorageClass>,
    /// By volume, the claim that it is chosen for.
    assumed: Arc<Mutex<HashMap<String, ObjectKey>>>,
}

impl VolumeView for Volumes {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(key)
    }
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get(&ObjectKey::cluster(name))
    }
    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.list()
    }
    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(&ObjectKey::cluster(name))
    }
    fn is_taken(&self, volume: &str, claim: &ObjectKey) -> bool {
        self.assumed.lock().expect(POISON).get(volume).is_some_and(|by| by != claim)
    }
}

impl Volumes {
    pub fn new(client: &Client) -> Self {
        Self {
            claims: Informer::builder(client).start(),
            volumes: Informer::builder(client).start(),
            classes: Informer::builder(client).start(),
            assumed: Arc::default(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.volumes.synced(), self.classes.synced());
    }

    /// Takes the chosen volumes until [`Self::give_back`].
    pub fn assume(&self, choices: &[Choice]) {
        let mut assumed = self.assumed.lock().expect(POISON);
        for choice in choices {
            if let Choice::Bind { claim, volume } = choice {
                assumed.insert(volume.name().to_owned(), claim.key());
            }
        }
    }

    pub fn give_back(&self, choices: &[Choice]) {
        let mut assumed = self.assumed.lock().expect(POISON);
        for choice in choices {
            if let Choice::Bind { volume, .. } = choice {
                assumed.remove(volume.name());
            }
        }
    }

    /// Writes the choices, and waits until the binder (and a provisioner) has bound all claims.
    pub async fn bind(&self, client: &Client, node: &str, choices: &[Choice]) -> Result<(), BindVolumesError> {
        for choice in choices {
            let result = match choice {
                Choice::Bind { claim, volume } => match bound_volume(volume, claim) {
                    Some(update) => client.update(&update).await.map(drop),
                    None => Ok(()),
                },
                Choice::Provision { claim } => {
                    let meta = serde_json::json!({"uid": claim.uid(), "annotations": {SELECTED_NODE: node}});
                    let patch = Patch::Merge(serde_json::json!({"metadata": meta}));
                    client.patch::<PersistentVolumeClaim>(&claim.key(), &patch).await.map(drop)
                }
            };
            result.map_err(|source| BindVolumesError::Choose { claim: choice.claim().key(), source })?;
        }
        let keys: Vec<ObjectKey> = choices.iter().map(|c| c.claim().key()).collect();
        tokio::time::timeout(TIMEOUT, self.bound(&keys)).await.map_err(|_| BindVolumesError::Timeout)
    }

    async fn bound(&self, keys: &[ObjectKey]) {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let _guard = self.claims.on_event(move |_| notify.notify_one());
        // A notification that comes while the claims are looked at is kept.
        while !keys.iter().all(|key| self.claims.get(key).is_some_and(|claim| is_bound(&claim))) {
            changed.notified().await;
        }
    }
}

/// Both halves of the binding are complete.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_ref()).is_some_and(|name| !name.is_empty());
    named && claim.annotation(BIND_COMPLETED).is_some()
}
