//! Reading the Secrets that are bootstrap tokens. Models k8s.io/cluster-bootstrap/util/secrets.
use client::k8s_openapi::api::core::v1::Secret;
use client::{Client, Informer};
use jiff::Timestamp;

pub(crate) const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

pub(crate) fn informer(client: &Client) -> Informer<Secret> {
    Informer::builder(client).namespace(NAMESPACE).fields(format!("type={TYPE}")).start()
}

pub(crate) fn entry<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default()
}

/// When it ends; `None`: never. One that cannot be read has ended.
pub(crate) fn expiration(secret: &Secret) -> Option<Timestamp> {
    let text = entry(secret, "expiration");
    (!text.is_empty()).then(|| text.parse().unwrap_or(Timestamp::MIN))
}

pub(crate) fn has_expired(secret: &Secret, now: Timestamp) -> bool {
    expiration(secret).is_some_and(|end| end <= now)
}
