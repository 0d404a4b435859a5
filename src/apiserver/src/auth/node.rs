//! What a node may read: the objects that its pods name, and its own.
//!
//! Models plugin/pkg/auth/authorizer/node/{graph,node_authorizer}.go. The graph is one table, node and object to the number
//! of pods that join them, kept from the pods' specs (a pod is parsed when it is bound, not at each status). Left out:
//! field selectors on pods (a node may list all pods), DRA's resource slices beyond the static rules.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use api::registry::Registry;
use api::tree::Tree;

use super::rbac::rules;
use super::{Attributes, Decision, PolicyRule, UserInfo};
use crate::cache::{Cache, Cached, Change};

const LEASES: &str = "kube-node-lease";

/// The node that a user is: named `system:node:NAME`, in the group `system:nodes`.
pub fn name_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes"))
}

/// A kind of object that pods name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Named {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

type Edge = (Box<str>, Named, Box<str>, Box<str>);

#[derive(Default)]
struct Graph {
    pods: HashMap<Box<str>, Vec<Edge>>,
    /// Node, kind, namespace, name: by how many pods.
    edges: HashMap<Edge, u32>,
}

impl Graph {
    fn set(&mut self, pod: &str, edges: Vec<Edge>) {
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
    }

    fn joins(&self, node: &str, named: Named, namespace: &str, name: &str) -> bool {
        self.edges.contains_key(&(node.into(), named, namespace.into(), name.into()))
    }
}

/// Pods whose edges are to be drawn again, as they became. What a listener hears comes before the cache shows it, so the
/// object itself is kept: who read the cache here could see the state before.
#[derive(Default)]
struct Stale {
    any: AtomicBool,
    pods: Mutex<Vec<(Arc<Cached>, bool)>>,
}

impl Stale {
    fn note(&self, pod: &Arc<Cached>, deleted: bool) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(pod), deleted));
        self.any.store(true, Ordering::Release);
    }
}

pub struct NodeAuthorizer {
    cache: Cache,
    rules: Vec<PolicyRule>,
    graph: RwLock<Graph>,
    stale: Arc<Stale>,
}

impl NodeAuthorizer {
    pub fn new(cache: &Cache) -> Self {
        let stale = Arc::new(Stale::default());
        let pods = Registry::get().resource("", "v1", "pods").and_then(|resource| cache.kind(resource));
        if let Some(pods) = pods {
            let stale = Arc::clone(&stale);
            cache.listen(
                pods,
                Box::new(move |change| {
                    if touches_graph(change) {
                        stale.note(&change.object, change.deleted);
                    }
                }),
            );
        }
        for pod in cache.list("", "pods", None) {
            stale.note(&pod, false);
        }
        let rules = super::bootstrap::policy()
            .iter()
            .find(|object| api::meta::kind(object) == "ClusterRole" && api::meta::name(object) == "system:node")
            .map(|role| rules::parse(role.array_at(&["rules"])))
            .unwrap_or_default();
        Self { cache: cache.clone(), rules, graph: RwLock::default(), stale }
    }

    fn graph(&self) -> RwLockReadGuard<'_, Graph> {
        if self.stale.any.load(Ordering::Acquire) {
            let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
            self.stale.any.store(false, Ordering::Release);
            let pods = std::mem::take(&mut *self.stale.pods.lock().unwrap_or_else(PoisonError::into_inner));
            for (pod, deleted) in pods {
                let edges = if deleted { Vec::new() } else { edges(&pod.tree(), pod.namespace()) };
                graph.set(&format!("{}/{}", pod.namespace(), pod.name()), edges);
            }
        }
        self.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = name_of(a.user) else { return Decision::no_opinion("") };
        if node.is_empty() {
            return Decision::no_opinion(format!("unknown node for user {:?}", a.user.name));
        }
        if a.resource_request {
            match (a.api_group, a.resource) {
                ("", "secrets") => return self.read_named(node, Named::Secret, a),
                ("", "configmaps") => return self.read_named(node, Named::ConfigMap, a),
                ("", "persistentvolumeclaims") => {
                    let joins = self.graph().joins(node, Named::Claim, a.namespace, a.name);
                    return if a.subresource == "status" { update_status(node, a, joins) } else { get(node, a, joins) };
                }
                ("", "persistentvolumes") => return get(node, a, self.uses_volume(node, a.name)),
                ("resource.k8s.io", "resourceclaims") => {
                    return get(node, a, self.graph().joins(node, Named::ResourceClaim, a.namespace, a.name));
                }
                ("storage.k8s.io", "volumeattachments") => {
                    let attachment = self.cache.get(a.api_group, a.resource, "", a.name);
                    let own = attachment.is_some_and(|object| object.tree().str_at(&["spec", "nodeName"]) == node);
                    return get(node, a, own);
                }
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(node, a),
                _ => {}
            }
        }
        // Nothing else is divided by node.
        if self.rules.iter().any(|rule| rules::allows(rule, a)) { Decision::allow("") } else { Decision::no_opinion("") }
    }

    fn read_named(&self, node: &str, named: Named, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return Decision::no_opinion("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return Decision::no_opinion("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return Decision::no_opinion("can only read namespaced object of this type");
        }
        let joins = self.graph().joins(node, named, a.namespace, a.name)
            || named == Named::Secret && !a.name.is_empty() && self.is_secret_of_volume(node, a.namespace, a.name);
        related(node, a, joins)
    }

    /// Whether a claim of a pod on the node is bound to this volume.
    fn uses_volume(&self, node: &str, volume: &str) -> bool {
        let Some(volume) = self.cache.get("", "persistentvolumes", "", volume) else { return false };
        self.claims(node, &volume.tree())
    }

    fn claims(&self, node: &str, volume: &Tree) -> bool {
        let claim = |field| volume.str_at(&["spec", "claimRef", field]);
        self.graph().joins(node, Named::Claim, claim("namespace"), claim("name"))
    }

    /// Volumes name secrets, too; few do, so no table is kept of them.
    fn is_secret_of_volume(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.cache.list("", "persistentvolumes", None).iter().any(|volume| {
            let volume = volume.tree();
            let claim_namespace = volume.str_at(&["spec", "claimRef", "namespace"]);
            let Some(source) = volume.get("spec").and_then(Tree::as_object) else { return false };
            let names = source.iter().filter_map(|(_, source)| source.as_object()).flat_map(|source| source.iter());
            let named = names.filter(|(field, _)| field.ends_with("ecretRef") || *field == "secretName").any(|(field, value)| {
                let of = match value.str_at(&["namespace"]) {
                    "" => claim_namespace,
                    of => of,
                };
                let secret = if field == "secretName" { value.as_str().unwrap_or("") } else { value.str_at(&["name"]) };
                of == namespace && secret == name
            });
            named && self.claims(node, &volume)
        })
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Decision {
        let joins = || self.graph().joins(node, Named::ServiceAccount, a.namespace, a.name);
        match (a.verb, a.subresource) {
            ("create", "token") => related(node, a, joins()),
            ("get", "") => related(node, a, joins()),
            (_, "token") => Decision::no_opinion("can only create tokens for individual service accounts"),
            _ => Decision::no_opinion("can only get individual resources of this type"),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.subresource, a.verb) {
            ("", "get") => {
                let pod = self.cache.get("", "pods", a.namespace, a.name);
                related(node, a, pod.is_some_and(|pod| pod.field("spec.nodeName") == node))
            }
            // NodeRestriction has the last word on writes.
            ("", "list" | "watch" | "create" | "delete")
            | ("status", "update" | "patch")
            | ("eviction", "create") => Decision::allow(""),
            _ => Decision::no_opinion(""),
        }
    }
}

fn related(node: &str, a: &Attributes<'_>, joins: bool) -> Decision {
    if a.name.is_empty() {
        return Decision::no_opinion("No Object name found");
    }
    if joins { Decision::allow("") } else { Decision::no_opinion(format!("no relationship found between node '{node}' and this object")) }
}

fn get(node: &str, a: &Attributes<'_>, joins: bool) -> Decision {
    if a.verb != "get" {
        return Decision::no_opinion("can only get individual resources of this type");
    }
    if !a.subresource.is_empty() {
        return Decision::no_opinion("cannot get subresource");
    }
    related(node, a, joins)
}

fn update_status(node: &str, a: &Attributes<'_>, joins: bool) -> Decision {
    if !matches!(a.verb, "update" | "patch") {
        return Decision::no_opinion("can only get/update/patch this type");
    }
    related(node, a, joins)
}

fn lease(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Decision::no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != LEASES {
        return Decision::no_opinion(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of a create is in the body, for NodeRestriction to see.
    if a.verb != "create" && a.name != node {
        return Decision::no_opinion("can only access node lease with the same name as the requesting node");
    }
    Decision::allow("")
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Decision::no_opinion("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return Decision::no_opinion("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return Decision::no_opinion("can only access CSINode with the same name as the requesting node");
    }
    Decision::allow("")
}

fn own_node(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        // NodeRestriction limits which one.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::allow(""),
        ("", "get" | "list" | "watch") if a.name == node => Decision::allow(""),
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            Decision::no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Decision::no_opinion(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => Decision::no_opinion(""),
    }
}

/// What a pod names does not change after it is bound, but for ephemeral containers.
fn touches_graph(change: &Change) -> bool {
    let node = change.object.field("spec.nodeName");
    match &change.previous {
        _ if node.is_empty() => change.previous.as_ref().is_some_and(|p| !p.field("spec.nodeName").is_empty()),
        _ if change.deleted => true,
        None => true,
        Some(previous) => {
            previous.field("spec.nodeName") != node
                || memchr::memmem::find(&change.object.bytes, b"\"ephemeralContainers\"").is_some()
        }
    }
}

pub fn names_secret(pod: &Tree) -> bool {
    named(pod).any(|(kind, _)| kind == Named::Secret)
}

pub fn names_config_map(pod: &Tree) -> bool {
    named(pod).any(|(kind, _)| kind == Named::ConfigMap)
}

fn edges(pod: &Tree, namespace: &str) -> Vec<Edge> {
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
    for claim in pod.array_at(&["status", "resourceClaimStatuses"]) {
        join(Named::ResourceClaim, claim.str_at(&["resourceClaimName"]));
    }
    for claim in pod.array_at(&["spec", "resourceClaims"]) {
        join(Named::ResourceClaim, claim.str_at(&["resourceClaimName"]));
    }
    found.into_iter()
}

#[cfg(test)]
mod tests;
