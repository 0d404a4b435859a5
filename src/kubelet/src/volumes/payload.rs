//! The files of volumes that follow API objects. Pure.
//!
//! Models MakePayload of pkg/volume/{configmap,secret}, CollectData of pkg/volume/downwardapi and collectData of
//! pkg/volume/projected, v1.37.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, KeyToPath, Pod, ProjectedVolumeSource, Secret, SecretVolumeSource,
};

use super::bundles::BundleError;
use super::certificates::CertificateError;
use super::credentials::Credentials;
use super::sources::PodSources;
use crate::fields::{self, NodeFacts};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PayloadError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("configmap references non-existent config key: {0}")]
    NoConfigMapKey(String),
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    #[error(transparent)]
    Field(#[from] fields::FieldError),
    #[error("no token for path {0:?} yet")]
    NoToken(String),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(0o644)).unwrap_or(0o644) & 0o777
}

pub fn config_map_volume(source: &ConfigMapVolumeSource, sources: &PodSources) -> Result<Payload, PayloadError> {
    let optional = source.optional == Some(true);
    let map = sources.config_map(&source.name);
    match map.as_deref() {
        Some(map) => config_map(map, source.items.as_deref(), source.default_mode, optional),
        None if optional => Ok(Payload::new()),
        None => Err(PayloadError::NoConfigMap(source.name.clone())),
    }
}

pub fn secret_volume(source: &SecretVolumeSource, sources: &PodSources) -> Result<Payload, PayloadError> {
    let optional = source.optional == Some(true);
    let name = source.secret_name.clone().unwrap_or_default();
    match sources.secret(&name).as_deref() {
        Some(found) => secret(found, source.items.as_deref(), source.default_mode, optional),
        None if optional => Ok(Payload::new()),
        None => Err(PayloadError::NoSecret(name)),
    }
}

pub fn downward_volume(source: &DownwardAPIVolumeSource, pod: &Pod, facts: &NodeFacts) -> Result<Payload, PayloadError> {
    downward(source.items.as_deref(), source.default_mode, pod, facts)
}

/// What the sources of a projected volume are made from.
pub struct Given<'a> {
    pub pod: &'a Pod,
    pub sources: &'a PodSources,
    pub credentials: &'a Credentials,
    pub facts: &'a NodeFacts,
    /// The files will be the pod's user's or group's: nobody else needs to read a secret among them.
    pub owned: bool,
}

pub fn projected_volume(volume: &str, source: &ProjectedVolumeSource, given: &Given<'_>) -> Result<Payload, PayloadError> {
    let Given { pod, sources, credentials, facts, owned } = *given;
    let default = source.default_mode;
    let secret_mode = if owned { 0o600 } else { mode(None, default) };
    let mut out = Payload::new();
    for (i, part) in source.sources.iter().flatten().enumerate() {
        if let Some(s) = &part.config_map {
            let optional = s.optional == Some(true);
            match sources.config_map(&s.name).as_deref() {
                Some(map) => out.extend(config_map(map, s.items.as_deref(), default, optional)?),
                None if optional => {}
                None => return Err(PayloadError::NoConfigMap(s.name.clone())),
            }
        } else if let Some(s) = &part.secret {
            let optional = s.optional == Some(true);
            match sources.secret(&s.name).as_deref() {
                Some(found) => out.extend(secret(found, s.items.as_deref(), default, optional)?),
                None if optional => {}
                None => return Err(PayloadError::NoSecret(s.name.clone())),
            }
        } else if let Some(s) = &part.downward_api {
            out.extend(downward(s.items.as_deref(), default, pod, facts)?);
        } else if let Some(s) = &part.service_account_token {
            let token = credentials.tokens.get(volume, &s.path).ok_or_else(|| PayloadError::NoToken(s.path.clone()))?;
            out.insert(s.path.clone(), File { data: token.as_bytes().to_vec(), mode: secret_mode });
        } else if let Some(s) = &part.cluster_trust_bundle {
            let data = sources.trust_anchors(s)?;
            out.insert(s.path.clone(), File { data, mode: secret_mode });
        } else if let Some(s) = &part.pod_certificate {
            let issued = credentials.certificates.get(volume, i)?;
            let mut put = |path: &Option<String>, parts: &[&str]| {
                if let Some(path) = path.as_ref().filter(|p| !p.is_empty()) {
                    out.insert(path.clone(), File { data: parts.concat().into_bytes(), mode: secret_mode });
                }
            };
            put(&s.credential_bundle_path, &[&issued.key, &issued.chain]);
            put(&s.key_path, &[&issued.key]);
            put(&s.certificate_chain_path, &[&issued.chain]);
        }
    }
    Ok(out)
}

fn config_map(map: &ConfigMap, items: Option<&[KeyToPath]>, default: Option<i32>, optional: bool) -> Result<Payload, PayloadError> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    choose(text.chain(binary).collect(), items, default, optional).map_err(PayloadError::NoConfigMapKey)
}

fn secret(secret: &Secret, items: Option<&[KeyToPath]>, default: Option<i32>, optional: bool) -> Result<Payload, PayloadError> {
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    choose(data.collect(), items, default, optional).map_err(PayloadError::NoSecretKey)
}

fn choose(data: BTreeMap<&str, &[u8]>, items: Option<&[KeyToPath]>, default: Option<i32>, optional: bool) -> Result<Payload, String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.into_iter().map(|(k, v)| (k.to_owned(), File { data: v.to_vec(), mode: mode(None, default) })).collect());
    };
    let mut out = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                out.insert(item.path.clone(), File { data: bytes.to_vec(), mode: mode(item.mode, default) });
            }
            None if optional => {}
            None => return Err(item.key.clone()),
        }
    }
    Ok(out)
}

fn downward(items: Option<&[DownwardAPIVolumeFile]>, default: Option<i32>, pod: &Pod, facts: &NodeFacts) -> Result<Payload, PayloadError> {
    let mut out = Payload::new();
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(pod, &field.field_path, facts)?,
            (None, Some(resource)) => fields::resource(pod, None, resource, facts)?,
            (None, None) => String::new(),
        };
        out.insert(item.path.clone(), File { data: text.into_bytes(), mode: mode(item.mode, default) });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}})).expect("a map");
        let all = config_map(&map, None, Some(0o400), false).expect("a payload");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((all["a"].mode, all["c"].data.as_slice()), (0o400, [0u8, 1].as_slice()));
        let items: Vec<KeyToPath> = serde_json::from_value(serde_json::json!([{"key": "a", "path": "x/y", "mode": 256}])).expect("items");
        let some = config_map(&map, Some(&items), None, false).expect("a payload");
        assert_eq!((some.len(), some["x/y"].mode), (1, 0o400));
        let none: Vec<KeyToPath> = serde_json::from_value(serde_json::json!([{"key": "z", "path": "z"}])).expect("items");
        assert_eq!(config_map(&map, Some(&none), None, false), Err(PayloadError::NoConfigMapKey("z".into())));
        assert_eq!(config_map(&map, Some(&none), None, true), Ok(Payload::new()));
    }
}
