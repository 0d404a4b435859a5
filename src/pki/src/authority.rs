//! A certificate authority: one self-signed certificate and its key.
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SerialNumber, SigningKey,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;

use crate::files::{self, PUBLIC, SECRET};
use crate::leaf::{Leaf, LeafRequest};

/// Ten years.
const LIFETIME: Duration = Duration::from_secs(3650 * 86400);

/// Certificates are valid from a little earlier: clocks differ. As kube-controller-manager's signer.
pub(crate) const BACKDATE: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{}", path.display())]
    File { path: PathBuf, #[source] source: std::io::Error },
    /// Half of the pair: making a new authority would cut off everything that trusts the old one.
    #[error("{} is there and {} is not", found.display(), missing.display())]
    Incomplete { found: PathBuf, missing: PathBuf },
    #[error("{}: {why}", path.display())]
    Invalid { path: PathBuf, why: String },
    #[error("make a certificate")]
    Issue(#[from] rcgen::Error),
    #[error("no random numbers")]
    Random,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn create(common_name: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + LIFETIME);
        params.serial_number = Some(serial()?);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.into(), source })
        };
        let invalid =
            |path: &Path, error: &dyn std::fmt::Display| AuthorityError::Invalid { path: path.into(), why: error.to_string() };
        let certificate_pem = read(certificate)?;
        let pair = KeyPair::from_pem(&read(key)?).map_err(|e| invalid(key, &e))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| invalid(certificate, &e))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| invalid(certificate, &e))?;
        if !parsed.is_ca() {
            return Err(invalid(certificate, &"it is not a certificate authority"));
        }
        if parsed.public_key().subject_public_key.as_ref() != pair.der_bytes() {
            return Err(invalid(key, &"it does not belong to the certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|e| invalid(certificate, &e))?;
        Ok(Self { issuer, certificate_pem, certificate: der })
    }

    /// `FOLDER/STEM.crt` and `FOLDER/STEM.key`.
    pub fn load_or_create(
        folder: &Path,
        stem: &str,
        common_name: &str,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join(format!("{stem}.crt")), folder.join(format!("{stem}.key")));
        match (certificate.exists(), key.exists()) {
            (true, true) => Self::load(&certificate, &key),
            // The certificate is written last: a lone key is a creation that was interrupted.
            (false, _) => {
                let authority = Self::create(common_name, now)?;
                let write = |path: &Path, content: &str, mode| {
                    files::write_atomically(path, content.as_bytes(), mode)
                        .map_err(|source| AuthorityError::File { path: path.into(), source })
                };
                write(&key, &authority.issuer.key().serialize_pem(), SECRET)?;
                write(&certificate, &authority.certificate_pem, PUBLIC)?;
                Ok(authority)
            }
            (true, false) => Err(AuthorityError::Incomplete { found: certificate, missing: key }),
        }
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate with a new key.
    pub fn issue(&self, request: &LeafRequest, now: SystemTime) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = self.sign(request.params(now)?, &key)?;
        Ok(Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    pub(crate) fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, AuthorityError> {
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(public_key, &self.issuer)?)
    }

    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.issuer.key().sign(bytes)?)
    }
}

/// 127 random bits: positive, and unique without a counter.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
