//! Claims and volumes as scheduling sees them, and the writes that bind a pod's claims for its node.
//!
//! Models pkg/scheduler/framework/plugins/volumebinding/{binder,assume_cache}.go, v1.37. A
//! volume that is chosen for a claim counts as taken until the binding has succeeded or failed.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::volume::{BIND_COMPLETED, SELECTED_NODE, bound_volume};
use client::{ApiError, Client, Informer, Named, ObjectKey, Patch};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use tokio::sync::Notify;

const BY_NODE: &str = "node";
const POISON: &str = "nothing panics while it holds the map";

/// What the plugin may look at.
pub trait VolumeView: Send + Sync {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    /// Whether the volume was chosen for another claim a moment ago.
    fn is_taken(&self, volume: &str, claim: &ObjectKey) -> bool;
    /// The node for which a volume is about to be provisioned.
    fn assumed_node(&self, claim: &ObjectKey) -> Option<String>;
    fn csi_driver(&self, name: &str) -> Option<Arc<CSIDriver>>;
    fn csi_node(&self, node: &str) -> Option<Arc<CSINode>>;
    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>>;
    /// Attachments to the node.
    fn attachments(&self, node: &str) -> Vec<Arc<VolumeAttachment>>;
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
        /// What the driver has left for the node, where it says so.
        room: Option<i64>,
    },
}

impl Choice {
    pub fn claim(&self) -> &PersistentVolumeClaim {
        match self {
            Self::Bind { claim, .. } | Self::Provision { claim, .. } => claim,
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
    pub csi_drivers: Informer<CSIDriver>,
    pub csi_nodes: Informer<CSINode>,
    pub capacities: Informer<CSIStorageCapacity>,
    pub attachments: Informer<VolumeAttachment>,
    assumed: Arc<Mutex<Assumed>>,
}

#[derive(Default)]
struct Assumed {
    /// By volume, the claim that it is chosen for.
    volumes: HashMap<String, ObjectKey>,
    /// By claim, the node for which it is provisioned, and for how many pods.
    nodes: HashMap<ObjectKey, (String, usize)>,
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
        self.assumed.lock().expect(POISON).volumes.get(volume).is_some_and(|by| by != claim)
    }
    fn assumed_node(&self, claim: &ObjectKey) -> Option<String> {
        self.assumed.lock().expect(POISON).nodes.get(claim).map(|(node, _)| node.clone())
    }
    fn csi_driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        self.csi_drivers.get(&ObjectKey::cluster(name))
    }
    fn csi_node(&self, node: &str) -> Option<Arc<CSINode>> {
        self.csi_nodes.get(&ObjectKey::cluster(node))
    }
    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
        self.capacities.list()
    }
    fn attachments(&self, node: &str) -> Vec<Arc<VolumeAttachment>> {
        self.attachments.by_index(BY_NODE, node)
    }
}

impl Volumes {
    pub fn new(client: &Client) -> Self {
        let attachments = Informer::<VolumeAttachment>::builder(client).start();
        attachments.add_index(BY_NODE, |a| vec![a.spec.node_name.clone()]);
        Self {
            claims: Informer::builder(client).start(),
            volumes: Informer::builder(client).start(),
            classes: Informer::builder(client).start(),
            csi_drivers: Informer::builder(client).start(),
            csi_nodes: Informer::builder(client).start(),
            capacities: Informer::builder(client).start(),
            attachments,
            assumed: Arc::default(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.volumes.synced(), self.classes.synced());
        tokio::join!(self.csi_drivers.synced(), self.csi_nodes.synced(), self.capacities.synced(), self.attachments.synced());
    }

    /// Takes the chosen volumes until [`Self::give_back`].
    pub fn assume(&self, node: &str, choices: &[Choice]) {
        let mut assumed = self.assumed.lock().expect(POISON);
        for choice in choices {
            match choice {
                Choice::Bind { claim, volume } => {
                    assumed.volumes.insert(volume.name().to_owned(), claim.key());
                }
                Choice::Provision { claim, .. } => assumed.nodes.entry(claim.key()).or_insert_with(|| (node.to_owned(), 0)).1 += 1,
            }
        }
    }

    pub fn give_back(&self, choices: &[Choice]) {
        let mut assumed = self.assumed.lock().expect(POISON);
        for choice in choices {
            match choice {
                Choice::Bind { volume, .. } => {
                    assumed.volumes.remove(volume.name());
                }
                Choice::Provision { claim, .. } => {
                    if let std::collections::hash_map::Entry::Occupied(mut users) = assumed.nodes.entry(claim.key()) {
                        users.get_mut().1 -= 1;
                        if users.get().1 == 0 {
                            users.remove();
                        }
                    }
                }
            }
        }
    }

    /// Writes the choices, and waits until the binder (and a provisioner) has bound all claims.
    pub async fn bind(&self, client: &Client, node: &str, choices: &[Choice], timeout: Duration) -> Result<(), BindVolumesError> {
        for choice in choices {
            let result = match choice {
                Choice::Bind { claim, volume } => match bound_volume(volume, claim) {
                    Some(update) => client.update(&update).await.map(drop),
                    None => Ok(()),
                },
                Choice::Provision { claim, .. } => {
                    let meta = serde_json::json!({"uid": claim.uid(), "annotations": {SELECTED_NODE: node}});
                    let patch = Patch::Merge(serde_json::json!({"metadata": meta}));
                    client.patch::<PersistentVolumeClaim>(&claim.key(), &patch).await.map(drop)
                }
            };
            result.map_err(|source| BindVolumesError::Choose { claim: choice.claim().key(), source })?;
        }
        let keys: Vec<ObjectKey> = choices.iter().map(|c| c.claim().key()).collect();
        tokio::time::timeout(timeout, self.bound(&keys)).await.map_err(|_| BindVolumesError::Timeout)
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

/// A cluster without volumes.
#[cfg(test)]
pub struct NoVolumes;

#[cfg(test)]
impl VolumeView for NoVolumes {
    fn claim(&self, _: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>> {
        None
    }
    fn volume(&self, _: &str) -> Option<Arc<PersistentVolume>> {
        None
    }
    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        Vec::new()
    }
    fn class(&self, _: &str) -> Option<Arc<StorageClass>> {
        None
    }
    fn is_taken(&self, _: &str, _: &ObjectKey) -> bool {
        false
    }
    fn assumed_node(&self, _: &ObjectKey) -> Option<String> {
        None
    }
    fn csi_driver(&self, _: &str) -> Option<Arc<CSIDriver>> {
        None
    }
    fn csi_node(&self, _: &str) -> Option<Arc<CSINode>> {
        None
    }
    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
        Vec::new()
    }
    fn attachments(&self, _: &str) -> Vec<Arc<VolumeAttachment>> {
        Vec::new()
    }
}
