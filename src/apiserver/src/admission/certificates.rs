//! Who may approve and sign certificate requests, and attest bundles, and for whom.
//!
//! Models plugin/pkg/admission/certificates/{approval,signing,subjectrestriction,ctbattest}.
use api::tree::Tree;

use super::{Operation, Request};
use crate::auth::{Authorization, may_use_signer};
use crate::status::Status;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub fn validate(authorization: &Authorization, request: &Request) -> Result<(), Status> {
    match (&*request.resource.group, &*request.resource.plural) {
        (GROUP, "certificatesigningrequests") => {}
        (GROUP, "clustertrustbundles") if matches!(request.operation, Operation::Create | Operation::Update) => {
            return attest(authorization, request);
        }
        _ => return Ok(()),
    }
    let none = Tree::Null;
    let old = request.old.as_deref().unwrap_or(&none);
    let signer = old.str_at(&["spec", "signerName"]);
    match (request.operation, request.subresource) {
        (Operation::Create, "") => check_subject(request),
        (Operation::Update, "approval") => may(authorization, request, "approve", signer),
        (Operation::Update, "status") if old.get("status").map(issued) != request.object.get("status").map(issued) => {
            may(authorization, request, "sign", signer)
        }
        _ => Ok(()),
    }
}

fn issued(status: &Tree) -> (&str, Vec<&Tree>) {
    let failed = status.array_at(&["conditions"]).iter().filter(|condition| condition.str_at(&["type"]) == "Failed");
    (status.str_at(&["certificate"]), failed.collect())
}

fn may(authorization: &Authorization, request: &Request, verb: &str, signer: &str) -> Result<(), Status> {
    if may_use_signer(authorization, &request.user, verb, signer) {
        return Ok(());
    }
    Err(request.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// Who says that a bundle is a signer's must be allowed to. Models plugin/pkg/admission/certificates/ctbattest/admission.go.
fn attest(authorization: &Authorization, request: &Request) -> Result<(), Status> {
    let signer = request.object.str_at(&["spec", "signerName"]);
    if signer.is_empty() || request.old.as_deref().is_some_and(|old| differs_in_upkeep_only(&request.object, old)) {
        return Ok(());
    }
    if may_use_signer(authorization, &request.user, "attest", signer) {
        return Ok(());
    }
    Err(request.forbidden(format!("user not permitted to attest for signerName {signer:?}")))
}

/// Whether nothing but what the garbage collector and migrations write has changed.
/// Models pkg/registry/rbac/helpers.go IsOnlyMutatingGCFields.
fn differs_in_upkeep_only(new: &Tree, old: &Tree) -> bool {
    let rest = |tree: &Tree| {
        let mut tree = tree.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            tree.remove(&["metadata", field]);
        }
        tree
    };
    rest(new) == rest(old)
}

/// Nobody becomes `system:masters` by a request.
fn check_subject(request: &Request) -> Result<(), Status> {
    if request.object.str_at(&["spec", "signerName"]) != CLIENT_SIGNER {
        return Ok(());
    }
    use base64::Engine as _;
    let pem = request.object.str_at(&["spec", "request"]);
    let pem = base64::engine::general_purpose::STANDARD.decode(pem);
    let parsed = pem.ok().and_then(|pem| pki::SigningRequest::parse(&pem).ok());
    let Some(parsed) = parsed else {
        return Err(request.forbidden("could not parse the certificate request"));
    };
    if parsed.organizations.iter().any(|organization| organization == "system:masters") {
        return Err(request.forbidden(format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed")));
    }
    Ok(())
}
