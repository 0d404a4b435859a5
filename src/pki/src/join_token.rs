//! What another machine is given to join: whom to trust, and how to be trusted for a while.
//!
//! `K1<hex sha256 of the server CA's DER>::<id>.<secret>`. The second half is a bootstrap token as kubeadm makes them
//! (k8s.io/cluster-bootstrap/token/api); the hash lets the newcomer choose the right authority among what an untrusted
//! connection shows (`GET /cacerts`), so it believes nothing that it was not told.
use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::files;

/// The format's name and number.
const PREFIX: &str = "K1";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    #[error("the token does not begin with {PREFIX}: give the whole token that `rk token` printed on the server")]
    Prefix,
    #[error("the token has no `::`: give the whole token that `rk token` printed on the server")]
    Separator,
    #[error("the hash in the token has {0} characters, not 64 of 0-9a-f: it was cut or mistyped")]
    Hash(usize),
    #[error("the token does not end in ID.SECRET, 6 and 16 characters of a-z0-9: it was cut or mistyped")]
    Bootstrap,
    #[error("no random numbers")]
    Random,
    #[error("the server's certificates cannot be read: {0}")]
    Certificates(String),
    /// Somebody else answers, or the cluster was made anew.
    #[error("the server's authority is {found}, the token was made for {wanted}: this is another cluster, or somebody in between")]
    OtherAuthority { wanted: String, found: String },
}

/// A bootstrap token: proves for a while that a newcomer was invited.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

impl BootstrapToken {
    pub fn generate() -> Result<Self, JoinTokenError> {
        let random = SystemRandom::new();
        Ok(Self { id: random_text(&random, ID_CHARS)?, secret: random_text(&random, SECRET_CHARS)? })
    }

    /// Public: it names the token's Secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether `secret` is this token's, in a time that does not depend on where they differ.
    pub fn has_secret(&self, secret: &[u8]) -> bool {
        let own = self.secret.as_bytes();
        own.len() == secret.len() && std::hint::black_box(own.iter().zip(secret).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
    }

    /// The signature of `content` by this token, without the content (RFC 7515 appendix F). Models
    /// k8s.io/cluster-bootstrap/token/jws ComputeDetachedSignature.
    pub fn detached_signature(&self, content: &str) -> String {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        // Neither the algorithm nor an id has anything to escape.
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
    }

    pub fn is_id(text: &str) -> bool {
        is_made_of(text, ID_CHARS)
    }
}

impl FromStr for BootstrapToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let (id, secret) = text.split_once('.').ok_or(JoinTokenError::Bootstrap)?;
        if !is_made_of(id, ID_CHARS) || !is_made_of(secret, SECRET_CHARS) {
            return Err(JoinTokenError::Bootstrap);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

/// As it goes into `Authorization: Bearer`.
impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An invitation to one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    ca_hash: [u8; 32],
    bootstrap: BootstrapToken,
}

impl JoinToken {
    pub fn new(server_ca: &CertificateDer<'_>, bootstrap: BootstrapToken) -> Self {
        Self { ca_hash: hash(server_ca), bootstrap }
    }

    pub fn bootstrap(&self) -> &BootstrapToken {
        &self.bootstrap
    }

    /// The authority that the token was made for, as PEM, among the certificates in `bundle_pem` (what `/cacerts`
    /// answered). Trust it alone.
    pub fn authority(&self, bundle_pem: &str) -> Result<String, JoinTokenError> {
        let mut found = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(bundle_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| JoinTokenError::Certificates(error.to_string()))?;
            let hash = hash(&certificate);
            if hash == self.ca_hash {
                return Ok(files::to_pem("CERTIFICATE", &certificate));
            }
            found.push(hex(&hash));
        }
        if found.is_empty() {
            return Err(JoinTokenError::Certificates("there are none".into()));
        }
        Err(JoinTokenError::OtherAuthority { wanted: hex(&self.ca_hash), found: found.join(", ") })
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(JoinTokenError::Prefix)?;
        let (hash, bootstrap) = rest.split_once("::").ok_or(JoinTokenError::Separator)?;
        let ca_hash = from_hex(hash).ok_or(JoinTokenError::Hash(hash.chars().count()))?;
        Ok(Self { ca_hash, bootstrap: bootstrap.parse()? })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}::{}", hex(&self.ca_hash), self.bootstrap)
    }
}

fn is_made_of(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn random_text(random: &SystemRandom, length: usize) -> Result<String, JoinTokenError> {
    // The last multiple of 36 in a byte: what lies above would favour the first letters.
    const FAIR_BELOW: u8 = 252;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 32];
        random.fill(&mut bytes).map_err(|_| JoinTokenError::Random)?;
        let fair = bytes.into_iter().filter(|byte| *byte < FAIR_BELOW);
        text.extend(fair.take(length - text.len()).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    }
    Ok(text)
}

fn hash(certificate: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::Authority;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let authority = Authority::create("a", SystemTime::now()).unwrap();
        let token = JoinToken::new(authority.certificate(), BootstrapToken::generate().unwrap());
        let text = token.to_string();
        assert_eq!(text.len(), 2 + 64 + 2 + 6 + 1 + 16);
        assert_eq!(format!("  {text}\n").parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(token.bootstrap().secret()), "a secret in a log");
        assert!(token.bootstrap().has_secret(token.bootstrap().secret().as_bytes()));
        assert!(!token.bootstrap().has_secret(b"0123456789abcdef"));
    }

    #[test]
    fn only_the_authority_of_the_token_is_believed() {
        let [mine, other] = ["a", "b"].map(|name| Authority::create(name, SystemTime::now()).unwrap());
        let token = JoinToken::new(mine.certificate(), BootstrapToken::generate().unwrap());
        let both = format!("{}{}", other.certificate_pem(), mine.certificate_pem());
        let chosen = token.authority(&both).unwrap();
        assert_eq!(CertificateDer::from_pem_slice(chosen.as_bytes()).unwrap(), *mine.certificate());
        assert!(matches!(token.authority(other.certificate_pem()), Err(JoinTokenError::OtherAuthority { .. })));
        assert!(matches!(token.authority(""), Err(JoinTokenError::Certificates(_))));
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        use JoinTokenError as E;
        let hash = "0".repeat(64);
        for (text, wanted) in [
            ("abcdef.0123456789abcdef".to_owned(), E::Prefix),
            (format!("K1{hash}:abcdef.0123456789abcdef"), E::Separator),
            ("K1beef::abcdef.0123456789abcdef".into(), E::Hash(4)),
            (format!("K1{}::abcdef.0123456789abcdef", "G".repeat(64)), E::Hash(64)),
            (format!("K1{}::abcdef.0123456789abcdef", "ä".repeat(32)), E::Hash(32)),
            (format!("K1{hash}::abcdef"), E::Bootstrap),
            (format!("K1{hash}::abcdef.0123456789abcde"), E::Bootstrap),
            (format!("K1{hash}::ABCDEF.0123456789abcdef"), E::Bootstrap),
            (format!("K1{hash}::abcdef.0123456789abcdef0"), E::Bootstrap),
        ] {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), wanted, "{text}");
        }
    }
}
