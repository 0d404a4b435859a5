//! Sees to it that a container's image is here: pull policies, logins, and the words for what goes wrong.
//!
//! Models pkg/kubelet/images/image_manager.go and pkg/credentialprovider, v1.37. The pauses between attempts are the pod
//! worker's. Two pods that want the same image share one pull of it through the content store.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use images::{Credentials, Image, Images, PullError, Reference};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use tracing::debug;

use crate::recorder::Recorder;
use crate::time::go_duration;

/// Why a container has no image; `reason` is what its status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFailure {
    pub reason: &'static str,
    pub message: String,
}

/// The image, present and complete.
pub async fn ensure(images: &Images, recorder: &Recorder, pod: &Pod, container: &Container, secrets: &[std::sync::Arc<Secret>]) -> Result<Image, ImageFailure> {
    let name = container.image.as_deref().unwrap_or_default();
    let event = |warning, reason: &str, message: String| recorder.container(pod, &container.name, warning, reason, message);
    let reference: Reference = match name.parse() {
        Ok(reference) => reference,
        Err(_) => {
            let message = format!("Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: invalid reference format");
            event(true, "InspectFailed", message.clone());
            return Err(ImageFailure { reason: "InvalidImageName", message });
        }
    };
    let present = {
        let (images, wanted) = (images.clone(), name.to_owned());
        let found = tokio::task::spawn_blocking(move || images.resolve(&wanted)).await;
        match found.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string())) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("Failed to inspect image {name:?}: {error}");
                event(true, "InspectFailed", message.clone());
                return Err(ImageFailure { reason: "ImageInspectError", message });
            }
        }
    };
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    match (present, policy) {
        (Some(image), "IfNotPresent" | "Never") => {
            event(false, "Pulled", format!("Container image {name:?} already present on machine and can be accessed by the pod"));
            Ok(image)
        }
        (None, "Never") => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            event(true, "ErrImageNeverPull", message.clone());
            Err(ImageFailure { reason: "ErrImageNeverPull", message })
        }
        // An image made by rk itself has no registry to ask.
        (Some(image), _) if reference.registry() == BUILTIN_REGISTRY => {
            event(false, "Pulled", format!("Container image {name:?} already present on machine and can be accessed by the pod"));
            Ok(image)
        }
        _ => pull(images, name, &reference, secrets, &event).await,
    }
}

/// Names below it are images that the binary brings along.
const BUILTIN_REGISTRY: &str = "rk.local";

async fn pull(images: &Images, name: &str, reference: &Reference, secrets: &[std::sync::Arc<Secret>], event: &(dyn Fn(bool, &str, String) + Send + Sync)) -> Result<Image, ImageFailure> {
    event(false, "Pulling", format!("Pulling image {name:?}"));
    let begun = Instant::now();
    let mut logins: Vec<Option<Credentials>> = logins(secrets, reference).into_iter().map(Some).collect();
    if logins.is_empty() {
        logins.push(None);
    }
    let mut last = None;
    for login in logins {
        match images.pull(reference, login.as_ref(), &|progress| debug!(?progress, "image pull")).await {
            Ok(image) => {
                let took = go_duration(std::time::Duration::from_millis(begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX)));
                event(false, "Pulled", format!("Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {} bytes.", image.size_bytes));
                return Ok(image);
            }
            // Another login may be allowed what this one is not.
            Err(error @ (PullError::Unauthorized { .. } | PullError::NotFound { .. })) => last = Some(error),
            Err(error) => {
                last = Some(error);
                break;
            }
        }
    }
    let error = last.map(|e| chain(&e)).unwrap_or_default();
    event(true, "Failed", format!("Failed to pull image {name:?}: {error}"));
    event(true, "Failed", "Error: ErrImagePull".into());
    Err(ImageFailure { reason: "ErrImagePull", message: error })
}

/// An error with its causes, once each.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}

#[derive(serde::Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Login>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Login {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The logins in `secrets` that are meant for the reference's registry, the most specific first.
fn logins(secrets: &[std::sync::Arc<Secret>], reference: &Reference) -> Vec<Credentials> {
    let mut found: Vec<(usize, Credentials)> = Vec::new();
    for secret in secrets {
        let data = secret.data.as_ref();
        let config = data.and_then(|d| d.get(".dockerconfigjson")).and_then(|b| serde_json::from_slice::<DockerConfig>(&b.0).ok()).map(|c| c.auths);
        let old = data.and_then(|d| d.get(".dockercfg")).and_then(|b| serde_json::from_slice(&b.0).ok());
        for (registry, login) in config.or(old).into_iter().flatten() {
            if let Some(weight) = fits(&registry, reference)
                && let Some(credentials) = credentials(login)
            {
                found.push((weight, credentials));
            }
        }
    }
    found.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    found.into_iter().map(|(_, c)| c).collect()
}

/// How exactly an `auths` key names the reference's repository; `None`: not at all.
fn fits(key: &str, reference: &Reference) -> Option<usize> {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = if matches!(path, "v1" | "v2") { "" } else { path.trim_start_matches("v1/").trim_start_matches("v2/") };
    let docker = |h: &str| matches!(h, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let same = host == reference.registry() || docker(host) && docker(reference.registry()) || glob(host, reference.registry());
    let below = path.is_empty() || reference.repository() == path || reference.repository().starts_with(&format!("{path}/"));
    (same && below).then_some(bare.len())
}

/// `*.example.com`: a star stands for one part of a host name.
fn glob(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len()
        && pattern.iter().zip(&host).all(|(p, h)| match p.split_once('*') {
            Some((before, after)) => h.len() >= before.len() + after.len() && h.starts_with(before) && h.ends_with(after),
            None => p == h,
        })
}

fn credentials(login: Login) -> Option<Credentials> {
    let (mut username, mut password) = (login.username, login.password);
    if username.is_empty() && !login.auth.is_empty() {
        let text = String::from_utf8(STANDARD.decode(login.auth.trim()).ok()?).ok()?;
        let (user, pass) = text.split_once(':')?;
        (username, password) = (user.to_owned(), pass.trim_end_matches('\0').to_owned());
    }
    Some(Credentials { username, password, identity_token: login.identitytoken, registry_token: login.registrytoken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_chosen_by_registry_and_repository() {
        let secret: Secret = serde_json::from_value(serde_json::json!({"data": {".dockerconfigjson": STANDARD.encode(
            serde_json::json!({"auths": {
                "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:pw")},
                "reg.example:5000": {"username": "a", "password": "b"},
                "reg.example:5000/team": {"username": "team", "password": "c"},
                "*.wild.example": {"username": "w", "password": "d"}
            }}).to_string())}}))
        .expect("a secret");
        let users = |name: &str| -> Vec<String> {
            logins(&[std::sync::Arc::new(secret.clone())], &name.parse().expect("a reference")).into_iter().map(|c| c.username).collect()
        };
        assert_eq!(users("busybox"), ["hub"]);
        assert_eq!(users("reg.example:5000/x"), ["a"]);
        assert_eq!(users("reg.example:5000/team/x"), ["team", "a"]);
        assert_eq!(users("one.wild.example/x"), ["w"]);
        assert!(users("other.example/x").is_empty());
    }
}
