//! What a node may read: the objects that its pods name, and its own.
//!
//! Models plugin/pkg/auth/authorizer/node/{graph,node_authorizer}.go. The graph (`node/graph.rs`) is one table, node and object to
//! the number of pods that join them, kept from the pods' specs (a pod is parsed when it is bound, not at each status). What else
//! belongs to one node says so in a field, which is read where it is asked for.
mod graph;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use api::registry::Registry;
use api::tree::Tree;

use super::rbac::rules;
use super::{Attributes, Decision, PolicyRule, UserInfo};
use crate::cache::{Cache, KindId};
use graph::{Graph, Named, Noted, Stale};

pub use graph::{names_config_map, names_secret};

const LEASES: &str = "kube-node-lease";

/// The node that a user is: named `system:node:NAME`, in the group `system:nodes`.
pub fn name_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes"))
}

pub struct NodeAuthorizer {
    cache: Cache,
    rules: Vec<PolicyRule>,
    graph: RwLock<Graph>,
    stale: Arc<Stale>,
    /// The kind.
    pods: Option<KindId>,
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
                    if graph::touches_graph(change) {
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
        Self { cache: cache.clone(), rules, graph: RwLock::default(), stale, pods }
    }

    fn graph(&self) -> RwLockReadGuard<'_, Graph> {
        if !self.stale.is_empty() {
            let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
            for (key, noted) in self.stale.take() {
                let pod = match noted {
                    Noted::Gone => None,
                    Noted::Changed(pod) => pod.upgrade().or_else(|| self.cache.get_key(self.pods?, &key).0),
                };
                graph.set(&key, pod.map_or_else(Vec::new, |pod| graph::edges(&pod.tree(), pod.namespace())));
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
                ("storage.k8s.io", "volumeattachments") => return get(node, a, self.is_of(node, a)),
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pod(node, a),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, a),
                ("certificates.k8s.io", "podcertificaterequests") => return self.pod_certificate_request(node, a),
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
            graph::volume_names_secret(&volume, namespace, name) && self.claims(node, &volume)
        })
    }

    /// Whether the object says that it belongs to the node.
    fn is_of(&self, node: &str, a: &Attributes<'_>) -> bool {
        let object = self.cache.get(a.api_group, a.resource, a.namespace, a.name);
        object.is_some_and(|object| object.tree().str_at(&["spec", "nodeName"]) == node)
    }

    /// Of the tokens of an account only those of pods on the node, which NodeRestriction sees to.
    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb == "get" && a.subresource.is_empty() {
            return self.read_named(node, Named::ServiceAccount, a);
        }
        if a.verb != "create" || a.name.is_empty() {
            return Decision::no_opinion("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return Decision::no_opinion("can only create token subresource of serviceaccount");
        }
        related(node, a, self.graph().joins(node, Named::ServiceAccount, a.namespace, a.name))
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        let own = || self.cache.get("", "pods", a.namespace, a.name).is_some_and(|pod| pod.field("spec.nodeName") == node);
        match (a.subresource, a.verb) {
            ("", "get") => related(node, a, own()),
            ("", "list" | "watch") if is_limited_to(node, a) => Decision::allow(""),
            ("", "list" | "watch") if !a.name.is_empty() => related(node, a, own()),
            ("", "list" | "watch") => Decision::no_opinion("can only list/watch pods with spec.nodeName field selector"),
            // NodeRestriction has the last word on writes.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::allow(""),
            _ => Decision::no_opinion(""),
        }
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return Decision::no_opinion("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            // NodeRestriction sees whose it is to be.
            "create" => Decision::allow(""),
            "get" | "update" | "patch" | "delete" => related(node, a, self.is_of(node, a)),
            "list" | "watch" | "deletecollection" if is_limited_to(node, a) => Decision::allow(""),
            "list" | "watch" | "deletecollection" => {
                Decision::no_opinion("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => Decision::no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod_certificate_request(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return Decision::no_opinion("nodes may not access the status subresource of PodCertificateRequests");
        }
        match a.verb {
            "create" => Decision::allow(""),
            "get" => related(node, a, self.is_of(node, a)),
            "list" | "watch" if is_limited_to(node, a) => Decision::allow(""),
            "list" | "watch" => Decision::no_opinion("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => Decision::no_opinion(format!("nodes may not {verb} podcertificaterequests")),
        }
    }
}

/// Whether what is asked for is the node's own by the field selector.
fn is_limited_to(node: &str, a: &Attributes<'_>) -> bool {
    a.fields.terms().iter().any(|term| !term.negated && &*term.field == "spec.nodeName" && &*term.value == node)
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
    match a.subresource {
        "" => {}
        "status" => return Decision::no_opinion("CSINode status access requires CSIVolumeHealth feature"),
        _ => return Decision::no_opinion("cannot authorize CSINode subresources"),
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

#[cfg(test)]
mod tests;
