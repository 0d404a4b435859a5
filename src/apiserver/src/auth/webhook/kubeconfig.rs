//! The server that a kubeconfig describes, and how this one proves who it is.
//!
//! Models k8s.io/apiserver/pkg/util/webhook LoadKubeconfig. Paths in the file are relative to it. Programs that make credentials are refused: none is
//! ever started here.
use std::path::{Path, PathBuf};

use api::codec;
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::outbound;
use crate::outbound::call::{CallError, Headers, Line};

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("kubeconfig {path}: {detail}")]
    Invalid { path: PathBuf, detail: String },
}

#[derive(Debug)]
pub struct Endpoint {
    pub url: String,
    pub(super) line: Line,
    secret: Secret,
    server_name: Option<String>,
}

enum Secret {
    None,
    Header(String),
    /// Read at every request: who renews the token replaces the file.
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Endpoint {
    pub fn load(path: &Path) -> Result<Self, KubeconfigError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source });
        let invalid = |detail: String| KubeconfigError::Invalid { path: path.to_owned(), detail };
        let tree = codec::parse_yaml(&read(path)?).map_err(|error| invalid(error.to_string()))?.tree;
        let named = |list: &str, name: &str, field: &str| {
            let entry = tree.array_at(&[list]).iter().find(|entry| entry.str_at(&["name"]) == name);
            entry.and_then(|entry| entry.get(field)).cloned()
        };
        let current = tree.str_at(&["current-context"]);
        let context = named("contexts", current, "context");
        let context = context.ok_or_else(|| invalid(format!("invalid configuration: context {current:?} does not exist")))?;
        let cluster = context.str_at(&["cluster"]);
        let cluster = named("clusters", cluster, "cluster")
            .ok_or_else(|| invalid(format!("invalid configuration: cluster {cluster:?} does not exist")))?;
        let user = named("users", context.str_at(&["user"]), "user").unwrap_or_default();
        for field in ["exec", "auth-provider", "username"] {
            if user.get(field).is_some_and(|value| !value.is_null()) {
                return Err(invalid(format!("users[].user.{field} is not supported")));
            }
        }
        if cluster.get("insecure-skip-tls-verify").and_then(Tree::as_bool) == Some(true) || !cluster.str_at(&["proxy-url"]).is_empty() {
            return Err(invalid("insecure-skip-tls-verify and proxy-url are not supported".into()));
        }
        let url = cluster.str_at(&["server"]).to_owned();
        let parsed: Option<http::Uri> = url.parse().ok();
        if parsed.is_none_or(|uri| uri.scheme_str() != Some("https") || uri.host().is_none()) {
            return Err(invalid(format!("server {url:?} is no https URL")));
        }
        // Of a file, or in place.
        let bytes = |of: &Tree, file: &str, data: &str| match (of.str_at(&[data]), of.str_at(&[file])) {
            ("", "") => Ok(None),
            ("", file) => read(&path.parent().unwrap_or(Path::new("")).join(file)).map(Some),
            (data, _) => STANDARD.decode(data).map(Some).map_err(|error| invalid(format!("illegal base64 data: {error}"))),
        };
        let authority = bytes(&cluster, "certificate-authority", "certificate-authority-data")?.unwrap_or_default();
        let certificate = bytes(&user, "client-certificate", "client-certificate-data")?;
        let key = bytes(&user, "client-key", "client-key-data")?;
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| invalid(error.to_string()));
                let leaf = pki::Leaf { certificate_pem: text(certificate)?, key_pem: text(key)? };
                Some(pki::Identity::new(&leaf).map_err(|error| invalid(format!("client certificate: {error}")))?)
            }
            _ => return Err(invalid("client-certificate and client-key go together".into())),
        };
        let tls = outbound::trusting(&authority, identity).map_err(invalid)?;
        let secret = match (user.str_at(&["token"]), user.str_at(&["tokenFile"])) {
            (_, file) if !file.is_empty() => Secret::File(path.parent().unwrap_or(Path::new("")).join(file)),
            ("", _) => Secret::None,
            (token, _) => Secret::Header(format!("Bearer {token}")),
        };
        let server_name = Some(cluster.str_at(&["tls-server-name"])).filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Self { url, line: Line::new(tls), secret, server_name })
    }

    pub(super) fn authorization(&self) -> Result<Headers, CallError> {
        let authorization = match &self.secret {
            Secret::None => None,
            Secret::Header(header) => Some(header.clone()),
            Secret::File(path) => match std::fs::read_to_string(path) {
                Ok(token) => Some(format!("Bearer {}", token.trim())),
                Err(error) => {
                    let text = format!("failed to read token file {:?}: {error}", path.display().to_string());
                    return Err(CallError { text, code: 0, may_pass: false, timed_out: false });
                }
            },
        };
        Ok(Headers { authorization, server_name: self.server_name.clone() })
    }
}
