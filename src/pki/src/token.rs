//! Bound ServiceAccount tokens: JSON web tokens (RFC 7519), signed with ES256 (RFC 7518 3.4).
//!
//! Models pkg/serviceaccount/{jwt,claims,openidmetadata}.go. Whether the bound objects still exist is the caller's to ask.
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::authority::AuthorityError;
use crate::files::{self, SECRET};

/// Clocks differ; go-jose's DefaultLeeway.
const LEEWAY_SECONDS: i64 = 60;

/// A token is some kilobytes with many audiences; more is an attack.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// An object that a token names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundReference {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default)]
    pub serviceaccount: BoundReference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    pub exp: i64,
    #[serde(default)]
    pub iat: i64,
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io", default)]
    pub kubernetes: KubernetesClaims,
    #[serde(default)]
    pub nbf: i64,
    #[serde(default)]
    pub sub: String,
}

impl Claims {
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub fn subject(namespace: &str, name: &str) -> String {
        format!("system:serviceaccount:{namespace}:{name}")
    }
}

/// The issuer of tokens that stand in Secrets of type `kubernetes.io/service-account-token`.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What a token in a Secret says: it ends with the Secret or the account, never by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyClaims {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    pub account_uid: String,
    /// Filled in when it is signed, as the subject is.
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

/// Why a token is refused. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not one of ours: another authenticator may know it.
    #[error("not a token of this issuer")]
    Foreign,
    #[error("invalid signature")]
    Signature,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotValidYet,
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
    #[error("sign a token")]
    Signing,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Holds the key that signs.
pub struct ServiceAccountSigner {
    key: EcdsaKeyPair,
    random: SystemRandom,
    public: PublicKey,
    issuer: String,
}

#[derive(Clone)]
struct PublicKey {
    /// 0x04, x, y.
    point: Vec<u8>,
    id: String,
}

impl PublicKey {
    fn new(pair: &KeyPair) -> Self {
        // As upstream: the hash of the SubjectPublicKeyInfo.
        let info = rcgen::PublicKeyData::subject_public_key_info(pair);
        Self { point: pair.public_key_raw().to_vec(), id: URL_SAFE_NO_PAD.encode(digest(&SHA256, &info)) }
    }
}

impl ServiceAccountSigner {
    /// The key in the file `path`, made when it is absent.
    pub fn load_or_create(path: &Path, issuer: &str) -> Result<Self, AuthorityError> {
        let file = |source| AuthorityError::File { path: path.into(), source };
        let invalid = |why: String| AuthorityError::Invalid { path: path.into(), why };
        let pair = match files::read(path).map_err(file)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|e| invalid(e.to_string()))?,
            None => {
                let pair = KeyPair::generate()?;
                files::write_atomically(path, pair.serialize_pem().as_bytes(), SECRET).map_err(file)?;
                pair
            }
        };
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .map_err(|e| invalid(format!("not an ECDSA P-256 key: {e}")))?;
        Ok(Self { key, random, public: PublicKey::new(&pair), issuer: issuer.to_owned() })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs `claims` as they are, but with our issuer and a random `jti` where it is empty.
    pub fn sign(&self, mut claims: Claims) -> Result<String, TokenError> {
        claims.iss.clone_from(&self.issuer);
        if claims.jti.is_empty() {
            claims.jti = random_uuid(&self.random)?;
        }
        self.sign_json(&claims)
    }

    /// A token for a Secret, whose subject and issuer are filled in here.
    pub fn sign_legacy(&self, mut claims: LegacyClaims) -> Result<String, TokenError> {
        claims.iss = LEGACY_ISSUER.to_owned();
        claims.sub = Claims::subject(&claims.namespace, &claims.account);
        self.sign_json(&claims)
    }

    fn sign_json(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let header = Header { alg: "ES256".into(), kid: self.public.id.clone() };
        let part = |json: serde_json::Result<Vec<u8>>| {
            json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| TokenError::Signing)
        };
        let mut token = part(serde_json::to_vec(&header))?;
        token.push('.');
        token.push_str(&part(serde_json::to_vec(claims))?);
        let signature = self.key.sign(&self.random, token.as_bytes()).map_err(|_| TokenError::Signing)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    pub fn verifier(&self) -> ServiceAccountVerifier {
        ServiceAccountVerifier { keys: vec![self.public.clone()], issuer: self.issuer.clone() }
    }

    /// What `/openid/v1/jwks` answers (RFC 7517).
    pub fn jwks(&self) -> Vec<u8> {
        self.verifier().jwks()
    }
}

fn random_uuid(random: &SystemRandom) -> Result<String, TokenError> {
    let mut bytes = [0u8; 16];
    random.fill(&mut bytes).map_err(|_| TokenError::Signing)?;
    bytes[6] = bytes[6] & 0x0f | 0x40; // version 4
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]].map(hex);
    Ok(parts.join("-"))
}

/// Knows the public keys.
#[derive(Clone)]
pub struct ServiceAccountVerifier {
    keys: Vec<PublicKey>,
    issuer: String,
}

impl ServiceAccountVerifier {
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The claims, if one of our keys signed them and now is within their time. Audiences and objects are not looked at.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        let claims = self.signed_by(&self.issuer, token)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Foreign)?;
        let now = seconds(now);
        if now > claims.exp.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) {
            return Err(TokenError::NotValidYet);
        }
        if now < claims.iat.saturating_sub(LEEWAY_SECONDS) {
            return Err(TokenError::IssuedInTheFuture);
        }
        Ok(claims)
    }

    /// The claims of a token from a Secret, if one of our keys signed them. The objects are not looked at.
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyClaims, TokenError> {
        serde_json::from_slice(&self.signed_by(LEGACY_ISSUER, token)?).map_err(|_| TokenError::Foreign)
    }

    /// The claims' JSON, if it names this issuer and one of our keys signed it.
    fn signed_by(&self, issuer: &str, token: &str) -> Result<Vec<u8>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Foreign);
        let claims = decode(payload)?;
        // Only to know whose it is: nothing is believed before the signature.
        let said: Issuer = serde_json::from_slice(&claims).map_err(|_| TokenError::Foreign)?;
        if said.iss != issuer {
            return Err(TokenError::Foreign);
        }
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Foreign)?;
        let signature = decode(signature)?;
        let good = header.alg == "ES256"
            && self.keys.iter().filter(|key| header.kid.is_empty() || key.id == header.kid).any(|key| {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
                    .verify(signed.as_bytes(), &signature)
                    .is_ok()
            });
        if !good {
            return Err(TokenError::Signature);
        }
        Ok(claims)
    }

    pub fn jwks(&self) -> Vec<u8> {
        let keys: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                let (x, y) = key.point[1..].split_at(32);
                serde_json::json!({
                    "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256",
                    "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
                })
            })
            .collect();
        serde_json::json!({ "keys": keys }).to_string().into_bytes()
    }
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

/// What `/.well-known/openid-configuration` answers.
pub fn openid_configuration(issuer: &str, jwks_uri: &str) -> Vec<u8> {
    serde_json::json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
    .to_string()
    .into_bytes()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
