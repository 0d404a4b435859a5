//! All that one cluster's server needs, in one folder.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::authority::{Authority, AuthorityError};
use crate::leaf::{Leaf, LeafRequest};
use crate::token::ServiceAccountSigner;

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("make the folder {}", path.display())]
    Folder { path: PathBuf, #[source] source: std::io::Error },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The name on the front proxy's certificate, as k3s has it.
pub const FRONT_PROXY: &str = "system:auth-proxy";

/// The authorities, and the certificates under them: files named as k3s names them.
pub struct Cluster {
    folder: PathBuf,
    /// Signs the certificates of servers; clients trust it.
    pub server_ca: Authority,
    /// Signs the certificates of users; the API server trusts it.
    pub client_ca: Authority,
    /// Signs the certificate by which aggregated API servers know the server that speaks for a user.
    pub request_header_ca: Authority,
    pub tokens: Arc<ServiceAccountSigner>,
}

impl Cluster {
    /// `issuer` is the tokens' (`https://kubernetes.default.svc.cluster.local`).
    pub fn load_or_create(folder: &Path, issuer: &str, now: SystemTime) -> Result<Self, ClusterError> {
        make_folder(folder).map_err(|source| ClusterError::Folder { path: folder.into(), source })?;
        Ok(Self {
            folder: folder.into(),
            server_ca: Authority::load_or_create(folder, "server-ca", "rk-server-ca", now)?,
            client_ca: Authority::load_or_create(folder, "client-ca", "rk-client-ca", now)?,
            request_header_ca: Authority::load_or_create(folder, "request-header-ca", "rk-request-header-ca", now)?,
            tokens: Arc::new(ServiceAccountSigner::load_or_create(&folder.join("service.key"), issuer)?),
        })
    }

    /// A server's certificate, kept as `STEM.crt`; renewed when it must be.
    pub fn server(&self, stem: &str, request: &LeafRequest, now: SystemTime) -> Result<Leaf, AuthorityError> {
        Leaf::load_or_issue(&self.folder, stem, &self.server_ca, request, now)
    }

    /// A user's certificate, kept as `STEM.crt`; renewed when it must be.
    pub fn client(&self, stem: &str, request: &LeafRequest, now: SystemTime) -> Result<Leaf, AuthorityError> {
        Leaf::load_or_issue(&self.folder, stem, &self.client_ca, request, now)
    }

    /// What the server shows to aggregated API servers, kept as `client-auth-proxy.crt`; renewed when it must be.
    pub fn front_proxy(&self, now: SystemTime) -> Result<Leaf, AuthorityError> {
        let request = LeafRequest::client(FRONT_PROXY, None);
        Leaf::load_or_issue(&self.folder, "client-auth-proxy", &self.request_header_ca, &request, now)
    }
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests;
