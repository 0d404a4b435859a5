//! Users that a proxy in front of the API has proven, and names in headers.
//!
//! Models k8s.io/apiserver/pkg/authentication/request/{headerrequest,x509}. The proxy proves itself by a client certificate of an authority of its own:
//! one that users' certificates come from says nothing here, nor the other way round.
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::UserInfo;
use crate::request::decode;

#[derive(Debug, thiserror::Error)]
pub enum RequestHeaderError {
    #[error("read {path}")]
    Read {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("authorities of proxies: {0}")]
    Authorities(String),
    #[error("{0}")]
    Header(String),
}

/// Which certificates are of an authority.
pub struct Signed(Arc<dyn ClientCertVerifier>);

impl Signed {
    pub fn by(authorities: &[CertificateDer<'static>]) -> Result<Self, RequestHeaderError> {
        let wrong = |error: &dyn std::fmt::Display| RequestHeaderError::Authorities(error.to_string());
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone()).map_err(|error| wrong(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| wrong(&error))?;
        Ok(Self(verifier))
    }

    pub fn check(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> Result<(), String> {
        let Some((leaf, between)) = chain.split_first() else { return Err("no certificate".into()) };
        self.0.verify_client_cert(leaf, between, now).map(drop).map_err(|error| error.to_string())
    }
}

/// Names of headers, as flags have them.
#[derive(Clone, Debug, Default)]
pub struct HeaderNames {
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
    /// Common names of proxies; empty: any of the authority's.
    pub allowed: Vec<String>,
}

pub struct RequestHeader {
    pub authorities: Vec<CertificateDer<'static>>,
    signed: Signed,
    names: HeaderNames,
}

impl RequestHeader {
    pub fn load(authorities: &Path, mut names: HeaderNames) -> Result<Self, RequestHeaderError> {
        let bytes = std::fs::read(authorities).map_err(|source| RequestHeaderError::Read { path: authorities.to_owned(), source })?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let authorities = found.map_err(|error| RequestHeaderError::Authorities(error.to_string()))?;
        for name in names.username.iter_mut().chain(&mut names.uid).chain(&mut names.group).chain(&mut names.extra_prefix) {
            let trimmed = name.trim().to_ascii_lowercase();
            if HeaderName::from_bytes(trimmed.as_bytes()).is_err() {
                return Err(RequestHeaderError::Header(format!("empty header {name:?}, or none that HTTP knows")));
            }
            *name = trimmed;
        }
        Ok(Self { signed: Signed::by(&authorities)?, authorities, names })
    }

    /// The user that a proxy speaks for. `Ok(None)`: it names none. The headers are taken off.
    pub fn authenticate(
        &self,
        chain: &[CertificateDer<'static>],
        headers: &mut HeaderMap,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, String> {
        self.signed.check(chain, now)?;
        let proxy = common_name(chain).unwrap_or_default();
        if !self.names.allowed.is_empty() && !self.names.allowed.contains(&proxy) {
            return Err(format!("x509: subject with cn={proxy} is not in the allowed list"));
        }
        let user = self.user(headers);
        if user.is_some() {
            self.clear(headers);
        }
        Ok(user)
    }

    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let first = |names: &[String]| names.iter().filter_map(|name| headers.get(name)).map(text).find(|value| !value.is_empty());
        let mut user =
            UserInfo { name: first(&self.names.username)?, uid: first(&self.names.uid).unwrap_or_default(), ..UserInfo::default() };
        user.groups = self.names.group.iter().flat_map(|name| headers.get_all(name)).map(text).filter(|group| !group.is_empty()).collect();
        for prefix in &self.names.extra_prefix {
            for (name, value) in headers {
                if let Some(key) = name.as_str().strip_prefix(prefix.as_str()) {
                    user.extra.entry(decode(key)).or_default().push(text(value));
                }
            }
        }
        Some(user)
    }

    fn clear(&self, headers: &mut HeaderMap) {
        let names = [&self.names.username, &self.names.uid, &self.names.group].into_iter().flatten();
        let is_extra = |name: &HeaderName| self.names.extra_prefix.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()));
        let extra: Vec<String> = headers.keys().filter(|name| is_extra(name)).map(ToString::to_string).collect();
        for name in names.cloned().chain(extra) {
            headers.remove(name);
        }
    }
}

fn common_name(chain: &[CertificateDer<'static>]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    certificate.subject().iter_common_name().last()?.as_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(authority: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str) -> Vec<CertificateDer<'static>> {
        let mut leaf = rcgen::CertificateParams::default();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        vec![leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), authority).unwrap().der().clone()]
    }

    fn authority(folder: &Path) -> rcgen::Issuer<'static, rcgen::KeyPair> {
        let (key, mut root) = (rcgen::KeyPair::generate().unwrap(), rcgen::CertificateParams::default());
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(folder.join("ca.pem"), root.self_signed(&key).unwrap().pem()).unwrap();
        rcgen::Issuer::new(root, key)
    }

    #[test]
    fn a_proxy_of_the_right_authority_and_name_speaks_for_users() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (own, other) = (authority(folder.path()), authority(elsewhere.path()));
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let names = HeaderNames {
            username: list(&["X-Remote-User", "X-Other"]),
            uid: list(&["X-Remote-Uid"]),
            group: list(&["X-Remote-Group"]),
            extra_prefix: list(&["X-Remote-Extra-"]),
            allowed: list(&["proxy"]),
        };
        let headers = RequestHeader::load(&folder.path().join("ca.pem"), names.clone()).unwrap();
        let with = |list: &[(&'static str, &str)]| -> HeaderMap {
            list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
        };
        let jane = [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-a%2fb", "c"),
            ("accept", "x"),
        ];
        let now = UnixTime::now();
        let mut sent = with(&jane);
        let user = headers.authenticate(&issue(&own, "proxy"), &mut sent, now).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str(), &user.groups[..]), ("jane", "7", &["a".to_owned(), "b".into()][..]));
        assert_eq!(user.extra["a/b"], ["c"]);
        assert_eq!(sent.len(), 1, "nobody further down sees them");
        assert_eq!(headers.authenticate(&issue(&own, "proxy"), &mut with(&[("accept", "x")]), now), Ok(None));
        let refused = headers.authenticate(&issue(&own, "jane"), &mut with(&jane), now);
        assert_eq!(refused, Err("x509: subject with cn=jane is not in the allowed list".into()));
        assert!(headers.authenticate(&issue(&other, "proxy"), &mut with(&jane), now).is_err(), "another authority's");
        assert!(headers.authenticate(&[], &mut with(&jane), now).is_err());
        let empty = HeaderNames { group: list(&[" "]), ..names };
        assert!(RequestHeader::load(&folder.path().join("ca.pem"), empty).is_err());
    }
}
