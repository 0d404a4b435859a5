//! Approves the requests by which nodes get and renew their client certificates.
//!
//! Models pkg/controller/certificates/approver/sarapprove.go, v1.37. Different: a node's name belongs to a key (`node_keys.rs`), so
//! that a stolen bootstrap token makes no second holder of a name; a request for a name that is taken is denied.
//! Reads CertificateSigningRequest, Node, ConfigMap. Writes CertificateSigningRequest/approval, ConfigMap. Wakes on requests.
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use client::{Client, Clock, Controller, Informer, Named, Next, ObjectKey};

use crate::context::{Config, ControllerContext};
use crate::csr::{self, APPROVED, Csr, DENIED};
use crate::failure::{During, Failure, unless_gone};
use crate::node_keys::{self, Asker, Claim};

/// A role that allows it may come later, and nothing tells. Upstream's retries end at about this.
const ASK_AGAIN: Duration = Duration::from_secs(1000);

struct Context {
    client: Client,
    clock: Clock,
    config: Arc<Config>,
    requests: Informer<Csr>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let requests = csr::informer(&cx.informers);
    let context = Context { client: cx.client(csr::IDENTITY), clock: cx.clock, config: cx.config, requests: requests.clone() };
    Controller::new("certificatesigningrequest-approving-controller", Arc::new(context))
        .reconciles(&requests)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(csr) = cx.requests.get(key) else { return Ok(Next::Wait) };
    if !csr::certificate(&csr).is_empty() || csr::has(&csr, APPROVED) || csr::has(&csr, DENIED) {
        return Ok(Next::Wait);
    }
    let request = csr::parse(&csr)?;
    let Some(node) = node_of(&csr, &request) else { return Ok(Next::Wait) };
    let Some(asker) = permitted(cx, &csr, &request).await? else { return Ok(Next::After(ASK_AGAIN)) };
    let key = request.key_fingerprint();
    let claim = match node == cx.config.server_node && asker == Asker::Invited {
        true => Claim::Taken(format!("node name taken: {node:?} is the node of the server")),
        false => node_keys::claim(&cx.client, &node, &key, asker, cx.clock.now()).await?,
    };
    let answer = match claim {
        Claim::Granted => csr::with_condition(&csr, APPROVED, "AutoApproved", asker.message().to_owned()),
        Claim::Taken(why) => csr::with_condition(&csr, DENIED, node_keys::TAKEN, why),
    };
    let name = csr.key();
    unless_gone(cx.client.update_subresource::<Csr, _, Csr>(&name, "approval", &answer).await)
        .during(|| format!("update the approval of csr {name}"))?;
    Ok(Next::Wait)
}

/// The node whose client certificate is asked for.
fn node_of(csr: &Csr, request: &pki::SigningRequest) -> Option<String> {
    let is_for_nodes = csr.spec.signer_name == csr::NODE_CLIENT_SIGNER;
    is_for_nodes.then(|| pki::node_client(request, csr::usages(csr)).ok()).flatten().filter(|node| !node.is_empty())
}

/// As whom the sender may have it; `None`: not at all.
async fn permitted(cx: &Context, csr: &Csr, request: &pki::SigningRequest) -> Result<Option<Asker>, Failure> {
    let is_itself = csr.spec.username.as_deref() == Some(request.common_name.as_str());
    for asker in [Asker::Itself, Asker::Invited] {
        if asker == Asker::Itself && !is_itself {
            continue;
        }
        let review = review(csr, asker.subresource());
        let answer = cx.client.create(&review).await.during(|| format!("review the access of csr {}", csr.name()))?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(Some(asker));
        }
    }
    Ok(None)
}

fn review(csr: &Csr, subresource: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                version: Some("*".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some("create".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    }
}
