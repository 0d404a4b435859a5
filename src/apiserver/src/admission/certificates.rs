//! Who may approve and sign certificate requests, and for whom.
//!
//! Models plugin/pkg/admission/certificates/{approval,signing,subjectrestriction,util.go}.
use api::tree::Tree;

use super::{Operation, Request};
use crate::auth::{ALL_FIELDS, Attributes, Authorization, Authorizer};
use crate::status::Status;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub fn validate(authorization: &Authorization, request: &Request) -> Result<(), Status> {
    if request.resource.group != GROUP || request.resource.plural != "certificatesigningrequests" {
        return Ok(());
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

/// The signer by name, or all signers of its domain.
fn may(authorization: &Authorization, request: &Request, verb: &str, signer: &str) -> Result<(), Status> {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let allowed = [signer.to_owned(), format!("{domain}/*")].iter().any(|name| {
        let attributes = Attributes {
            user: &request.user,
            verb,
            api_group: GROUP,
            api_version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            resource_request: true,
            path: "",
            fields: &ALL_FIELDS,
        };
        authorization.authorize(&attributes).allowed()
    });
    if allowed {
        return Ok(());
    }
    Err(request.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
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
