//! An issuer: keys, tokens, and the HTTPS server that publishes them.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Response;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use serde_json::{Value, json};

use super::NOW;
use crate::auth::config::AuthenticationConfiguration;
use crate::tests::https::Https;

pub struct Provider {
    pub url: String,
    pub authority: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    url: OnceLock<String>,
    keys: Mutex<String>,
    /// Path, bearer token, body.
    other: Mutex<Option<(String, String, String)>>,
    fetches: AtomicUsize,
}

impl Provider {
    pub async fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let state = shared.clone();
        let https = Https::start("localhost", move |request| {
            let state = state.clone();
            async move {
                let url = state.url.get().cloned().unwrap_or_default();
                let other = state.other.lock().unwrap().clone();
                let shown = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
                let answer = |code: u16, body: String| Response::builder().status(code).body(Body::from(body)).unwrap();
                match (request.uri().path(), other) {
                    ("/.well-known/openid-configuration", _) => {
                        answer(200, json!({"issuer": url, "jwks_uri": format!("{url}/moved")}).to_string())
                    }
                    ("/moved", _) => Response::builder().status(302).header("location", "/keys").body(Body::empty()).unwrap(),
                    ("/keys", _) => {
                        state.fetches.fetch_add(1, Ordering::SeqCst);
                        answer(200, state.keys.lock().unwrap().clone())
                    }
                    (path, Some((known, bearer, body))) if path == known => match shown == format!("Bearer {bearer}") {
                        true => answer(200, body),
                        false => answer(401, String::new()),
                    },
                    _ => answer(404, String::new()),
                }
            }
        })
        .await;
        let url = format!("https://localhost:{}", https.port);
        shared.url.set(url.clone()).unwrap();
        let authority = String::from_utf8(STANDARD.decode(&https.bundle).unwrap()).unwrap();
        Self { url, authority, shared }
    }

    /// Believes tokens for `me`; `rest` is what else stands in the entry.
    pub fn text(&self, rest: &str) -> String {
        let authority: String = self.authority.lines().map(|line| format!("      {line}\n")).collect();
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    audiences: [me]\n    certificateAuthority: |\n{authority}{rest}",
            self.url
        )
    }

    pub fn configuration(&self, rest: &str) -> AuthenticationConfiguration {
        AuthenticationConfiguration::parse(&self.text(rest)).unwrap()
    }

    pub fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.public()).collect();
        // Keys that mean nothing here do no harm.
        let others = [json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), json!({"kty": "oct", "k": "AA", "kid": "k"}), json!(7)];
        self.answer_keys_with(&json!({"keys": keys.into_iter().chain(others).collect::<Vec<_>>()}).to_string());
    }

    pub fn answer_keys_with(&self, text: &str) {
        *self.shared.keys.lock().unwrap() = text.to_owned();
    }

    pub fn serve(&self, path: &str, bearer: &str, body: String) {
        *self.shared.other.lock().unwrap() = Some((path.into(), bearer.into(), body));
    }

    pub fn key_fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }
}

/// For `me`, good for an hour of the tests' own time.
pub fn claims(issuer: &str, more: Value) -> Value {
    let mut claims = json!({"iss": issuer, "aud": "me", "exp": NOW + 3600, "iat": NOW});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

pub fn compact(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

pub struct Signer {
    pub id: String,
    key: Key,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec256(EcdsaKeyPair),
    Ec384(EcdsaKeyPair),
}

impl Signer {
    pub fn all() -> [Self; 3] {
        [Self::rsa(0), Self::ec256(), Self::ec384()]
    }

    pub fn rsa(which: usize) -> Self {
        // PKCS#8, made by openssl genpkey and openssl pkcs8: ring makes none.
        let bytes: [&[u8]; 2] = [include_bytes!("../keys_of_tests/one.pk8"), include_bytes!("../keys_of_tests/two.pk8")];
        Self { id: format!("rsa-{which}"), key: Key::Rsa(Box::new(RsaKeyPair::from_pkcs8(bytes[which]).unwrap())) }
    }

    pub fn ec256() -> Self {
        let key = ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        Self { id: id_of(&key), key: Key::Ec256(key) }
    }

    pub fn ec384() -> Self {
        let key = ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING);
        Self { id: id_of(&key), key: Key::Ec384(key) }
    }

    pub fn algorithms(&self) -> &'static [&'static str] {
        match self.key {
            Key::Rsa(_) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            Key::Ec256(_) => &["ES256"],
            Key::Ec384(_) => &["ES384"],
        }
    }

    fn public(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
            json!({"kty": "EC", "crv": curve, "kid": self.id, "x": text(x), "y": text(y)})
        };
        match &self.key {
            Key::Rsa(key) => {
                let public: signature::RsaPublicKeyComponents<Vec<u8>> = key.public().into();
                json!({"kty": "RSA", "kid": self.id, "n": text(&public.n), "e": text(&public.e)})
            }
            Key::Ec256(key) => point(key, "P-256"),
            Key::Ec384(key) => point(key, "P-384"),
        }
    }

    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_named(algorithm, claims, &self.id)
    }

    pub fn token_named(&self, algorithm: &str, claims: &Value, id: &str) -> String {
        self.signed(algorithm, &json!({"alg": algorithm, "kid": id}), claims)
    }

    /// Signed with one algorithm, said to be signed with another.
    pub fn token_as(&self, algorithm: &str, said: &str, claims: &Value) -> String {
        self.signed(algorithm, &json!({"alg": said, "kid": self.id}), claims)
    }

    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.signed("RS256", header, claims)
    }

    /// The oldest trick: HMAC with what everybody may read.
    pub fn with_public_key_as_secret(&self, claims: &Value) -> String {
        let Key::Rsa(key) = &self.key else { panic!("an RSA key") };
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.public().as_ref());
        let header = json!({"alg": "HS256", "kid": self.id});
        let tag = ring::hmac::sign(&secret, format!("{}.{}", part(&header), part(claims)).as_bytes());
        compact(&header, claims, tag.as_ref())
    }

    fn signed(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Ec256(key) | Key::Ec384(key) => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Key::Rsa(key) => {
                let padding: &'static dyn signature::RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut bytes = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, signed.as_bytes(), &mut bytes).unwrap();
                bytes
            }
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn ec(algorithm: &'static signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

fn id_of(key: &EcdsaKeyPair) -> String {
    URL_SAFE_NO_PAD.encode(&key.public_key().as_ref()[1..9])
}
