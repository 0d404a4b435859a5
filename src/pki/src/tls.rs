//! TLS configurations for both sides, with certificates that can be replaced while running.
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::leaf::Leaf;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("certificate or key: {0}")]
    Pem(String),
    #[error("TLS configuration")]
    Rustls(#[from] rustls::Error),
    #[error("verifier of client certificates")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Makes ring the process's cryptography. Call it first; a second call does nothing.
pub fn install_ring() {
    // An error means that it is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn ring() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// The certificate that one side shows. New connections use the newest.
#[derive(Debug)]
pub struct Identity {
    current: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    pub fn new(leaf: &Leaf) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { current: RwLock::new(certified(leaf)?) }))
    }

    /// Renewal in place: open connections go on, new ones see `leaf`.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), TlsError> {
        let new = certified(leaf)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(leaf: &Leaf) -> Result<Arc<CertifiedKey>, TlsError> {
    let pem = |error: rustls_pki_types::pem::Error| TlsError::Pem(error.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(leaf.certificate_pem.as_bytes()).collect::<Result<_, _>>().map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).map_err(pem)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &ring())?))
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| TlsError::Pem(error.to_string()))?)?;
    }
    Ok(roots)
}

/// A server for HTTP/2 and 1.1. It asks clients for a certificate of `client_ca_pem` and takes those without one, too.
pub fn server_config(identity: Arc<Identity>, client_ca_pem: Option<&str>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(ring()).with_safe_default_protocol_versions()?;
    let builder = match client_ca_pem {
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), ring());
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that trusts `server_ca_pem` only. ALPN is left to the HTTP library.
pub fn client_config(server_ca_pem: &str, identity: Option<Arc<Identity>>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(ring()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(server_ca_pem)?);
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    })
}

/// A client that believes everybody: to ask for what is proved in another way (`pki::JoinToken`), where nobody could prove it
/// (a proxied pod), or where somebody said that no proof is needed.
pub fn unproven_client_config(identity: Option<Arc<Identity>>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(ring()).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(ring())));
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    })
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
