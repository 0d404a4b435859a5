//! What the controllers of CertificateSigningRequests share: reading a request, and its verdicts.
use client::k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use client::{Informer, SharedInformers};

use crate::failure::Failure;

/// The identity that upstream's bootstrap policy knows; approver, signer and cleaner share it.
pub(crate) const IDENTITY: &str = "certificate-controller";

pub(crate) const APPROVED: &str = "Approved";
pub(crate) const DENIED: &str = "Denied";
pub(crate) const FAILED: &str = "Failed";

/// Signs the certificates by which kubelets are clients of the API.
pub(crate) const NODE_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

pub(crate) type Csr = CertificateSigningRequest;

pub(crate) fn informer(informers: &SharedInformers) -> Informer<Csr> {
    informers.get()
}

pub(crate) fn conditions(csr: &Csr) -> &[CertificateSigningRequestCondition] {
    csr.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

pub(crate) fn has(csr: &Csr, kind: &str) -> bool {
    conditions(csr).iter().any(|condition| condition.type_ == kind)
}

pub(crate) fn certificate(csr: &Csr) -> &[u8] {
    csr.status.as_ref().and_then(|status| status.certificate.as_ref()).map_or(&[], |bytes| &bytes.0)
}

/// `csr` with one more condition; the server sets its times.
pub(crate) fn with_condition(csr: &Csr, kind: &str, reason: &str, message: String) -> Csr {
    let mut csr = csr.clone();
    csr.status.get_or_insert_default().conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..Default::default()
    });
    csr
}

pub(crate) fn parse(csr: &Csr) -> Result<pki::SigningRequest, Failure> {
    pki::SigningRequest::parse(&csr.spec.request.0)
        .map_err(|error| Failure::Unusable(format!("unable to parse csr {:?}: {error}", csr.metadata.name.as_deref().unwrap_or_default())))
}

pub(crate) fn usages(csr: &Csr) -> &[String] {
    csr.spec.usages.as_deref().unwrap_or_default()
}
