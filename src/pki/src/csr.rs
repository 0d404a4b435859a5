//! Certificate signing requests of others.
//!
//! `rcgen` refuses a request that has an extension it does not know; so `x509-parser` reads and verifies, `rcgen` signs.
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::authority::{Authority, AuthorityError, BACKDATE};
use crate::leaf::Usage;

#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("{0}")]
    Malformed(String),
    #[error("its signature does not verify with its own key")]
    Signature,
    #[error("{0} organizations in the subject: at most two are supported")]
    Organizations(usize),
    #[error(transparent)]
    Issue(#[from] AuthorityError),
}

/// A request whose signature was verified: its sender has the private key.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<std::net::IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    public_key_info: Vec<u8>,
}

impl SigningRequest {
    pub fn parse(pem: &[u8]) -> Result<Self, CsrError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| CsrError::NotPem)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|e| CsrError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed("trailing bytes".into()));
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let subject = &request.certification_request_info.subject;
        let texts = |attributes: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            attributes.into_iter().filter_map(|a| a.as_str().ok().map(str::to_owned)).collect::<Vec<_>>()
        };
        let mut parsed = Self {
            common_name: texts(subject.iter_common_name().collect()).pop().unwrap_or_default(),
            organizations: texts(subject.iter_organization().collect()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            public_key_info: request.certification_request_info.subject_pki.raw.to_vec(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => parsed.dns_names.push((*name).to_owned()),
                    GeneralName::RFC822Name(name) => parsed.emails.push((*name).to_owned()),
                    GeneralName::URI(name) => parsed.uris.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                        (Ok(v4), _) => parsed.addresses.push(v4.into()),
                        (_, Ok(v6)) => parsed.addresses.push(v6.into()),
                        _ => return Err(CsrError::Malformed("an IP address of a wrong length".into())),
                    },
                    _ => return Err(CsrError::Malformed("a subject alternative name of an unknown type".into())),
                }
            }
        }
        Ok(parsed)
    }
}

impl Authority {
    /// The certificate for `request`, as PEM: its subject, names and key, our usages and lifetime.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        usages: &[Usage],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, CsrError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(request)?;
        params.subject_alt_names = alternative_names(request).map_err(AuthorityError::Issue)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages
            .iter()
            .map(|usage| match usage {
                Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
                Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            })
            .collect();
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + lifetime);
        let key = SubjectPublicKeyInfo::from_der(&request.public_key_info).map_err(AuthorityError::Issue)?;
        Ok(self.sign(params, &key)?.pem())
    }
}

fn subject(request: &SigningRequest) -> Result<DistinguishedName, CsrError> {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value for each type; the same number under its own spelling is a second type.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if request.organizations.len() > types.len() {
        return Err(CsrError::Organizations(request.organizations.len()));
    }
    for (kind, organization) in types.into_iter().zip(&request.organizations) {
        name.push(kind, organization.as_str());
    }
    name.push(DnType::CommonName, request.common_name.as_str());
    Ok(name)
}

fn alternative_names(request: &SigningRequest) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = Vec::new();
    for name in &request.dns_names {
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    for name in &request.emails {
        names.push(SanType::Rfc822Name(name.as_str().try_into()?));
    }
    for name in &request.uris {
        names.push(SanType::URI(name.as_str().try_into()?));
    }
    names.extend(request.addresses.iter().map(|address| SanType::IpAddress(*address)));
    Ok(names)
}
