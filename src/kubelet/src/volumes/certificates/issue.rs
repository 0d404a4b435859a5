//! Keys are made, requests sent and watched.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::{Client, HandlerGuard, Informer, Named, ObjectKey, object_reference};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use tokio::sync::Notify;

use super::{Certificate, Certificates, JITTER_MAX, Pending};
use crate::images::chain;
use crate::recorder::Recorder;
use crate::time;

/// How long a pod's first start waits for its signer before it is said that it waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// The requests of this node, once a pod here needs one.
pub struct Requests {
    client: Client,
    node_name: String,
    informer: OnceLock<Informer<PodCertificateRequest>>,
}

impl Requests {
    pub fn new(client: &Client, node_name: &str) -> Self {
        Self { client: client.clone(), node_name: node_name.to_owned(), informer: OnceLock::new() }
    }

    /// What `pod` sees of them; none if it asks for no certificate. `changed` is told of every change of one of its own.
    pub fn subscribe(self: &Arc<Self>, pod: &Pod, changed: &Arc<Notify>) -> Option<PodRequests> {
        projections(pod).next()?;
        let start = || Informer::builder(&self.client).fields(format!("spec.nodeName={}", self.node_name)).start();
        let informer = self.informer.get_or_init(start).clone();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (changed, came) = (changed.clone(), Arc::new(Notify::new()));
        let told = came.clone();
        let guard = informer.on_event(move |event| {
            if event.object().spec.pod_uid == uid {
                told.notify_one();
                changed.notify_one();
            }
        });
        Some(PodRequests { all: self.clone(), informer, came, _guard: guard })
    }
}

/// Every `podCertificate` of a pod, with its volume and its place there.
fn projections(pod: &Pod) -> impl Iterator<Item = (&str, usize, &PodCertificateProjection)> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).enumerate();
        sources.filter_map(|(i, source)| Some((volume.name.as_str(), i, source.pod_certificate.as_ref()?)))
    })
}

#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
pub struct IssueError {
    volume: String,
    reason: String,
}

/// One pod's view.
pub struct PodRequests {
    all: Arc<Requests>,
    informer: Informer<PodCertificateRequest>,
    came: Arc<Notify>,
    _guard: HandlerGuard,
}

impl PodRequests {
    pub async fn synced(&self) {
        self.informer.synced().await;
    }

    /// Takes in what signers have done, and asks for what is missing or due.
    pub async fn advance(&self, pod: &Pod, certificates: &mut Certificates, recorder: &Recorder) -> Result<(), IssueError> {
        for (volume, source, wanted) in projections(pod) {
            let key = (volume.to_owned(), source);
            let mut state = self.observe(pod, certificates.0.remove(&key), recorder);
            if state.as_ref().is_none_or(|s| s.needs_request(time::now())) {
                match self.request(pod, wanted).await {
                    Ok(pending) => {
                        state = Some(match state {
                            Some(Certificate::Issued { current, .. }) => Certificate::Issued { current, pending: Some(pending) },
                            _ => Certificate::Waiting(pending),
                        });
                    }
                    Err(reason) => {
                        certificates.0.extend(state.map(|s| (key, s)));
                        return Err(IssueError { volume: volume.to_owned(), reason });
                    }
                }
            }
            certificates.0.extend(state.map(|s| (key, s)));
        }
        let _ = tokio::time::timeout(PATIENCE, self.wait(pod, certificates, recorder)).await;
        Ok(())
    }

    async fn wait(&self, pod: &Pod, certificates: &mut Certificates, recorder: &Recorder) {
        loop {
            for state in certificates.0.values_mut() {
                // A request that is gone is noticed by the next round.
                if let Certificate::Waiting(pending) = state
                    && let Some(observed) = self.observe(pod, Some(Certificate::Waiting(pending.clone())), recorder)
                {
                    *state = observed;
                }
            }
            if !certificates.0.values().any(|state| matches!(state, Certificate::Waiting(_))) {
                return;
            }
            self.came.notified().await;
        }
    }

    fn observe(&self, pod: &Pod, state: Option<Certificate>, recorder: &Recorder) -> Option<Certificate> {
        let state = state?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let request = state.pending().and_then(|p| self.informer.get(&ObjectKey::new(namespace, p.name.as_str())));
        let now = time::now();
        let (mut state, notice) = state.observe(request.as_deref(), now, jitter());
        let late = state.as_mut().map(|s| s.lateness(now)).unwrap_or_default();
        for notice in notice.into_iter().chain(late) {
            recorder.pod(pod, true, &notice.reason, notice.message);
        }
        state
    }

    async fn request(&self, pod: &Pod, wanted: &PodCertificateProjection) -> Result<Pending, String> {
        let client = &self.all.client;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_default();
        let service_account: ServiceAccount = client
            .get(&ObjectKey::new(namespace.as_str(), account.as_str()))
            .await
            .map_err(|e| format!("while fetching service account: {}", chain(&e)))?;
        let node: Node = client
            .get(&ObjectKey::cluster(self.all.node_name.as_str()))
            .await
            .map_err(|e| format!("while getting node object: {}", chain(&e)))?;
        let (key, stub) = key_and_stub(&wanted.key_type)?;
        let reference = object_reference(pod);
        let text = |value: Option<String>| value.unwrap_or_default();
        let request = PodCertificateRequest {
            metadata: ObjectMeta {
                namespace: Some(namespace),
                generate_name: Some("req-".into()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Pod".into(),
                    name: text(reference.name.clone()),
                    uid: text(reference.uid.clone()),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: PodCertificateRequestSpec {
                signer_name: wanted.signer_name.clone(),
                pod_name: text(reference.name),
                pod_uid: text(reference.uid),
                service_account_name: account,
                service_account_uid: text(service_account.metadata.uid),
                node_name: self.all.node_name.clone(),
                node_uid: text(node.metadata.uid),
                max_expiration_seconds: wanted.max_expiration_seconds,
                stub_pkc_s10_request: ByteString(stub),
                unverified_user_annotations: wanted.user_annotations.clone(),
            },
            status: None,
        };
        let made = client.create(&request).await.map_err(|e| format!("while creating PodCertificateRequest: {}", chain(&e)))?;
        let created_at = made.metadata.creation_timestamp.as_ref().map_or_else(time::now, |t| t.0);
        Ok(Pending::new(key, made.name().to_owned(), created_at, jitter()))
    }
}

/// A new key as PEM, and an empty request that it signed.
fn key_and_stub(key_type: &str) -> Result<(Arc<str>, Vec<u8>), String> {
    let algorithm = match key_type {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        "RSA3072" | "RSA4096" | "ECDSAP521" => {
            return Err(format!("keys of type {key_type} cannot be made on this node; it makes ECDSAP256, ECDSAP384 and ED25519"));
        }
        other => return Err(format!("unknown key type {other:?}")),
    };
    let failed = |e: rcgen::Error| format!("while generating {key_type} key: {e}");
    let key = rcgen::KeyPair::generate_for(algorithm).map_err(failed)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem().into(), request.der().to_vec()))
}

fn jitter() -> Duration {
    Duration::from_millis(client::random() % u64::try_from(JITTER_MAX.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_of_each_type_that_ring_knows() {
        for key_type in ["ECDSAP256", "ECDSAP384", "ED25519"] {
            let (key, stub) = key_and_stub(key_type).expect("made");
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n") && !key.contains('\r'), "{key_type}");
            assert_eq!(stub.first(), Some(&0x30), "{key_type}");
        }
        assert!(key_and_stub("RSA3072").expect_err("refused").contains("keys of type RSA3072 cannot be made"));
        assert!(jitter() < JITTER_MAX);
    }
}
