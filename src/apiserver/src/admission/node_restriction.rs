//! What a node may write: itself, its lease, its pods' status, and tokens for its pods.
//!
//! Models plugin/pkg/admission/noderestriction/admission.go. Left out: audiences of image credential providers.
use api::meta;
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

const LEASES: &str = "kube-node-lease";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels below kubernetes.io that a kubelet may set. Models k8s.io/kubelet/pkg/apis/well_known_labels.go.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
const OWN_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

pub fn check(cache: &Cache, request: &Request) -> Result<(), Status> {
    let Some(node) = crate::auth::node_name(&request.user) else { return Ok(()) };
    if node.is_empty() {
        return Err(request.forbidden(format!("could not determine node from user {:?}", request.user.name)));
    }
    if request.operation == Operation::Connect {
        return Ok(());
    }
    match (request.resource.group, request.resource.plural, request.subresource) {
        ("", "pods", "") => pod(cache, request, node),
        ("", "pods", "status") => pod_status(request, node),
        ("", "pods", "eviction") => pod_eviction(cache, request, node),
        ("", "pods", other) => Err(request.forbidden(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        ))),
        ("", "nodes", _) => own_node(request, node),
        ("", "persistentvolumeclaims", "status") => claim_status(request, node),
        ("", "persistentvolumeclaims", _) => Err(request.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") if request.operation == Operation::Create => token(cache, request, node),
        ("coordination.k8s.io", "leases", _) if request.namespace != LEASES => {
            Err(request.forbidden(format!("can only access leases in the {LEASES:?} system namespace")))
        }
        ("coordination.k8s.io", "leases", _) => same_name(request, node, "node lease"),
        ("storage.k8s.io", "csinodes", _) => same_name(request, node, "CSINode"),
        _ => Ok(()),
    }
}

fn name_of(request: &Request) -> &str {
    if request.operation == Operation::Create { meta::name(&request.object) } else { &request.name }
}

fn same_name(request: &Request, node: &str, what: &str) -> Result<(), Status> {
    if name_of(request) == node {
        return Ok(());
    }
    Err(request.forbidden(format!("can only access {what} with the same name as the requesting node")))
}

fn runs_on(cache: &Cache, request: &Request, name: &str) -> Result<String, Status> {
    match cache.get("", "pods", &request.namespace, name) {
        Some(pod) => Ok(pod.field("spec.nodeName").to_owned()),
        None => Err(Status::not_found("", "pods", name)),
    }
}

fn pod(cache: &Cache, request: &Request, node: &str) -> Result<(), Status> {
    match request.operation {
        Operation::Create => mirror_pod(cache, request, node),
        Operation::Delete if runs_on(cache, request, &request.name)? == node => Ok(()),
        Operation::Delete => {
            Err(request.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        _ => Err(request.forbidden(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
    }
}

fn mirror_pod(cache: &Cache, request: &Request, node: &str) -> Result<(), Status> {
    let pod = &request.object;
    let refuse = |why: String| Err(request.forbidden(why));
    if meta::annotation(pod, MIRROR).is_none() {
        return refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<_> = meta::owner_references(pod).collect();
    let owner = match owners.as_slice() {
        [owner] => owner,
        [] => return refuse(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if (owner.api_version, owner.kind, owner.name) != ("v1", "Node", node) {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !owner.controller {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.block_owner_deletion {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(object) = cache.get("", "nodes", "", node) else { return Err(Status::not_found("", "nodes", node)) };
    let object = object.tree();
    let uid = meta::uid(&object);
    if owner.uid != uid {
        return refuse(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid));
    }
    let cannot = |what: &str| refuse(format!("node {node:?} can not create pods that reference {what}"));
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return cannot("a service account");
    }
    if crate::auth::pod_names_secret(pod) {
        return cannot("secrets");
    }
    if crate::auth::pod_names_config_map(pod) {
        return cannot("configmaps");
    }
    for volume in pod.array_at(&["spec", "volumes"]) {
        if volume.array_at(&["projected", "sources"]).iter().any(|s| s.get("clusterTrustBundle").is_some()) {
            return cannot("clustertrustbundles");
        }
        if volume.get("persistentVolumeClaim").is_some() {
            return cannot("persistentvolumeclaims");
        }
    }
    Ok(())
}

fn pod_status(request: &Request, node: &str) -> Result<(), Status> {
    let none = Tree::Null;
    let old = request.old.as_deref().unwrap_or(&none);
    if request.operation != Operation::Update {
        return Err(request.forbidden("unexpected operation on the status of a pod"));
    }
    if old.str_at(&["spec", "nodeName"]) != node {
        return Err(request.forbidden(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        )));
    }
    if meta::labels(old) != meta::labels(&request.object) {
        return Err(request.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    let claims = |pod: &Tree| pod.array_at(&["status", "resourceClaimStatuses"]).to_vec();
    if claims(old) != claims(&request.object) {
        return Err(request.forbidden(format!("node {node:?} cannot update resource claim statues")));
    }
    Ok(())
}

fn pod_eviction(cache: &Cache, request: &Request, node: &str) -> Result<(), Status> {
    let name = if request.name.is_empty() { meta::name(&request.object) } else { &request.name };
    if name.is_empty() {
        return Err(request.forbidden("could not determine pod from request data"));
    }
    if runs_on(cache, request, name)? == node {
        return Ok(());
    }
    Err(request.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn own_node(request: &Request, node: &str) -> Result<(), Status> {
    let name = name_of(request);
    if name != node {
        return Err(request.forbidden(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let none = Tree::Null;
    let old = request.old.as_deref().unwrap_or(&none);
    let source = |tree: &Tree| tree.at(&["spec", "configSource"]).filter(|s| !s.is_null()).cloned();
    let labels = forbidden_labels(&request.object, old);
    match request.operation {
        Operation::Create => {
            if source(&request.object).is_some() {
                return Err(request.forbidden(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                )));
            }
            if !labels.is_empty() {
                let labels = labels.join(", ");
                return Err(request.forbidden(format!("node {node:?} is not allowed to set the following labels: {labels}")));
            }
        }
        Operation::Update => {
            if source(&request.object).is_some() && source(&request.object) != source(old) {
                return Err(request.forbidden(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                )));
            }
            if request.object.array_at(&["spec", "taints"]) != old.array_at(&["spec", "taints"]) {
                return Err(request.forbidden(format!("node {node:?} is not allowed to modify taints")));
            }
            if !labels.is_empty() {
                return Err(request.forbidden(format!("is not allowed to modify labels: {}", labels.join(", "))));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The labels that differ and that a node may not change, sorted.
fn forbidden_labels(new: &Tree, old: &Tree) -> Vec<String> {
    let (new, old) = (meta::labels(new), meta::labels(old));
    let differing = new.keys().chain(old.keys()).filter(|key| new.get(key) != old.get(key));
    let mut keys: Vec<String> = differing.filter(|key| !may_set(key)).map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn may_set(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let below = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if below("node-restriction.kubernetes.io") {
        return false;
    }
    if !below("kubernetes.io") && !below("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || OWN_LABEL_DOMAINS.iter().any(|of| below(of))
}

fn claim_status(request: &Request, node: &str) -> Result<(), Status> {
    let none = Tree::Null;
    let rest = |tree: &Tree| {
        let mut tree = tree.clone();
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            tree.remove(&["status", field]);
        }
        tree.remove(&["metadata", "resourceVersion"]);
        tree.remove(&["metadata", "managedFields"]);
        tree
    };
    if request.operation == Operation::Update && rest(&request.object) == rest(request.old.as_deref().unwrap_or(&none)) {
        return Ok(());
    }
    Err(request.forbidden(format!(
        "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
    )))
}

fn token(cache: &Cache, request: &Request, node: &str) -> Result<(), Status> {
    let bound = |field: &str| request.object.str_at(&["spec", "boundObjectRef", field]);
    let name = bound("name");
    if bound("apiVersion") != "v1" || bound("kind") != "Pod" || name.is_empty() {
        return Err(request.forbidden("node requested token not bound to a pod"));
    }
    let uid = bound("uid");
    if uid.is_empty() {
        return Err(request.forbidden("node requested token with a pod binding without a uid"));
    }
    let Some(pod) = cache.get("", "pods", &request.namespace, name) else {
        return Err(Status::not_found("", "pods", name));
    };
    if meta::uid(&pod.tree()) != uid {
        return Err(request.forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        )));
    }
    if pod.field("spec.nodeName") != node {
        return Err(request.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_only_its_own_labels() {
        for key in ["mine", "example.com/a", "kubernetes.io/hostname", "node.kubernetes.io/x", "a.kubelet.kubernetes.io/x"] {
            assert!(may_set(key), "{key}");
        }
        for key in ["node-restriction.kubernetes.io/x", "a.node-restriction.kubernetes.io/x", "kubernetes.io/x", "a.k8s.io/x", "node-role.kubernetes.io/control-plane"] {
            assert!(!may_set(key), "{key}");
        }
    }
}
