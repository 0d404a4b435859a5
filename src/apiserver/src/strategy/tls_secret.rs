//! What is odd about a Secret with a certificate and its key.
//!
//! Models pkg/registry/core/secret/strategy.go warningsForSecret, which says what Go's crypto/tls X509KeyPair finds. Keys of kinds that the
//! cryptography here does not know (RSA under 2048 bits, P-521) are not judged.
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pem::{Block, blocks};

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

pub fn warnings(secret: &Tree) -> Vec<String> {
    if secret.str_at(&["type"]) != "kubernetes.io/tls" {
        return Vec::new();
    }
    let part = |name: &str| {
        let bytes = STANDARD.decode(secret.str_at(&["data", name])).unwrap_or_default();
        blocks(&String::from_utf8_lossy(&bytes))
    };
    disagreement(part("tls.crt"), part("tls.key")).into_iter().collect()
}

/// Types of blocks, as Go prints a slice of strings.
fn types(blocks: &[Block]) -> String {
    let labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
    format!("[{}]", labels.join(" "))
}

fn is_key(label: &str) -> bool {
    label == PRIVATE_KEY || label.strip_suffix(PRIVATE_KEY).is_some_and(|kind| kind.ends_with(' '))
}

fn disagreement(certificates: Vec<Block>, keys: Vec<Block>) -> Option<String> {
    let Some(certificate) = certificates.iter().find(|block| block.label == CERTIFICATE) else {
        return Some(match certificates.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [one] if one.label.ends_with(PRIVATE_KEY) => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned()
            }
            others => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: {}",
                types(others)
            ),
        });
    };
    let Some(key) = keys.iter().find(|block| is_key(&block.label)) else {
        return Some(match keys.as_slice() {
            [] => "tls: failed to find any PEM data in key input".to_owned(),
            [one] if one.label == CERTIFICATE => "tls: found a certificate rather than a key in the PEM for the private key".to_owned(),
            others => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: {}",
                types(others)
            ),
        });
    };
    let Ok((_, parsed)) = X509Certificate::from_der(&certificate.bytes) else {
        return Some("x509: malformed certificate".to_owned());
    };
    let Ok(der) = PrivateKeyDer::try_from(key.bytes.as_slice()) else { return Some("tls: failed to parse private key".to_owned()) };
    let own = any_supported_type(&der).ok()?.public_key()?.into_owned();
    let shown = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
    if own == shown {
        return None;
    }
    let is_same_kind = x509_parser::prelude::SubjectPublicKeyInfo::from_der(&own).is_ok_and(|(_, own)| own.algorithm.algorithm == parsed.public_key().algorithm.algorithm);
    let what = if is_same_kind { "tls: private key does not match public key" } else { "tls: private key type does not match public key type" };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(certificate: &str, key: &str) -> Tree {
        let (certificate, key) = (STANDARD.encode(certificate), STANDARD.encode(key));
        let json = format!(r#"{{"type":"kubernetes.io/tls","data":{{"tls.crt":"{certificate}","tls.key":"{key}"}}}}"#);
        Tree::from_json(json.as_bytes()).unwrap()
    }

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_key_that_fits_says_nothing_and_another_does() {
        let (certificate, key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, other) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, edwards) = pair(&rcgen::PKCS_ED25519);
        assert_eq!(warnings(&secret(&certificate, &key)), [""; 0]);
        assert_eq!(warnings(&secret(&certificate, &other)), ["tls: private key does not match public key"]);
        assert_eq!(warnings(&secret(&certificate, &edwards)), ["tls: private key type does not match public key type"]);
    }

    #[test]
    fn what_is_no_pair_is_named() {
        let (certificate, key) = pair(&rcgen::PKCS_ED25519);
        assert_eq!(warnings(&secret("", "")), ["tls: failed to find any PEM data in certificate input"]);
        assert!(warnings(&secret(&key, &certificate))[0].ends_with("PEM inputs may have been switched"));
        assert_eq!(warnings(&secret(&certificate, "x")), ["tls: failed to find any PEM data in key input"]);
        assert_eq!(warnings(&secret(&certificate, &certificate)), ["tls: found a certificate rather than a key in the PEM for the private key"]);
        assert_eq!(warnings(&Tree::object()), [""; 0]);
    }
}
