//! Certificate signing requests of others.
//!
//! `rcgen` refuses a request that has an extension it does not know; so `x509-parser` reads and verifies, `rcgen` makes the
//! certificate, and the request's subject is put into it as it came.
//!
//! Models pkg/controller/certificates/authority/{authority,policies}.go.
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SubjectPublicKeyInfo};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::authority::{Authority, AuthorityError, BACKDATE};
use crate::{der, files, leaf};

#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("{0}")]
    Malformed(String),
    #[error("its signature does not verify with its own key")]
    Signature,
    #[error("unrecognized usage values: {0:?}")]
    Usages(Vec<String>),
    #[error("the signer has expired")]
    Expired,
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
    /// The subject as it came.
    subject: Vec<u8>,
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
        // One that cannot be read must not be overlooked: the certificate will have it.
        let texts = |attributes: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            let texts = attributes.into_iter().map(|a| a.as_str().map(str::to_owned));
            texts.collect::<Result<Vec<_>, _>>().map_err(|_| CsrError::Malformed("a name in an unknown encoding".into()))
        };
        let mut parsed = Self {
            common_name: texts(subject.iter_common_name().collect())?.pop().unwrap_or_default(),
            organizations: texts(subject.iter_organization().collect())?,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            public_key_info: request.certification_request_info.subject_pki.raw.to_vec(),
            subject: subject.as_raw().to_vec(),
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

    /// What tells keys apart: the SHA-256 of the SubjectPublicKeyInfo, in hex.
    pub fn key_fingerprint(&self) -> String {
        sha256_hex(&self.public_key_info)
    }
}

/// The same of a certificate's key.
pub fn key_fingerprint(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(sha256_hex(certificate.public_key().raw))
}

/// The name of a request's node, if it asks for a node's client certificate and nothing else.
/// Models pkg/apis/certificates/helpers.go ValidateKubeletClientCSR; the error is upstream's.
pub fn node_client(request: &SigningRequest, usages: &[impl AsRef<str>]) -> Result<String, String> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    for (has, what) in [
        (!request.dns_names.is_empty(), "DNS"),
        (!request.emails.is_empty(), "Email"),
        (!request.addresses.is_empty(), "IP"),
        (!request.uris.is_empty(), "URI"),
    ] {
        if has {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    let Some(node) = request.common_name.strip_prefix(NODE_PREFIX) else {
        return Err("subject common name does not begin with system:node:".into());
    };
    if !is_set(usages, &["client auth", "digital signature", "key encipherment"]) && !is_set(usages, &["client auth", "digital signature"]) {
        return Err("usages did not match [client auth digital signature key encipherment]".into());
    }
    Ok(node.to_owned())
}

/// Models ValidateKubeletServingCSR.
pub fn check_node_serving(request: &SigningRequest, usages: &[impl AsRef<str>]) -> Result<(), String> {
    let error = if request.organizations != ["system:nodes"] {
        "subject organization is not system:nodes"
    } else if request.dns_names.is_empty() && request.addresses.is_empty() {
        "DNS or IP subjectAltName is required"
    } else if !request.emails.is_empty() {
        "Email subjectAltNames are not allowed"
    } else if !request.uris.is_empty() {
        "URI subjectAltNames are not allowed"
    } else if !is_set(usages, &["digital signature", "key encipherment", "server auth"]) && !is_set(usages, &["digital signature", "server auth"])
    {
        "usages did not match [digital signature key encipherment server auth]"
    } else if !request.common_name.starts_with(NODE_PREFIX) {
        "subject common name does not begin with system:node:"
    } else {
        return Ok(());
    };
    Err(error.into())
}

const NODE_PREFIX: &str = "system:node:";

fn is_set(usages: &[impl AsRef<str>], wanted: &[&str]) -> bool {
    wanted.iter().all(|usage| usages.iter().any(|u| u.as_ref() == *usage)) && usages.iter().all(|usage| wanted.contains(&usage.as_ref()))
}

/// The hash, in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Below this a lifetime counts from now; above, the five minutes before now are part of it.
const SHORT: Duration = Duration::from_secs(8 * 3600);

impl Authority {
    /// The certificate for `request`, as PEM: its subject, names and key, with `usages` as Kubernetes calls them.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        usages: &[impl AsRef<str>],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, CsrError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = alternative_names(request).map_err(AuthorityError::Issue)?;
        (params.key_usages, params.extended_key_usages) = purposes(usages)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(self.end_of(lifetime, now)?);
        let key = SubjectPublicKeyInfo::from_der(&request.public_key_info).map_err(AuthorityError::Issue)?;
        let certificate = self.sign(params, &key)?;
        let parts = with_subject(certificate.der(), &request.subject).ok_or_else(|| CsrError::Malformed("the subject".into()))?;
        let signature = self.sign_bytes(&parts.signed)?;
        let signature = der::wrap(der::BIT_STRING, &[&[0], &signature]);
        Ok(files::to_pem("CERTIFICATE", &der::wrap(der::SEQUENCE, &[&parts.signed, &parts.algorithm, &signature])))
    }

    fn end_of(&self, lifetime: Duration, now: SystemTime) -> Result<SystemTime, CsrError> {
        let (_, own) = x509_parser::parse_x509_certificate(self.certificate()).map_err(|e| CsrError::Malformed(e.to_string()))?;
        let last = leaf::validity(&own).not_after;
        let end = if lifetime < SHORT { now + lifetime } else { now + lifetime - BACKDATE };
        if now >= last { Err(CsrError::Expired) } else { Ok(end.min(last)) }
    }
}

/// What an authority signs, and how.
struct Parts {
    signed: Vec<u8>,
    algorithm: Vec<u8>,
}

/// The signed part of `certificate` with `subject` for its own. RFC 5280 4.1: version, serial number, algorithm, issuer,
/// validity, subject, and so on.
fn with_subject(certificate: &[u8], subject: &[u8]) -> Option<Parts> {
    let (signed, rest) = der::first(der::content(certificate)?)?;
    let (algorithm, _) = der::first(rest)?;
    let all = der::content(signed)?;
    let mut rest = all;
    for _ in 0..5 {
        (_, rest) = der::first(rest)?;
    }
    let before = &all[..all.len() - rest.len()];
    let (_, after) = der::first(rest)?;
    Some(Parts { signed: der::wrap(der::SEQUENCE, &[before, subject, after]), algorithm: algorithm.to_vec() })
}

/// Models policies.go keyUsagesFromStrings.
fn purposes(usages: &[impl AsRef<str>]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), CsrError> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Basic;
    let mut basic = Vec::new();
    let mut extended = Vec::new();
    let mut unknown = Vec::new();
    let other = |last: &[u64]| Extended::Other([&[1, 3, 6, 1], last].concat());
    for usage in usages {
        match usage.as_ref() {
            "signing" | "digital signature" => basic.push(Basic::DigitalSignature),
            "content commitment" => basic.push(Basic::ContentCommitment),
            "key encipherment" => basic.push(Basic::KeyEncipherment),
            "key agreement" => basic.push(Basic::KeyAgreement),
            "data encipherment" => basic.push(Basic::DataEncipherment),
            "cert sign" => basic.push(Basic::KeyCertSign),
            "crl sign" => basic.push(Basic::CrlSign),
            "encipher only" => basic.push(Basic::EncipherOnly),
            "decipher only" => basic.push(Basic::DecipherOnly),
            "any" => extended.push(Extended::Any),
            "server auth" => extended.push(Extended::ServerAuth),
            "client auth" => extended.push(Extended::ClientAuth),
            "code signing" => extended.push(Extended::CodeSigning),
            "email protection" | "s/mime" => extended.push(Extended::EmailProtection),
            "ipsec end system" => extended.push(other(&[5, 5, 7, 3, 5])),
            "ipsec tunnel" => extended.push(other(&[5, 5, 7, 3, 6])),
            "ipsec user" => extended.push(other(&[5, 5, 7, 3, 7])),
            "timestamping" => extended.push(Extended::TimeStamping),
            "ocsp signing" => extended.push(Extended::OcspSigning),
            "microsoft sgc" => extended.push(other(&[4, 1, 311, 10, 3, 3])),
            "netscape sgc" => extended.push(Extended::Other(vec![2, 16, 840, 1, 113_730, 4, 1])),
            usage => unknown.push(usage.to_owned()),
        }
    }
    if !unknown.is_empty() {
        return Err(CsrError::Usages(unknown));
    }
    let mut once = Vec::new();
    for usage in extended {
        if !once.contains(&usage) {
            once.push(usage);
        }
    }
    Ok((basic, once))
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
