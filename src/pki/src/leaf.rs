//! Certificates of servers and clients: what they say, when they are renewed.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::authority::{Authority, AuthorityError, BACKDATE};
use crate::files::{self, PUBLIC, SECRET};

/// One year, as kubeadm's and k3s'.
const LIFETIME: Duration = Duration::from_secs(365 * 86400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    pub common_name: String,
    /// Kubernetes reads it as the user's group.
    pub organization: Option<String>,
    pub dns_names: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
    pub usage: Usage,
    pub lifetime: Duration,
}

impl LeafRequest {
    fn new(common_name: impl Into<String>, organization: Option<&str>, usage: Usage) -> Self {
        Self {
            common_name: common_name.into(),
            organization: organization.map(Into::into),
            dns_names: BTreeSet::new(),
            addresses: BTreeSet::new(),
            usage,
            lifetime: LIFETIME,
        }
    }

    /// The API server, under every name that reaches it. `names` are host names or addresses (`--tls-san`).
    pub fn api_server(cluster_domain: &str, addresses: &[IpAddr], names: &[String]) -> Self {
        let mut request = Self::new("kube-apiserver", None, Usage::Server);
        let service = "kubernetes.default.svc";
        request.dns_names.extend(["kubernetes", "kubernetes.default", service, "localhost"].map(str::to_owned));
        request.dns_names.insert(format!("{service}.{cluster_domain}"));
        request.addresses.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]);
        request.addresses.extend(addresses);
        for name in names {
            match name.parse() {
                Ok(address) => _ = request.addresses.insert(address),
                Err(_) => _ = request.dns_names.insert(name.clone()),
            }
        }
        request
    }

    /// A node's own HTTPS server.
    pub fn kubelet_server(node: &str, addresses: &[IpAddr]) -> Self {
        let mut request = Self::new(format!("system:node:{node}"), Some("system:nodes"), Usage::Server);
        request.dns_names.extend([node.to_owned(), "localhost".to_owned()]);
        request.addresses.insert(IpAddr::from([127, 0, 0, 1]));
        request.addresses.extend(addresses);
        request
    }

    pub fn client(user: impl Into<String>, group: Option<&str>) -> Self {
        Self::new(user, group, Usage::Client)
    }

    /// May do everything, whatever RBAC says.
    pub fn admin() -> Self {
        Self::client("system:admin", Some("system:masters"))
    }

    pub fn controller_manager() -> Self {
        Self::client("system:kube-controller-manager", None)
    }

    pub fn scheduler() -> Self {
        Self::client("system:kube-scheduler", None)
    }

    pub fn node(node: &str) -> Self {
        Self::client(format!("system:node:{node}"), Some("system:nodes"))
    }

    pub(crate) fn params(&self, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        let names = self.dns_names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        let addresses = self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
        params.subject_alt_names = names.chain(addresses).collect::<Result<_, rcgen::Error>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + self.lifetime);
        Ok(params)
    }

    /// Whether `certificate` says all that is asked for.
    fn is_met_by(&self, certificate: &X509Certificate<'_>) -> bool {
        let subject = certificate.subject();
        let names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
        let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok());
        if names.last() != Some(&self.common_name) || organizations.last() != self.organization.as_deref() {
            return false;
        }
        let (mut dns_names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => _ = dns_names.insert((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        self.dns_names.is_subset(&dns_names) && self.addresses.is_subset(&addresses)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Leaf {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    /// When a third of the life is left: the time to renew.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.checked_sub(life / 3).unwrap_or(self.not_before)
    }

    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at() || now < self.not_before
    }
}

impl Leaf {
    /// `None` when the certificate cannot be read.
    pub fn validity(&self) -> Option<Validity> {
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(validity(&certificate))
    }

    /// `FOLDER/STEM.crt` and `FOLDER/STEM.key`; a new pair when there is none, when it does not say what is asked for,
    /// when another authority signed it, or when it is due. Call it again at [`Validity::renew_at`].
    pub fn load_or_issue(
        folder: &Path,
        stem: &str,
        authority: &Authority,
        request: &LeafRequest,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join(format!("{stem}.crt")), folder.join(format!("{stem}.key")));
        let read =
            |path: &Path| files::read(path).map_err(|source| AuthorityError::File { path: path.into(), source });
        if let (Some(certificate_pem), Some(key_pem)) = (read(&certificate)?, read(&key)?) {
            let leaf = Self { certificate_pem, key_pem };
            if leaf.is_good(authority, request, now) {
                return Ok(leaf);
            }
        }
        let leaf = authority.issue(request, now)?;
        let write = |path: &Path, content: &str, mode| {
            files::write_atomically(path, content.as_bytes(), mode)
                .map_err(|source| AuthorityError::File { path: path.into(), source })
        };
        // A crash in between leaves a pair that does not match: the next call replaces it.
        write(&key, &leaf.key_pem, SECRET)?;
        write(&certificate, &leaf.certificate_pem, PUBLIC)?;
        Ok(leaf)
    }

    fn is_good(&self, authority: &Authority, request: &LeafRequest, now: SystemTime) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()) else { return false };
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
        let Ok((_, issuer)) = x509_parser::parse_x509_certificate(authority.certificate()) else { return false };
        let Ok(key) = KeyPair::from_pem(&self.key_pem) else { return false };
        certificate.verify_signature(Some(issuer.public_key())).is_ok()
            && certificate.public_key().subject_public_key.as_ref() == rcgen::PublicKeyData::der_bytes(&key)
            && request.is_met_by(&certificate)
            && !validity(&certificate).is_due(now)
    }
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
    let validity = certificate.validity();
    Validity { not_before: time(validity.not_before.timestamp()), not_after: time(validity.not_after.timestamp()) }
}
