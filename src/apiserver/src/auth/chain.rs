//! What the client of a connection showed in its handshake, and whom that names: read once, however many requests come.
//!
//! Models k8s.io/apiserver/pkg/authentication/request/x509/x509.go CommonNameUserConversion.
use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustls_pki_types::CertificateDer;

use super::UserInfo;

/// A chain of certificates, leaf first; none where the client showed none.
#[derive(Debug, Default)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    user: OnceLock<Result<Option<UserInfo>, String>>,
}

impl Chain {
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self { certificates, user: OnceLock::new() }
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.certificates.first()
    }

    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The user that the leaf names: common name, organizations as groups. Nothing is checked here but that it can be read.
    pub fn user(&self) -> Result<Option<&UserInfo>, &str> {
        let user = self.user.get_or_init(|| self.leaf().map_or(Ok(None), |leaf| named(leaf)));
        user.as_ref().map(Option::as_ref).map_err(String::as_str)
    }
}

fn named(leaf: &CertificateDer<'static>) -> Result<Option<UserInfo>, String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let subject = certificate.subject();
    let Some(name) = subject.iter_common_name().last().and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty()) else { return Ok(None) };
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    let print = pki::sha256_hex(leaf);
    let credential = ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={print}")]);
    Ok(Some(UserInfo { name: name.to_owned(), uid: String::new(), groups, extra: BTreeMap::from([credential]) }))
}
