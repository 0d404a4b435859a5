//! Signs ConfigMap `kube-public/cluster-info` with each bootstrap token, so that its holder knows the true one by the token alone.
//!
//! Models pkg/controller/bootstrap/{bootstrapsigner,util}.go, v1.37.
//! Reads Secrets of bootstrap tokens, that ConfigMap. Writes the ConfigMap. Wakes on both.
use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{ConfigMap, Secret};
use client::{Client, Clock, Controller, Informer, Named, Next, ObjectKey};
use jiff::Timestamp;

use crate::bootstrap_tokens as tokens;
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const SIGNED: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

struct Context {
    client: Client,
    clock: Clock,
    secrets: Informer<Secret>,
    maps: Informer<ConfigMap>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let secrets = tokens::informer(cx.informers.client());
    let maps = Informer::builder(cx.informers.client()).namespace(NAMESPACE).fields(format!("metadata.name={NAME}")).start();
    let context = Context { client: cx.client("bootstrap-signer"), clock: cx.clock, secrets: secrets.clone(), maps: maps.clone() };
    Controller::new("bootstrap-signer-controller", Arc::new(context))
        .watches(&secrets, |_, _| vec![ObjectKey::new(NAMESPACE, NAME)])
        .reconciles(&maps)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(map) = cx.maps.get(key) else { return Ok(Next::Wait) };
    if let Some(data) = plan(&map, &cx.secrets.list(), cx.clock.now()) {
        let signed = ConfigMap { data: Some(data), ..(*map).clone() };
        unless_gone(cx.client.update(&signed).await).during(|| format!("sign {key}"))?;
    }
    Ok(Next::Wait)
}

/// The data with the signatures of today's tokens, where it has not just these.
fn plan(map: &ConfigMap, secrets: &[Arc<Secret>], now: Timestamp) -> Option<BTreeMap<String, String>> {
    let data = map.data.as_ref()?;
    let content = data.get(SIGNED)?;
    let mut wanted = data.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE));
    for token in secrets.iter().filter_map(|secret| signing_token(secret, now)) {
        wanted.insert(format!("{SIGNATURE}{}", token.id()), token.detached_signature(content));
    }
    (wanted != *data).then_some(wanted)
}

fn signing_token(secret: &Secret, now: Timestamp) -> Option<pki::BootstrapToken> {
    let id = secret.name().strip_prefix("bootstrap-token-")?;
    let good = tokens::entry(secret, "token-id") == id
        && tokens::entry(secret, "usage-bootstrap-signing") == "true"
        && !tokens::has_expired(secret, now);
    good.then(|| format!("{id}.{}", tokens::entry(secret, "token-secret")).parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use client::k8s_openapi::ByteString;

    use super::*;

    fn secret(id: &str, change: (&str, &str)) -> Arc<Secret> {
        let entries = [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true"), change];
        let mut secret = Secret::default();
        secret.metadata.name = Some(format!("bootstrap-token-{id}"));
        secret.data = Some(entries.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect());
        Arc::new(secret)
    }

    #[test]
    fn each_good_token_signs_and_old_signatures_go() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let data = [(SIGNED, "content"), ("jws-kubeconfig-gone00", "x"), ("other", "y")];
        let mut map = ConfigMap { data: Some(data.map(|(k, v)| (k.to_owned(), v.to_owned())).into()), ..Default::default() };
        let secrets = [
            secret("abcdef", ("description", "x")),
            secret("nosign", ("usage-bootstrap-signing", "false")),
            secret("old000", ("expiration", "2025-01-01T00:00:00Z")),
            secret("shorts", ("token-secret", "x")),
        ];
        let signed = plan(&map, &secrets, now).unwrap();
        assert_eq!(signed.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig", "other"]);
        // Made by an independent implementation, which gives what upstream's jws_test.go expects of its content and token.
        let wanted = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..psz1NayrXM3IaFzKZGsb5n_mBl7MjtlsZ1xE8MRmF_4";
        assert_eq!(signed["jws-kubeconfig-abcdef"], wanted);
        map.data = Some(signed);
        assert!(plan(&map, &secrets, now).is_none());
        assert!(plan(&ConfigMap::default(), &secrets, now).is_none());
    }
}
