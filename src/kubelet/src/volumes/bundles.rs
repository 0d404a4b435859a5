//! ClusterTrustBundles that pods mount: found by name or by signer and labels, their certificates each once, in no order that anybody
//! could come to rely on.
//!
//! Models pkg/kubelet/clustertrustbundle/clustertrustbundle_manager.go, v1.37. All bundles are watched once the first pod here uses one.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use api::selector::LabelSelector;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, HandlerGuard, Informer, Named, ObjectKey};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Pod};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Notify;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BundleError {
    #[error("while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {0:?} not found")]
    NotFound(String),
    #[error("combination of signerName and labelSelector matched zero ClusterTrustBundles")]
    NoMatch,
    #[error("while parsing label selector: {0}")]
    Selector(String),
    #[error("ClusterTrustBundle projection requires either name or signerName to be set")]
    Neither,
}

/// All bundles of the cluster, once somebody asks for one.
pub struct Bundles {
    client: Client,
    informer: OnceLock<Informer<ClusterTrustBundle>>,
    /// Orders certificates alike for as long as this process lives, and differently after.
    order: RandomState,
}

impl Bundles {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), informer: OnceLock::new(), order: RandomState::new() }
    }

    /// What `pod` sees of them; none if it mounts none. `changed` is told of every change that could matter to it.
    pub fn subscribe(self: &Arc<Self>, pod: &Pod, changed: &Arc<Notify>) -> Option<PodBundles> {
        let wanted: Vec<ClusterTrustBundleProjection> = projections(pod).cloned().collect();
        if wanted.is_empty() {
            return None;
        }
        let informer = self.informer.get_or_init(|| Informer::builder(&self.client).start()).clone();
        let changed = changed.clone();
        let guard = informer.on_event(move |event| {
            if event.states().any(|bundle| wanted.iter().any(|w| concerns(w, bundle))) {
                changed.notify_one();
            }
        });
        Some(PodBundles { all: self.clone(), informer, _guard: guard })
    }
}

fn projections(pod: &Pod) -> impl Iterator<Item = &ClusterTrustBundleProjection> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.flat_map(|v| v.projected.iter().flat_map(|p| p.sources.iter().flatten())).filter_map(|s| s.cluster_trust_bundle.as_ref())
}

fn concerns(wanted: &ClusterTrustBundleProjection, bundle: &ClusterTrustBundle) -> bool {
    match &wanted.name {
        Some(name) => bundle.name() == name,
        None => bundle.spec.signer_name == wanted.signer_name,
    }
}

/// One pod's view.
pub struct PodBundles {
    all: Arc<Bundles>,
    informer: Informer<ClusterTrustBundle>,
    _guard: HandlerGuard,
}

impl PodBundles {
    pub async fn synced(&self) {
        self.informer.synced().await;
    }

    /// The file that `wanted` asks for.
    pub fn anchors(&self, wanted: &ClusterTrustBundleProjection) -> Result<Vec<u8>, BundleError> {
        let found = match (&wanted.name, &wanted.signer_name) {
            (Some(name), _) => match self.informer.get(&ObjectKey::cluster(name)) {
                Some(bundle) => vec![bundle],
                None => Vec::new(),
            },
            (None, Some(_)) => choose(self.informer.list(), wanted)?,
            (None, None) => return Err(BundleError::Neither),
        };
        if found.is_empty() && wanted.optional != Some(true) {
            return Err(wanted.name.clone().map_or(BundleError::NoMatch, BundleError::NotFound));
        }
        Ok(normalized(found.iter().map(|b| b.spec.trust_bundle.as_str()), &self.all.order).into_bytes())
    }
}

/// No selector chooses nothing, an empty one everything of the signer.
fn choose(all: Vec<Arc<ClusterTrustBundle>>, wanted: &ClusterTrustBundleProjection) -> Result<Vec<Arc<ClusterTrustBundle>>, BundleError> {
    let selector = LabelSelector::from_typed(wanted.label_selector.as_ref()).map_err(|e| BundleError::Selector(e.to_string()))?;
    let matches = |b: &ClusterTrustBundle| {
        b.spec.signer_name == wanted.signer_name && !selector.matches_nothing() && selector.matches_map(b.metadata.labels.as_ref())
    };
    Ok(all.into_iter().filter(|b| matches(b)).collect())
}

/// The certificates of `bundles` without what stands between them, each once.
fn normalized<'b>(bundles: impl Iterator<Item = &'b str>, order: &RandomState) -> String {
    let certificates = bundles.flat_map(|text| CertificateDer::pem_slice_iter(text.as_bytes()).flatten());
    let ordered: BTreeSet<(u64, Vec<u8>)> = certificates.map(|c| (order.hash_one(c.as_ref()), c.to_vec())).collect();
    ordered.iter().map(|(_, certificate)| pem(certificate)).collect()
}

/// Certificates as PEM, without headers.
pub fn clean_chain(text: &str) -> String {
    CertificateDer::pem_slice_iter(text.as_bytes()).flatten().map(|c| pem(&c)).collect()
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(value: serde_json::Value) -> Arc<ClusterTrustBundle> {
        Arc::new(serde_json::from_value(value).expect("a bundle"))
    }

    fn wanted(value: serde_json::Value) -> ClusterTrustBundleProjection {
        serde_json::from_value(value).expect("a projection")
    }

    #[test]
    fn signer_and_labels_choose() {
        use serde_json::json;
        let all = vec![
            bundle(json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"signerName": "s/1", "trustBundle": ""}})),
            bundle(json!({"metadata": {"name": "b"}, "spec": {"signerName": "s/1", "trustBundle": ""}})),
            bundle(json!({"metadata": {"name": "c", "labels": {"x": "1"}}, "spec": {"signerName": "s/2", "trustBundle": ""}})),
        ];
        let names = |w| choose(all.clone(), &wanted(w)).expect("chosen").iter().map(|b| b.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(json!({"path": "p", "signerName": "s/1", "labelSelector": {}})), ["a", "b"]);
        assert_eq!(names(json!({"path": "p", "signerName": "s/1", "labelSelector": {"matchLabels": {"x": "1"}}})), ["a"]);
        assert!(names(json!({"path": "p", "signerName": "s/1"})).is_empty());
    }

    #[test]
    fn certificates_come_once_and_in_one_order() {
        let (one, two) = (pem(&[1; 100]), pem(&[2; 100]));
        let order = RandomState::new();
        let texts = [format!("text\n{one}more\n{two}"), format!("{two}{one}")];
        let all = normalized(texts.iter().map(String::as_str), &order);
        assert_eq!(all.len(), one.len() + two.len());
        assert!(all == format!("{one}{two}") || all == format!("{two}{one}"), "{all}");
        assert_eq!(all, normalized(texts.iter().rev().map(String::as_str), &order));
        assert_eq!(clean_chain(&texts[0]), format!("{one}{two}"));
    }
}
