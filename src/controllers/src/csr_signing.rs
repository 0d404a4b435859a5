//! Signs what was approved.
//!
//! Models pkg/controller/certificates/signer/signer.go, v1.37, with its checks, durations and texts.
//! Reads and writes CertificateSigningRequest/status. Wakes on requests.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use client::k8s_openapi::ByteString;
use client::{Client, Clock, Controller, Informer, Named, Next, ObjectKey};

use crate::context::ControllerContext;
use crate::csr::{self, APPROVED, Csr, DENIED, FAILED};
use crate::failure::{During, Failure, unless_gone};

/// As kube-controller-manager's --cluster-signing-duration.
const LIFETIME: Duration = Duration::from_secs(365 * 86400);
const LIFETIME_MIN: Duration = Duration::from_secs(600);

struct Context {
    client: Client,
    clock: Clock,
    pki: Arc<pki::Cluster>,
    requests: Informer<Csr>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let requests = csr::informer(&cx.informers);
    let context = Context { client: cx.client(csr::IDENTITY), clock: cx.clock, pki: cx.pki, requests: requests.clone() };
    Controller::new("certificatesigningrequest-signing-controller", Arc::new(context))
        .reconciles(&requests)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(csr) = cx.requests.get(key) else { return Ok(Next::Wait) };
    let Some(signer) = Signer::of(&csr.spec.signer_name).filter(|_| is_to_be_signed(&csr)) else { return Ok(Next::Wait) };
    let request = csr::parse(&csr)?;
    let usages = csr::usages(&csr);
    let answer = match signer.check(&request, usages) {
        Err(why) => csr::with_condition(&csr, FAILED, "SignerValidationFailure", why),
        Ok(()) => {
            let lifetime = lifetime(csr.spec.expiration_seconds);
            let now = SystemTime::from(cx.clock.now());
            let certificate = signer.authority(&cx.pki).sign_request(&request, usages, lifetime, now);
            let certificate = certificate.map_err(|error| Failure::Unusable(format!("error auto signing csr {}: {error}", csr.name())))?;
            let mut csr = (*csr).clone();
            csr.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
            csr
        }
    };
    unless_gone(cx.client.update_status(&answer).await).during(|| format!("update the status of csr {}", csr.name()))?;
    Ok(Next::Wait)
}

fn is_to_be_signed(csr: &Csr) -> bool {
    let failed = csr::conditions(csr).iter().any(|c| c.type_ == FAILED && (c.status.is_empty() || c.status == "True"));
    csr::certificate(csr).is_empty() && csr::has(csr, APPROVED) && !csr::has(csr, DENIED) && !failed
}

/// No more than asked for, no more than ours, but ten minutes at least.
fn lifetime(asked_seconds: Option<i32>) -> Duration {
    asked_seconds.map_or(LIFETIME, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).clamp(LIFETIME_MIN, LIFETIME))
}

/// The signers of kubernetes.io that are ours to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signer {
    KubeletServing,
    KubeletClient,
    ApiServerClient,
    LegacyUnknown,
}

impl Signer {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "kubernetes.io/kubelet-serving" => Self::KubeletServing,
            csr::NODE_CLIENT_SIGNER => Self::KubeletClient,
            "kubernetes.io/kube-apiserver-client" => Self::ApiServerClient,
            "kubernetes.io/legacy-unknown" => Self::LegacyUnknown,
            _ => return None,
        })
    }

    /// Clients are believed by the API server, servers by whoever trusts the cluster: two authorities, so that neither kind of
    /// certificate is worth anything on the other side.
    fn authority(self, pki: &pki::Cluster) -> &pki::Authority {
        match self {
            Self::KubeletClient | Self::ApiServerClient => &pki.client_ca,
            Self::KubeletServing | Self::LegacyUnknown => &pki.server_ca,
        }
    }

    fn check(self, request: &pki::SigningRequest, usages: &[String]) -> Result<(), String> {
        match self {
            Self::KubeletServing => pki::check_node_serving(request, usages),
            Self::KubeletClient => pki::node_client(request, usages).map(drop),
            Self::ApiServerClient => check_client(usages),
            Self::LegacyUnknown => Ok(()),
        }
    }
}

fn check_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    if let Some(usage) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if !usages.iter().any(|usage| usage == "client auth") {
        return Err("missing required usage for client certificate: client auth".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_approved_and_not_yet_answered_is_signed() {
        let csr = |status| -> Csr {
            serde_json::from_value(json!({"metadata": {}, "spec": {"request": "", "signerName": "x"}, "status": status})).unwrap()
        };
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        assert!(is_to_be_signed(&csr(json!({"conditions": [condition(APPROVED)]}))));
        for status in [
            json!({}),
            json!({"conditions": [condition(DENIED)]}),
            json!({"conditions": [condition(APPROVED), condition(DENIED)]}),
            json!({"conditions": [condition(APPROVED), condition(FAILED)]}),
            json!({"conditions": [condition(APPROVED)], "certificate": "QQ=="}),
        ] {
            assert!(!is_to_be_signed(&csr(status.clone())), "{status}");
        }
    }

    #[test]
    fn a_client_certificate_is_for_clients_only_and_lives_as_asked() {
        let check = |usages: &[&str]| check_client(&usages.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>());
        assert_eq!(check(&["client auth", "key encipherment"]), Ok(()));
        assert_eq!(check(&["client auth", "server auth"]).unwrap_err(), "invalid usage for client certificate: server auth");
        assert_eq!(check(&["digital signature"]).unwrap_err(), "missing required usage for client certificate: client auth");
        assert_eq!(lifetime(None), LIFETIME);
        assert_eq!(lifetime(Some(3600)), Duration::from_secs(3600));
        assert_eq!(lifetime(Some(1)), LIFETIME_MIN);
        assert_eq!(lifetime(Some(i32::MAX)), LIFETIME);
    }
}
