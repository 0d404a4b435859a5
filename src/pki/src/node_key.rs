//! A node's own key, which never leaves it, and requests for certificates on it.
use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use crate::authority::AuthorityError;
use crate::files::{self, SECRET};

/// It stays the same when its certificate is renewed: the name of a node belongs to its key, and a new one that got lost between two
/// steps would lock the node out.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// Made where there is none, with mode 0600.
    pub fn load_or_create(path: &Path) -> Result<Self, AuthorityError> {
        let file = |source| AuthorityError::File { path: path.into(), source };
        if let Some(pem) = files::read(path).map_err(file)? {
            let key = KeyPair::from_pem(&pem).map_err(|e| AuthorityError::Invalid { path: path.into(), why: e.to_string() })?;
            return Ok(Self(key));
        }
        let key = KeyPair::generate()?;
        files::write_atomically(path, key.serialize_pem().as_bytes(), SECRET).map_err(file)?;
        Ok(Self(key))
    }

    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A signing request, as PEM, for the client certificate of `node` (signer kubernetes.io/kube-apiserver-client-kubelet).
    pub fn request(&self, node: &str) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        Ok(params.serialize_request(&self.0)?.pem()?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::csr::SigningRequest;

    #[test]
    fn a_key_is_kept_and_its_request_says_which_node_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        let key = NodeKey::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(NodeKey::load_or_create(&path).unwrap().pem(), key.pem());
        let request = SigningRequest::parse(key.request("a").unwrap().as_bytes()).unwrap();
        assert_eq!((request.common_name.as_str(), &request.organizations[..]), ("system:node:a", &["system:nodes".to_owned()][..]));
        assert!(request.dns_names.is_empty() && request.addresses.is_empty());
    }
}
