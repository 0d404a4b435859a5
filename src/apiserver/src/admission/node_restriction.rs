//! What a node may write: itself, its lease, its pods' status, and tokens for its pods.
//!
//! Models plugin/pkg/admission/noderestriction/admission.go. Left out: the drivers that in-tree volumes would be translated to.
mod requests;

use api::meta;
use api::tree::Tree;

use super::{Operation, Request};
use crate::auth::Authorization;
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

pub fn check(cache: &Cache, authorization: &Authorization, request: &Request) -> Result<(), Status> {
    let Some(node) = crate::auth::node_name(&request.user) else { return Ok(()) };
    if node.is_empty() {
        return Err(request.forbidden(format!("could not determine node from user {:?}", request.user.name)));
    }
    if request.operation == Operation::Connect {
        return Ok(());
    }
    match (&*request.resource.group, &*request.resource.plural, request.subresource) {
        ("", "pods", "") => pod(cache, request, node),
        ("", "pods", "status") => pod_status(request, node),
        ("", "pods", "eviction") => pod_eviction(cache, request, node),
        ("", "pods", other) => Err(request.forbidden(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        ))),
        ("", "nodes", _) => own_node(request, node),
        ("", "persistentvolumeclaims", "status") => claim_status(request, node),
        ("", "persistentvolumeclaims", _) => Err(request.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") if request.operation == Operation::Create => {
            requests::token(cache, authorization, request, node)
        }
        ("certificates.k8s.io", "podcertificaterequests", _) => requests::pod_certificate(cache, authorization, request, node),
        ("certificates.k8s.io", "certificatesigningrequests", "") if request.operation == Operation::Create => {
            requests::signing(request, node)
        }
        ("coordination.k8s.io", "leases", _) if request.namespace != LEASES => {
            Err(request.forbidden(format!("can only access leases in the {LEASES:?} system namespace")))
        }
        ("coordination.k8s.io", "leases", _) => same_name(request, node, "node lease"),
        ("storage.k8s.io", "csinodes", "status") => Err(request.forbidden("CSIVolumeHealth feature gate is disabled")),
        ("storage.k8s.io", "csinodes", _) => same_name(request, node, "CSINode"),
        ("resource.k8s.io", "resourceslices", _) => resource_slice(request, node),
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
    match named_object(pod) {
        Some(what) => refuse(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// An object of the API that a pod refers to. Models pkg/api/pod/util.go HasAPIObjectReference.
fn named_object(pod: &Tree) -> Option<&'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if crate::auth::pod_names_secret(pod) {
        return Some("secrets");
    }
    if crate::auth::pod_names_config_map(pod) {
        return Some("configmaps");
    }
    if !pod.array_at(&["spec", "resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    pod.array_at(&["spec", "volumes"]).iter().find_map(|volume| {
        let kinds = [
            ("configMap", "configmaps (via configmap volumes)"),
            ("secret", "secrets (via secret volumes)"),
            ("csi", "csidrivers (via CSI volumes)"),
            ("glusterfs", "endpoints (via glusterFS volumes)"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
            ("azureFile", "secrets (via azureFile volumes)"),
        ];
        let sources = [
            ("configMap", "configmaps (via projected volumes)"),
            ("secret", "secrets (via projected volumes)"),
            ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
            ("clusterTrustBundle", "clustertrustbundles"),
            ("podCertificate", "podcertificates"),
        ];
        let projected = volume.array_at(&["projected", "sources"]).iter();
        first_of(volume, &kinds).or_else(|| projected.filter_map(|source| first_of(source, &sources)).next())
    })
}

fn first_of(tree: &Tree, kinds: &[(&str, &'static str)]) -> Option<&'static str> {
    kinds.iter().find(|(field, _)| tree.get(field).is_some_and(|value| !value.is_null())).map(|(_, what)| *what)
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
    for (field, what) in [
        ("resourceClaimStatuses", "resource claim statues"),
        ("extendedResourceClaimStatus", "extended resource claim status"),
        ("nodeAllocatableResourceClaimStatuses", "node allocatable resource claim statuses"),
    ] {
        let of = |pod: &Tree| pod.at(&["status", field]).filter(|value| !is_empty(value)).cloned();
        if of(old) != of(&request.object) {
            return Err(request.forbidden(format!("node {node:?} cannot update {what}")));
        }
    }
    Ok(())
}

fn is_empty(value: &Tree) -> bool {
    value.is_null() || value.as_array().is_some_and(<[Tree]>::is_empty)
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
            if request.object.array_at(&["metadata", "ownerReferences"]) != old.array_at(&["metadata", "ownerReferences"]) {
                return Err(request.forbidden(format!("node {node:?} is not allowed to modify ownerReferences")));
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
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    )))
}

fn resource_slice(request: &Request, node: &str) -> Result<(), Status> {
    let none = Tree::Null;
    let (slice, verb) = match request.operation {
        Operation::Create => (&request.object, "create"),
        Operation::Delete => (request.old.as_deref().unwrap_or(&none), "delete"),
        _ => return Ok(()), // the authorizer knows whose it is
    };
    if slice.str_at(&["spec", "nodeName"]) == node {
        return Ok(());
    }
    Err(request.forbidden(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
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
