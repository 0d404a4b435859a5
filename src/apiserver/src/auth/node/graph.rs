//! Which objects the pods of a node name.
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use api::tree::Tree;

use crate::cache::{Cached, Change};

/// A kind of object that pods name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

pub type Edge = (Box<str>, Named, Box<str>, Box<str>);

#[derive(Default)]
pub struct Graph {
    pub(super) pods: HashMap<Box<str>, Vec<Edge>>,
    /// Node, kind, namespace, name: by how many pods.
    pub(super) edges: HashMap<Edge, u32>,
}

impl Graph {
    pub fn set(&mut self, pod: &str, edges: Vec<Edge>) {
        let old = if edges.is_empty() { self.pods.remove(pod) } else { self.pods.insert(pod.into(), edges.clone()) };
        for edge in edges {
            *self.edges.entry(edge).or_default() += 1;
        }
        for edge in old.into_iter().flatten() {
            if let Some(count) = self.edges.get_mut(&edge) {
                *count -= 1;
                if *count == 0 {
                    self.edges.remove(&edge);
                }
            }
        }
        if is_roomy(self.pods.len(), self.pods.capacity()) {
            self.pods.shrink_to(2 * self.pods.len());
        }
        if is_roomy(self.edges.len(), self.edges.capacity()) {
            self.edges.shrink_to(2 * self.edges.len());
        }
    }

    pub fn joins(&self, node: &str, named: Named, namespace: &str, name: &str) -> bool {
        self.edges.contains_key(&(node.into(), named, namespace.into(), name.into()))
    }
}

/// Pods whose edges are to be drawn again. Where no node asks for long they are many, so that nothing is kept of one that went before anybody
/// asked, and of the others no more than where they are.
#[derive(Default)]
pub struct Stale {
    any: AtomicBool,
    pods: Mutex<Pods>,
}

#[derive(Default)]
struct Pods {
    changed: HashMap<Arc<str>, Noted>,
    /// Those that have been taken and are there: their edges are in the graph.
    drawn: HashSet<Arc<str>>,
}

/// What became of a pod. What a listener hears comes before the cache shows it, so the object itself is meant for as long as it is the newest:
/// who read the cache then could see the state before.
pub enum Noted {
    Changed(Weak<Cached>),
    Gone,
}

/// A burst leaves no room for more than so many behind.
pub(super) const ROOM: usize = 1024;

fn is_roomy(len: usize, capacity: usize) -> bool {
    capacity > ROOM && len < capacity / 8
}

impl Stale {
    pub fn note(&self, pod: &Arc<Cached>, deleted: bool) {
        let pods = &mut *self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = &mut pods.changed;
        match deleted {
            false => drop(changed.insert(pod.key.clone(), Noted::Changed(Arc::downgrade(pod)))),
            true if pods.drawn.contains(&pod.key) => drop(changed.insert(pod.key.clone(), Noted::Gone)),
            true => drop(changed.remove(&pod.key)),
        }
        if is_roomy(changed.len(), changed.capacity()) {
            changed.shrink_to(2 * changed.len());
        }
        self.any.store(true, Ordering::Release);
    }

    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        (pods.changed.len(), pods.changed.capacity())
    }

    /// What was noted since the last time, by key.
    pub fn take(&self) -> HashMap<Arc<str>, Noted> {
        self.any.store(false, Ordering::Release);
        let pods = &mut *self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, noted) in &pods.changed {
            match noted {
                Noted::Changed(_) => pods.drawn.insert(key.clone()),
                Noted::Gone => pods.drawn.remove(key),
            };
        }
        if is_roomy(pods.drawn.len(), pods.drawn.capacity()) {
            pods.drawn.shrink_to(2 * pods.drawn.len());
        }
        std::mem::take(&mut pods.changed)
    }
}

/// What of a pod may name more after it is bound.
const GROWING: [&[u8]; 3] = [b"\"ephemeralContainers\"", b"\"resourceClaimStatuses\"", b"\"extendedResourceClaimStatus\""];

/// What a pod names does not change after it is bound, but for a few fields that few pods have.
pub fn touches_graph(change: &Change) -> bool {
    let node = change.object.field("spec.nodeName");
    match &change.previous {
        _ if node.is_empty() => change.previous.as_ref().is_some_and(|p| !p.field("spec.nodeName").is_empty()),
        _ if change.deleted => true,
        None => true,
        Some(previous) => {
            previous.field("spec.nodeName") != node
                || GROWING.iter().any(|field| memchr::memmem::find(&change.object.bytes, field).is_some())
        }
    }
}

pub fn names_secret(pod: &Tree) -> bool {
    named(pod).any(|(kind, _)| kind == Named::Secret)
}

pub fn names_config_map(pod: &Tree) -> bool {
    named(pod).any(|(kind, _)| kind == Named::ConfigMap)
}

pub fn edges(pod: &Tree, namespace: &str) -> Vec<Edge> {
    let node = pod.str_at(&["spec", "nodeName"]);
    // A mirror pod is the node's own word: it joins nothing.
    if node.is_empty() || api::meta::annotation(pod, "kubernetes.io/config.mirror").is_some() {
        return Vec::new();
    }
    named(pod).map(|(kind, name)| (node.into(), kind, namespace.into(), name)).collect()
}

/// Everything that the pod names, each once. Models pkg/api/v1/pod/util.go VisitPodSecretNames and its like.
fn named(pod: &Tree) -> impl Iterator<Item = (Named, Box<str>)> {
    let mut found: Vec<(Named, Box<str>)> = Vec::new();
    let mut join = |kind, name: &str| {
        if !name.is_empty() && !found.iter().any(|(k, n)| *k == kind && n.as_ref() == name) {
            found.push((kind, name.into()));
        }
    };
    join(Named::ServiceAccount, pod.str_at(&["spec", "serviceAccountName"]));
    for secret in pod.array_at(&["spec", "imagePullSecrets"]) {
        join(Named::Secret, secret.str_at(&["name"]));
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.array_at(&["spec", containers]) {
            for source in container.array_at(&["envFrom"]) {
                join(Named::Secret, source.str_at(&["secretRef", "name"]));
                join(Named::ConfigMap, source.str_at(&["configMapRef", "name"]));
            }
            for variable in container.array_at(&["env"]) {
                join(Named::Secret, variable.str_at(&["valueFrom", "secretKeyRef", "name"]));
                join(Named::ConfigMap, variable.str_at(&["valueFrom", "configMapKeyRef", "name"]));
            }
        }
    }
    let pod_name = api::meta::name(pod);
    for volume in pod.array_at(&["spec", "volumes"]) {
        join(Named::Secret, volume.str_at(&["secret", "secretName"]));
        join(Named::ConfigMap, volume.str_at(&["configMap", "name"]));
        join(Named::Claim, volume.str_at(&["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some() {
            join(Named::Claim, &format!("{pod_name}-{}", volume.str_at(&["name"])));
        }
        for source in volume.array_at(&["projected", "sources"]) {
            join(Named::Secret, source.str_at(&["secret", "name"]));
            join(Named::ConfigMap, source.str_at(&["configMap", "name"]));
        }
        for kind in ["azureFile", "cephfs", "cinder", "csi", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            let Some(source) = volume.get(kind) else { continue };
            join(Named::Secret, source.str_at(&["secretName"]));
            join(Named::Secret, source.str_at(&["secretRef", "name"]));
            join(Named::Secret, source.str_at(&["nodePublishSecretRef", "name"]));
        }
    }
    for claim in pod.array_at(&["spec", "resourceClaims"]) {
        join(Named::ResourceClaim, claim.str_at(&["resourceClaimName"]));
        // One that is made from a template is named by the status.
        if !claim.str_at(&["resourceClaimTemplateName"]).is_empty() {
            let made = pod.array_at(&["status", "resourceClaimStatuses"]).iter();
            let made = made.filter(|status| status.str_at(&["name"]) == claim.str_at(&["name"]));
            made.for_each(|status| join(Named::ResourceClaim, status.str_at(&["resourceClaimName"])));
        }
    }
    join(Named::ResourceClaim, pod.str_at(&["status", "extendedResourceClaimStatus", "resourceClaimName"]));
    found.into_iter()
}

/// The secrets that a volume names and a kubelet needs. Models pkg/api/v1/persistentvolume/util.go VisitPVSecretNames: those of
/// a driver's controller are none of a node's business.
pub fn volume_names_secret(volume: &Tree, namespace: &str, name: &str) -> bool {
    let claim_namespace = volume.str_at(&["spec", "claimRef", "namespace"]);
    let is_it = |of: &str, secret: &str| of == namespace && secret == name && !secret.is_empty();
    let spec = |path: &[&str]| volume.at(&[&["spec"], path].concat());
    let azure = spec(&["azureFile"]).is_some_and(|azure| {
        let of = azure.str_at(&["secretNamespace"]);
        is_it(if of.is_empty() { claim_namespace } else { of }, azure.str_at(&["secretName"]))
    });
    // The first may leave the namespace to the claim.
    let inherit = ["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi"].map(|kind| (kind, "secretRef", true));
    let own = ["cinder", "storageos"].map(|kind| (kind, "secretRef", false));
    let csi = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"].map(|field| ("csi", field, false));
    azure
        || inherit.iter().chain(&own).chain(&csi).any(|(kind, field, inherits)| {
            spec(&[kind, field]).is_some_and(|secret| {
                let of = secret.str_at(&["namespace"]);
                is_it(if *inherits && of.is_empty() { claim_namespace } else { of }, secret.str_at(&["name"]))
            })
        })
}
