//! Publishes what the API server's certificate is trusted by as the ClusterTrustBundle of the signer `kubernetes.io/kube-apiserver-serving`.
//!
//! Models pkg/controller/certificates/clustertrustbundlepublisher/publisher.go, v1.37. The name carries a hash of the bundle; bundles of
//! the signer under other names are removed.
//! Reads ClusterTrustBundles of that signer. Writes the same. Wakes on them, and once at start.
use std::sync::Arc;

use client::k8s_openapi::api::certificates::v1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Controller, DeleteOptions, Informer, Named, Next, ObjectKey};
use ring::digest::{SHA256, digest};

use crate::context::{Config, ControllerContext};
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "kube-apiserver-serving-clustertrustbundle-publisher";
const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// Bytes of the hash in the name.
const HASH_BYTES: usize = 12;

struct Context {
    client: Client,
    config: Arc<Config>,
    bundles: Informer<ClusterTrustBundle>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let bundles = Informer::builder(cx.informers.client()).fields(format!("spec.signerName={SIGNER}")).start();
    let cx = Arc::new(Context { client: cx.client(NAME), config: cx.config.clone(), bundles });
    let bundles = cx.bundles.clone();
    let controller = Controller::new(NAME, cx).workers(1).watches(&bundles, |_, _| vec![ObjectKey::cluster(SIGNER)]);
    controller.queue().add(ObjectKey::cluster(SIGNER));
    controller.run(|cx, _| async move { reconcile(&cx).await }).await;
}

async fn reconcile(cx: &Context) -> Result<Next, Failure> {
    if cx.config.root_ca.is_empty() {
        return Ok(Next::Wait);
    }
    let plan = plan(&cx.bundles.list(), &cx.config.root_ca);
    if let Some(wanted) = plan.write {
        let written = match wanted.metadata.resource_version {
            Some(_) => cx.client.update(&wanted).await,
            None => cx.client.create(&wanted).await,
        };
        match written {
            // Made by an earlier attempt, which the informer will show.
            Err(error) if error.is_already_exists() => {}
            written => drop(written.during(|| format!("publish ClusterTrustBundle {}", wanted.name()))?),
        }
    }
    for name in plan.delete {
        let key = ObjectKey::cluster(name.as_str());
        unless_gone(cx.client.delete::<ClusterTrustBundle>(&key, &DeleteOptions::default()).await)
            .during(|| format!("remove ClusterTrustBundle {name}"))?;
    }
    Ok(Next::Wait)
}

#[derive(Debug, Default, PartialEq)]
struct Plan {
    write: Option<ClusterTrustBundle>,
    delete: Vec<String>,
}

fn plan(existing: &[Arc<ClusterTrustBundle>], bundle: &str) -> Plan {
    let name = bundle_name(bundle);
    let mut plan = Plan::default();
    match existing.iter().find(|b| b.name() == name) {
        None => {
            plan.write = Some(ClusterTrustBundle {
                metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                spec: ClusterTrustBundleSpec { signer_name: Some(SIGNER.to_owned()), trust_bundle: bundle.to_owned() },
            });
        }
        Some(found) if found.spec.trust_bundle != bundle => {
            let mut wanted = (**found).clone();
            wanted.spec.trust_bundle = bundle.to_owned();
            plan.write = Some(wanted);
        }
        Some(_) => {}
    }
    plan.delete = existing.iter().map(|b| b.name()).filter(|n| *n != name).map(str::to_owned).collect();
    plan
}

fn bundle_name(bundle: &str) -> String {
    let hash = digest(&SHA256, bundle.as_bytes());
    let hex: String = hash.as_ref()[..HASH_BYTES].iter().map(|b| format!("{b:02x}")).collect();
    format!("{}:{hex}", SIGNER.replace('/', ":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bundle_is_kept_and_others_go() {
        let made = plan(&[], "PEM").write.unwrap();
        assert_eq!(made.name(), bundle_name("PEM"));
        assert_eq!(bundle_name(""), "kubernetes.io:kube-apiserver-serving:e3b0c44298fc1c149afbf4c8");
        assert_eq!(plan(&[Arc::new(made.clone())], "PEM"), Plan::default());
        let next = plan(&[Arc::new(made.clone())], "NEW");
        assert_eq!((next.write.unwrap().spec.trust_bundle.as_str(), next.delete), ("NEW", vec![bundle_name("PEM")]));
        let mut bent = made;
        bent.spec.trust_bundle = "OTHER".to_owned();
        assert_eq!(plan(&[Arc::new(bent)], "PEM").write.unwrap().spec.trust_bundle, "PEM");
    }
}
