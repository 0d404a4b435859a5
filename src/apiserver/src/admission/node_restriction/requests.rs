//! What a node may ask to be signed: tokens and certificates for its pods, certificates for itself.
use api::meta;
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::{Operation, Request};
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorization, Authorizer};
use crate::cache::Cache;
use crate::status::Status;

/// Tokens are for pods that run on the node, and for audiences that the pod names.
pub fn token(cache: &Cache, authorization: &Authorization, request: &Request, node: &str) -> Result<(), Status> {
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
    audience(cache, authorization, request, &pod.tree())
}

/// Models validateNodeServiceAccountAudience.
fn audience(cache: &Cache, authorization: &Authorization, request: &Request, pod: &Tree) -> Result<(), Status> {
    let asked: Vec<&str> = request.object.array_at(&["spec", "audiences"]).iter().filter_map(Tree::as_str).collect();
    let audience = match asked[..] {
        [] => "",
        [audience] => audience,
        _ => return Err(request.forbidden("node may only request 0 or 1 audiences")),
    };
    if names_audience(cache, pod, audience)
        || may(authorization, request, "request-serviceaccounts-token-audience", audience, &request.name)
    {
        return Ok(());
    }
    let user = &request.user.name;
    Err(request.forbidden(format!("{user} is not authorized to request tokens for audience {audience:?}")))
}

/// A token in one of its volumes, or one that the driver of a volume wants. Models podReferencesAudience.
fn names_audience(cache: &Cache, pod: &Tree, audience: &str) -> bool {
    pod.array_at(&["spec", "volumes"]).iter().any(|volume| {
        let tokens = volume.array_at(&["projected", "sources"]).iter().filter_map(|source| source.get("serviceAccountToken"));
        if tokens.filter(|token| !token.is_null()).any(|token| token.str_at(&["audience"]) == audience) {
            return true;
        }
        let driver = driver_of(cache, pod, volume).and_then(|driver| cache.get("storage.k8s.io", "csidrivers", "", &driver));
        driver.is_some_and(|driver| {
            driver.tree().array_at(&["spec", "tokenRequests"]).iter().any(|request| request.str_at(&["audience"]) == audience)
        })
    })
}

/// The CSI driver behind a volume, by way of its claim where there is one.
fn driver_of(cache: &Cache, pod: &Tree, volume: &Tree) -> Option<String> {
    let claim = if volume.at(&["ephemeral", "volumeClaimTemplate"]).is_some_and(|template| !template.is_null()) {
        format!("{}-{}", meta::name(pod), volume.str_at(&["name"]))
    } else {
        volume.str_at(&["persistentVolumeClaim", "claimName"]).to_owned()
    };
    let driver = if claim.is_empty() {
        volume.str_at(&["csi", "driver"]).to_owned()
    } else {
        let claim = cache.get("", "persistentvolumeclaims", meta::namespace(pod), &claim)?.tree();
        let volume = cache.get("", "persistentvolumes", "", claim.str_at(&["spec", "volumeName"]))?.tree();
        volume.str_at(&["spec", "csi", "driver"]).to_owned()
    };
    (!driver.is_empty()).then_some(driver)
}

/// Whether a role says so; upstream asks in the request's group and namespace.
fn may(authorization: &Authorization, request: &Request, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        user: &request.user,
        verb,
        api_group: &request.resource.group,
        api_version: &request.resource.version,
        resource,
        subresource: "",
        namespace: &request.namespace,
        name,
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    };
    authorization.authorize(&attributes).allowed()
}

/// A node asks for certificates of pods that run on it. Models admitPodCertificateRequest.
pub fn pod_certificate(cache: &Cache, authorization: &Authorization, request: &Request, node: &str) -> Result<(), Status> {
    if request.operation != Operation::Create || !request.subresource.is_empty() {
        return Err(request.forbidden("unexpected operation or subresource"));
    }
    let spec = |field: &str| request.object.str_at(&["spec", field]);
    let refuse = |why: String| Err(request.forbidden(why));
    // What differs by uid may be a cache that is behind: not forbidden, so that the kubelet tries again.
    let inconsistent = |why: String| Err(Status::internal(why));
    if spec("nodeName") != node {
        let named = spec("nodeName");
        return refuse(format!("PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"));
    }
    let find = |plural: &str, namespace: &str, name: &str| {
        cache.get("", plural, namespace, name).map(|object| object.tree()).ok_or_else(|| Status::not_found("", plural, name))
    };
    let (namespace, pod_name) = (request.namespace.as_str(), spec("podName"));
    let full = format!("{namespace}/{pod_name}");
    let uid = meta::uid(&find("nodes", "", node)?).to_owned();
    if uid != spec("nodeUID") {
        let named = spec("nodeUID");
        return inconsistent(format!(
            "PodCertificateRequest for pod {full:?} names node UID {named:?}, inconsistent with the running node ({uid:?})"
        ));
    }
    let pod = find("pods", namespace, pod_name)?;
    if meta::uid(&pod) != spec("podUID") {
        let (named, uid) = (spec("podUID"), meta::uid(&pod));
        return inconsistent(format!(
            "PodCertificateRequest for pod {full:?} contains pod UID ({named:?}) which differs from running pod {uid:?}"
        ));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return refuse(format!("pod {full:?} is not running on node {node:?} named in the PodCertificateRequest"));
    }
    if meta::annotation(&pod, super::MIRROR).is_some() {
        return refuse(format!("pod {full:?} is a mirror pod"));
    }
    let (named, account) = (spec("serviceAccountName"), pod.str_at(&["spec", "serviceAccountName"]));
    if named != account {
        return refuse(format!(
            "PodCertificateRequest for pod {full:?} contains serviceAccountName ({named:?}) that differs from running pod ({account:?})"
        ));
    }
    let uid = meta::uid(&find("serviceaccounts", namespace, account)?).to_owned();
    if uid != spec("serviceAccountUID") {
        let named = spec("serviceAccountUID");
        return inconsistent(format!(
            "PodCertificateRequest for pod {full:?} names service account UID {named:?}, which differs from the running service account ({uid:?})"
        ));
    }
    let signer = spec("signerName");
    let mut sources = pod.array_at(&["spec", "volumes"]).iter().flat_map(|volume| volume.array_at(&["projected", "sources"]));
    let mounts = sources.any(|source| source.get("podCertificate").is_some() && source.str_at(&["podCertificate", "signerName"]) == signer);
    if mounts || may(authorization, request, "request-serviceaccounts-podcertificate-signer", &signer.replace('/', ":"), account) {
        return Ok(());
    }
    refuse(format!("pod {full:?} does not mount a podCertificate projected volume for signer {signer:?}"))
}

/// A node asks for certificates in its own name. Models admitCSR.
pub fn signing(request: &Request, node: &str) -> Result<(), Status> {
    let signer = request.object.str_at(&["spec", "signerName"]);
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let pem = STANDARD.decode(request.object.str_at(&["spec", "request"])).unwrap_or_default();
    let parsed = pki::SigningRequest::parse(&pem).map_err(|error| request.forbidden(format!("unable to parse csr: {error}")))?;
    if parsed.common_name != format!("system:node:{node}") {
        return Err(request.forbidden(format!("can only create a node CSR with CN=system:node:{node}")));
    }
    Ok(())
}
