//! Manifests, indexes and configurations: of the OCI image specification and of Docker's schema 2, which agree in all
//! that is read here.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, PullError};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What a manifest or index may weigh, as containerd limits it.
pub const MANIFEST_SIZE_MAX: u64 = 8 << 20;
/// Deeper indexes than this are nobody's image.
const LAYERS_MAX: usize = 500;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub struct Index {
    pub manifests: Vec<Descriptor>,
}

/// Either of the two, told apart by content, not by the header alone (GO-2022-0360: an ambiguous document is refused).
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, PullError> {
        let malformed = |detail: String| PullError::Malformed { what: "manifest".into(), detail };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: String,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if shape.schema_version != 2 {
            return Err(malformed(format!("schema version {} is not supported", shape.schema_version)));
        }
        let is_index = shape.manifests.is_some();
        if is_index && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(malformed("both an index and a manifest".into()));
        }
        let claimed = [shape.media_type.as_str(), media_type].into_iter().find(|m| !m.is_empty()).unwrap_or("");
        if is_index && matches!(claimed, OCI_MANIFEST | DOCKER_MANIFEST) || !is_index && matches!(claimed, OCI_INDEX | DOCKER_LIST) {
            return Err(malformed(format!("media type {claimed} does not fit the content")));
        }
        if is_index {
            return serde_json::from_slice(bytes).map(Document::Index).map_err(|e| malformed(e.to_string()));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if manifest.layers.len() > LAYERS_MAX {
            return Err(malformed(format!("{} layers", manifest.layers.len())));
        }
        Ok(Document::Manifest(manifest))
    }
}

/// The name Go gives this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Index {
    /// The manifest for this machine.
    pub fn choose(&self, reference: &str) -> Result<&Descriptor, PullError> {
        let fits = |d: &&Descriptor| match &d.platform {
            Some(p) => p.os == "linux" && p.architecture == architecture(),
            None => self.manifests.len() == 1,
        };
        self.manifests.iter().find(fits).ok_or_else(|| PullError::Platform {
            reference: reference.to_owned(),
            wanted: format!("linux/{}", architecture()),
            found: {
                let names = self.manifests.iter().filter_map(|d| d.platform.as_ref()).map(|p| format!("{}/{}", p.os, p.architecture));
                names.collect::<Vec<_>>().join(", ")
            },
        })
    }
}

/// What an image says about running it. Paths, users and programs here are only ever used inside the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
    pub exposed_ports: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// The configuration blob.
#[derive(Debug, Deserialize)]
pub struct Configuration {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    config: Option<RawConfig>,
    #[serde(default)]
    pub rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

impl Configuration {
    pub fn parse(bytes: &[u8]) -> Result<Self, PullError> {
        serde_json::from_slice(bytes).map_err(|e| PullError::Malformed { what: "image configuration".into(), detail: e.to_string() })
    }

    /// Refuses an image for another kind of machine.
    pub fn check_platform(&self, reference: &str) -> Result<(), PullError> {
        let fits = (self.os.is_empty() || self.os == "linux") && (self.architecture.is_empty() || self.architecture == architecture());
        if fits {
            return Ok(());
        }
        Err(PullError::Platform {
            reference: reference.to_owned(),
            wanted: format!("linux/{}", architecture()),
            found: format!("{}/{}", self.os, self.architecture),
        })
    }

    pub fn image_config(self) -> ImageConfig {
        let raw = self.config.unwrap_or_default();
        ImageConfig {
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            env: raw.env.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
            working_dir: raw.working_dir.unwrap_or_default(),
            stop_signal: raw.stop_signal.unwrap_or_default(),
            exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
            labels: raw.labels.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambiguous_document_is_refused() {
        let both = br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#;
        assert!(Document::parse(both, "").is_err());
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(Document::parse(index, OCI_MANIFEST).is_err());
        assert!(matches!(Document::parse(index, OCI_INDEX), Ok(Document::Index(_))));
    }
}
