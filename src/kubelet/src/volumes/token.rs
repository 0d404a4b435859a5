//! Tokens for `serviceAccountToken` volumes: asked for by TokenRequest, bound to the pod, renewed at 80 % of their life.
//!
//! Models pkg/kubelet/token/token_manager.go and pkg/volume/projected/projected.go, v1.37.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};

use crate::time;

/// After a day a token is renewed whatever its life (upstream: maxTTL).
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
const EXPIRATION_DEFAULT: i64 = 3600;

#[derive(Clone)]
struct Token {
    value: String,
    renew_at: Timestamp,
}

/// The tokens of one pod, by volume and path. Never printed.
#[derive(Clone, Default)]
pub struct Tokens(BTreeMap<(String, String), Token>);

impl Tokens {
    pub fn get(&self, volume: &str, path: &str) -> Option<&str> {
        self.0.get(&(volume.to_owned(), path.to_owned())).map(|t| t.value.as_str())
    }

    /// When the first of them is due.
    pub fn renew_at(&self) -> Option<Timestamp> {
        self.0.values().map(|t| t.renew_at).min()
    }
}

/// Fetches what is missing or due; keeps the rest.
pub async fn renew(client: &Client, pod: &Pod, tokens: &mut Tokens) -> Result<(), String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Ok(()) };
    let account = spec.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    for volume in spec.volumes.iter().flatten() {
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            let Some(wanted) = &source.service_account_token else { continue };
            let key = (volume.name.clone(), wanted.path.clone());
            if tokens.0.get(&key).is_some_and(|t| t.renew_at > time::now()) {
                continue;
            }
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: wanted.audience.clone().filter(|a| !a.is_empty()).map(|a| vec![a]),
                    expiration_seconds: Some(wanted.expiration_seconds.unwrap_or(EXPIRATION_DEFAULT)),
                    bound_object_ref: Some(BoundObjectReference {
                        api_version: Some("v1".into()),
                        kind: Some("Pod".into()),
                        name: pod.metadata.name.clone(),
                        uid: pod.metadata.uid.clone(),
                    }),
                    ..TokenRequestSpec::default()
                }),
                ..TokenRequest::default()
            };
            let key_of_account = ObjectKey::new(namespace, account);
            let answer: TokenRequest = client
                .create_subresource::<ServiceAccount, _, _>(&key_of_account, "token", &request)
                .await
                .map_err(|e| e.to_string())?;
            let status = answer.status.ok_or("the server gave no token")?;
            let now = time::now();
            let (Some(value), Some(expiration)) = (status.token, status.expiration_timestamp) else {
                return Err("the server gave no token".into());
            };
            let life = time::until(now, expiration.0);
            let renew_at = time::after(now, life.mul_f64(0.8).min(AGE_MAX));
            tokens.0.insert(key, Token { value, renew_at });
        }
    }
    Ok(())
}

/// The user that all containers run as, when the pod says so: the token file is made theirs.
pub fn owner(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let default = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(default));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}
