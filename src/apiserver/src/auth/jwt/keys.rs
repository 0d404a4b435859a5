//! An issuer's keys (RFC 7517) and the signatures that they verify (RFC 7518 3).
//!
//! `ring` verifies RSA keys of 2048 to 8192 bits and the curves P-256 and P-384. It knows no P-521: upstream's ES512 is refused, by name.
use api::codec;
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::token::Compact;

/// What tokens may be signed with; upstream's list without ES512.
pub const ALGORITHMS: [&str; 8] = ["ES256", "ES384", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// More keys are no rotation.
const KEYS_MAX: usize = 256;
/// 8192 bits, with a sign.
const NUMBER_BYTES_MAX: usize = 1025;

#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// 0x04, x, y.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl KeySet {
    /// Keys of kinds that verify nothing here are passed over: an issuer may have others for other uses.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let tree = codec::parse_json(bytes).map_err(|error| error.to_string())?.tree;
        let Some(keys) = tree.get("keys").and_then(Tree::as_array) else { return Err("no list of keys".into()) };
        if keys.len() > KEYS_MAX {
            return Err(format!("{} keys, more than {KEYS_MAX}", keys.len()));
        }
        let key = |key: &Tree| Some(Key { id: key.str_at(&["kid"]).to_owned(), material: material(key)? });
        Ok(Self(keys.iter().filter_map(key).collect()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn verifies(&self, token: &Compact) -> bool {
        let named = self.0.iter().filter(|key| token.key_id.is_empty() || key.id == token.key_id);
        named.into_iter().any(|key| key.material.verifies(&token.algorithm, token.signed.as_bytes(), &token.signature))
    }
}

fn material(key: &Tree) -> Option<Material> {
    let number = |field: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(key.str_at(&[field]).trim_end_matches('=')).ok()?;
        (!bytes.is_empty() && bytes.len() <= NUMBER_BYTES_MAX).then_some(bytes)
    };
    let point = |length: usize| {
        let mut point = vec![4];
        for field in ["x", "y"] {
            let bytes = number(field)?;
            // Some leave out leading zeros, against RFC 7518 6.2.1.2.
            point.resize(point.len() + length.checked_sub(bytes.len())?, 0);
            point.extend(bytes);
        }
        Some(point)
    };
    match (key.str_at(&["kty"]), key.str_at(&["crv"])) {
        ("RSA", _) => {
            let n = number("n")?;
            let zeros = n.iter().take_while(|byte| **byte == 0).count();
            Some(Material::Rsa { n: n[zeros..].to_vec(), e: number("e")? })
        }
        ("EC", "P-256") => point(32).map(Material::P256),
        ("EC", "P-384") => point(48).map(Material::P384),
        _ => None,
    }
}

impl Material {
    /// A key is only ever used with algorithms of its own kind, whatever the token would like.
    fn verifies(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Material::P256(point), "ES256") => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok(),
            (Material::P384(point), "ES384") => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature).is_ok(),
            (Material::Rsa { n, e }, algorithm) => {
                let Some(parameters) = rsa(algorithm) else { return false };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
