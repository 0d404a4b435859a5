//! Certificates by server name, from the TLS secrets that Ingresses name, and one of our own for every other name.
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::RunError;

#[derive(Debug, Default)]
pub struct Certificates {
    names: HashMap<String, Arc<CertifiedKey>>,
    /// By the part behind `*`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// The older Ingress comes first and keeps the name.
    pub fn add(&mut self, host: &str, key: Arc<CertifiedKey>) {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix('*') {
            Some(suffix) => self.wildcards.entry(suffix.to_owned()).or_insert(key),
            None => self.names.entry(host).or_insert(key),
        };
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || name.find('.').and_then(|dot| self.wildcards.get(&name[dot..]));
        self.names.get(&name).or_else(wildcard).cloned()
    }
}

/// The key pair in a `kubernetes.io/tls` secret; the error is for the log.
pub fn certified_key(secret: &Secret) -> Result<CertifiedKey, String> {
    let data = secret.data.as_ref().ok_or("no data")?;
    let part = |name: &str| data.get(name).map(|b| b.0.as_slice()).ok_or_else(|| format!("no {name}"));
    let chain = CertificateDer::pem_slice_iter(part("tls.crt")?).collect::<Result<Vec<_>, _>>().map_err(|e| format!("tls.crt: {e}"))?;
    if chain.is_empty() {
        return Err("tls.crt: no certificate".into());
    }
    let key = PrivateKeyDer::from_pem_slice(part("tls.key")?).map_err(|e| format!("tls.key: {e}"))?;
    let key = CertifiedKey::new(chain, any_supported_type(&key).map_err(|e| format!("tls.key: {e}"))?);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(e) => Err(e.to_string()),
    }
}

#[derive(Debug)]
pub struct Resolver {
    pub current: ArcSwap<Certificates>,
    fallback: Arc<CertifiedKey>,
}

impl Resolver {
    pub fn new() -> Result<Self, RunError> {
        let made = rcgen::generate_simple_self_signed(vec!["ingress.default".to_owned()]).map_err(RunError::Certificate)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("rcgen writes PKCS#8");
        let key = any_supported_type(&key).map_err(RunError::Tls)?;
        let fallback = Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key));
        Ok(Self { current: ArcSwap::default(), fallback })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| self.current.load().find(name));
        Some(found.unwrap_or_else(|| self.fallback.clone()))
    }
}

pub fn server_config(resolver: Arc<Resolver>) -> Result<rustls::ServerConfig, RunError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(RunError::Tls)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
