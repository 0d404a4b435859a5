//! `/etc/rk/registries.yaml`: mirrors, logins and certificates, in the shape that k3s' users know.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Credentials;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HostConfig {
    auth: Option<Auth>,
    tls: Option<Tls>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Auth {
    username: String,
    password: String,
    identity_token: String,
    registry_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("read {path}")]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("{path}: {detail}")]
    Parse { path: PathBuf, detail: String },
}

/// One place to ask for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub tls: bool,
    /// Host and port.
    pub authority: String,
    /// Path before `/v2`, usually empty.
    pub prefix: String,
}

impl Endpoint {
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, _)) => host,
            None => &self.authority,
        }
    }

    pub fn port(&self) -> u16 {
        let explicit = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        explicit.unwrap_or(if self.tls { 443 } else { 80 })
    }
}

impl Registries {
    /// An absent file is an empty configuration; an unknown key or a bad value is an error that names it.
    pub fn load(path: &Path) -> Result<Self, RegistriesError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(RegistriesError::Read { path: path.to_owned(), source }),
        };
        Self::parse(&text).map_err(|detail| RegistriesError::Parse { path: path.to_owned(), detail })
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let parsed: Self = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        for (name, mirror) in &parsed.mirrors {
            for endpoint in &mirror.endpoint {
                parse_endpoint(endpoint).ok_or_else(|| format!("mirrors.{name}.endpoint: {endpoint:?} is not an http(s) URL"))?;
            }
        }
        Ok(parsed)
    }

    /// Where to look for images of `registry`: its mirrors in order, then the registry itself.
    pub(crate) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mut endpoints: Vec<_> = mirror.iter().flat_map(|m| &m.endpoint).filter_map(|e| parse_endpoint(e)).collect();
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let own = Endpoint { tls: !is_loopback(authority), authority: authority.to_owned(), prefix: String::new() };
        // As containerd: a registry on this machine speaks plain HTTP unless its certificates are configured.
        let own = if self.tls(authority).is_some() { Endpoint { tls: true, ..own } } else { own };
        if !endpoints.iter().any(|e| e.authority == own.authority) {
            endpoints.push(own);
        }
        endpoints
    }

    pub(crate) fn credentials(&self, authority: &str) -> Option<Credentials> {
        let auth = self.configs.get(authority)?.auth.as_ref()?;
        Some(Credentials {
            username: auth.username.clone(),
            password: auth.password.clone(),
            identity_token: auth.identity_token.clone(),
            registry_token: auth.registry_token.clone(),
        })
    }

    pub(crate) fn tls(&self, authority: &str) -> Option<&Tls> {
        self.configs.get(authority)?.tls.as_ref()
    }
}

fn parse_endpoint(url: &str) -> Option<Endpoint> {
    let (scheme, rest) = url.split_once("://")?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let path = path.trim_end_matches('/').trim_end_matches("v2").trim_end_matches('/');
    let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
    Some(Endpoint { tls, authority: authority.to_owned(), prefix })
}

fn is_loopback(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_before_the_registry_itself() {
        let r = Registries::parse("mirrors:\n  docker.io:\n    endpoint: ['http://127.0.0.1:5000/v2']\n").unwrap();
        let names: Vec<_> = r.endpoints("docker.io").into_iter().map(|e| (e.tls, e.authority)).collect();
        assert_eq!(names, [(false, "127.0.0.1:5000".to_owned()), (true, "registry-1.docker.io".to_owned())]);
        assert!(!r.endpoints("localhost:5000")[0].tls);
    }

    #[test]
    fn an_unknown_key_is_named() {
        assert!(Registries::parse("mirror: {}").unwrap_err().contains("mirror"));
        assert!(Registries::parse("mirrors: {a: {endpoint: ['ftp://x']}}").unwrap_err().contains("ftp://x"));
    }
}
