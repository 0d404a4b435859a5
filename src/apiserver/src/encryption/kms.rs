//! Values encrypted under keys that a KMS plugin holds (version 2 of its protocol).
//!
//! Models k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2 and, for the state and its health, pkg/server/options/encryptionconfig. A
//! random seed is encrypted by the plugin once, and again when the plugin's key is another; each value has a key of its own, derived from the
//! seed. Seeds that were opened are kept, so the plugin is asked once for each. Without it values can be read whose seed is known, and written for
//! three minutes more.
mod message;
mod service;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::names;
use arc_swap::ArcSwapOption;
use prost::Message as _;
use ring::hkdf;

use super::cipher::{CipherError, Gcm, random};
use message::{DecryptRequest, EncryptedObject, SourceType, StatusResponse};
use service::Service;

pub const PREFIX: &str = "k8s:enc:kms:v2:";
/// Of a call, unless the configuration says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(3);
const SEED_BYTES: usize = 32;
/// The part of a value from which, with the seed, its key is derived.
const INFO_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES_MAX: usize = 1024;
const SOURCE_BYTES_MAX: usize = 1024;
const ANNOTATIONS_BYTES_MAX: usize = 32 * 1024;
/// So long a seed is written with after the plugin was last heard of.
const WRITABLE: Duration = Duration::from_secs(180);
/// So long a source that could not be opened is not asked about again.
const FAILURE_HELD: Duration = Duration::from_secs(3);
/// Sources that are remembered; there is one for each key and start of a server.
const KNOWN_MAX: usize = 10_000;

/// What the plugin keeps secret.
enum Secret {
    Seed(hkdf::Prk),
    Key(Box<Gcm>),
}

/// What is written with.
struct State {
    secret: Arc<Secret>,
    /// Without data.
    object: EncryptedObject,
    until: Instant,
}

enum Known {
    Open(Arc<Secret>),
    Failed(Instant, Arc<str>),
}

/// One provider.
pub struct Envelope {
    name: String,
    service: Service,
    state: ArcSwapOption<State>,
    /// By source, as [`source_of`] names it.
    known: Mutex<HashMap<Vec<u8>, Known>>,
    /// Of the protocol, as the plugin said first.
    version: Mutex<Option<String>>,
    health: Mutex<Result<(), Arc<str>>>,
}

fn failed(why: impl Into<Arc<str>>) -> CipherError {
    CipherError::Kms(why.into())
}

impl Envelope {
    pub fn new(name: &str, address: &str, timeout: Duration) -> std::io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            service: Service::new(name, address, timeout)?,
            state: ArcSwapOption::empty(),
            known: Mutex::default(),
            version: Mutex::default(),
            health: Mutex::new(Err("it was not asked yet".into())),
        })
    }

    pub fn health(&self) -> Result<(), String> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.clone().map_err(|why| format!("kms provider {}: {why}", self.name))
    }

    /// Asks the plugin how it is; whether values are to be written with another key from now on.
    pub async fn probe(&self) -> bool {
        let before = self.state.load().as_ref().map(|state| state.object.key_id.clone());
        let result = match self.service.status().await {
            Ok(status) => self.take(status).await,
            Err(why) => Err(format!("failed to perform status section of the healthz check: {why}")),
        };
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*health, &result) {
            (_, Err(why)) if health.as_ref().err().is_none_or(|said| **said != **why) => {
                tracing::warn!(provider = self.name, %why, "a kms provider is not healthy");
            }
            (Err(_), Ok(())) => tracing::info!(provider = self.name, "a kms provider is healthy"),
            _ => {}
        }
        let is_well = result.is_ok();
        *health = result.map_err(Arc::from);
        drop(health);
        if is_well {
            self.known().retain(|_, known| matches!(known, Known::Open(_)));
        }
        let after = self.state.load().as_ref().map(|state| state.object.key_id.clone());
        after != before
    }

    async fn take(&self, status: StatusResponse) -> Result<(), String> {
        if status.healthz != "ok" {
            return Err(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !["v2", "v2beta1"].contains(&status.version.as_str()) {
            return Err(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        {
            let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
            let first = version.get_or_insert_with(|| status.version.clone());
            if *first != status.version {
                let now = &status.version;
                return Err(format!("KMSv2 API version should not change after the initial status response version {first}, got {now}"));
            }
        }
        check_key_id(&status.key_id)?;
        self.renew(&status.key_id).await
    }

    /// Keeps the seed while the plugin's key is the same; otherwise takes another one.
    async fn renew(&self, key_id: &str) -> Result<(), String> {
        // From before the call: it bounds what is written with a key that is none any more.
        let until = Instant::now() + WRITABLE;
        if let Some(state) = self.state.load_full().filter(|state| state.object.key_id == key_id) {
            let (secret, object) = (state.secret.clone(), state.object.clone());
            self.state.store(Some(Arc::new(State { secret, object, until })));
            return Ok(());
        }
        let seed: [u8; SEED_BYTES] = random().map_err(|error| error.to_string())?;
        let sealed = self.service.encrypt(seed.to_vec()).await.map_err(|why| format!("failed to encrypt DEK, error: {why}"))?;
        let object = EncryptedObject {
            data: Vec::new(),
            key_id: sealed.key_id,
            source: sealed.ciphertext,
            annotations: sealed.annotations,
            source_type: SourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        check(&object)?;
        if object.key_id != key_id {
            return Err(format!("it says that its key is {key_id:?}, and encrypts with {:?}", object.key_id));
        }
        let secret = Arc::new(Secret::Seed(prk(&seed)));
        self.known().insert(source_of(&object), Known::Open(secret.clone()));
        tracing::info!(provider = self.name, key_id, "values are encrypted with a new seed");
        self.state.store(Some(Arc::new(State { secret, object, until })));
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn seal(&self, text: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        let Some(state) = self.state.load_full() else {
            return Err(failed(format!("kms provider {} has given no key yet", self.name)));
        };
        if Instant::now() > state.until {
            return Err(failed(format!("kms provider {} was not heard of for {} s", self.name, WRITABLE.as_secs())));
        }
        let data = state.secret.seal(text, about)?;
        Ok(EncryptedObject { data, ..state.object.clone() }.encode_to_vec())
    }

    /// May wait for the plugin.
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        let object = decode(sealed)?;
        self.secret(&object)?.open(&object.data, about)
    }

    /// Whether it would be written under another key today.
    pub fn is_stale(&self, sealed: &[u8]) -> bool {
        let Some(state) = self.state.load_full() else { return false };
        decode(sealed).is_ok_and(|object| object.key_id != state.object.key_id || object.source_type != state.object.source_type)
    }

    fn secret(&self, object: &EncryptedObject) -> Result<Arc<Secret>, CipherError> {
        let source = source_of(object);
        match self.known().get(&source) {
            Some(Known::Open(secret)) => return Ok(secret.clone()),
            Some(Known::Failed(at, why)) if at.elapsed() < FAILURE_HELD => return Err(failed(why.clone())),
            _ => {}
        }
        let request = DecryptRequest {
            ciphertext: object.source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let opened = self.service.decrypt(request).and_then(|plain| Secret::new(object.source_type(), &plain));
        let known = match opened {
            Ok(secret) => Known::Open(Arc::new(secret)),
            Err(why) => Known::Failed(Instant::now(), format!("failed to decrypt DEK, error: {why}").into()),
        };
        let result = match &known {
            Known::Open(secret) => Ok(secret.clone()),
            Known::Failed(_, why) => Err(failed(why.clone())),
        };
        let mut all = self.known();
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(source, known);
        result
    }
}

/// All that a secret depends on.
fn source_of(object: &EncryptedObject) -> Vec<u8> {
    EncryptedObject { data: Vec::new(), ..object.clone() }.encode_to_vec()
}

fn decode(sealed: &[u8]) -> Result<EncryptedObject, CipherError> {
    let object = EncryptedObject::decode(sealed).map_err(|error| failed(error.to_string()))?;
    if SourceType::try_from(object.source_type).is_err() {
        return Err(failed(format!("unknown encryptedDEKSourceType: {}", object.source_type)));
    }
    if object.data.is_empty() {
        return Err(failed("encrypted data is empty"));
    }
    check(&object).map_err(failed)?;
    Ok(object)
}

/// Models ValidateEncryptedObject, but for the data.
fn check(object: &EncryptedObject) -> Result<(), String> {
    match object.source.len() {
        0 => return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".into()),
        len if len > SOURCE_BYTES_MAX => {
            return Err(format!("encrypted DEK source is {len} bytes, which exceeds the max size of {SOURCE_BYTES_MAX}"));
        }
        _ => {}
    }
    check_key_id(&object.key_id)?;
    let size: usize = object.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS_BYTES_MAX {
        return Err(format!("total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS_BYTES_MAX}"));
    }
    let is_qualified = |key: &str| {
        let key = key.strip_suffix('.').unwrap_or(key);
        key.contains('.') && names::dns1123_subdomain(key).is_empty()
    };
    match object.annotations.keys().find(|key| !is_qualified(key)) {
        Some(key) => Err(format!("failed to validate annotations: {key:?} is no fully qualified domain name")),
        None => Ok(()),
    }
}

fn check_key_id(key_id: &str) -> Result<(), String> {
    match key_id.len() {
        0 => Err("keyID is empty".into()),
        len if len > KEY_ID_BYTES_MAX => Err(format!("keyID is {len} bytes, which exceeds the max size of {KEY_ID_BYTES_MAX}")),
        _ => Ok(()),
    }
}

fn prk(seed: &[u8]) -> hkdf::Prk {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, seed)
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl Secret {
    fn new(source: SourceType, plain: &[u8]) -> Result<Self, String> {
        match source {
            SourceType::HkdfSha256XnonceAesGcmSeed if plain.len() < SEED_BYTES => {
                Err(format!("invalid seed length {} used for key generation", plain.len()))
            }
            SourceType::HkdfSha256XnonceAesGcmSeed => Ok(Self::Seed(prk(plain))),
            SourceType::AesGcmKey => {
                let gcm = Gcm::new(plain).ok_or_else(|| format!("invalid key size {}", plain.len()))?;
                Ok(Self::Key(Box::new(gcm)))
            }
        }
    }

    fn seal(&self, text: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Self::Key(gcm) => gcm.seal(text, about),
            Self::Seed(prk) => {
                let info: [u8; INFO_BYTES] = random()?;
                Ok([&info[..], &derived(prk, &info)?.seal(text, about)?].concat())
            }
        }
    }

    fn open(&self, data: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Self::Key(gcm) => gcm.open(data, about),
            Self::Seed(prk) => {
                let (info, sealed) = data.split_first_chunk::<INFO_BYTES>().ok_or(CipherError::Short)?;
                derived(prk, info)?.open(sealed, about)
            }
        }
    }
}

/// The key of one value: HKDF without its first step, as the seed is random.
fn derived(prk: &hkdf::Prk, info: &[u8]) -> Result<Gcm, CipherError> {
    let mut key = [0; KEY_BYTES];
    let info = [info];
    let filled = prk.expand(&info, KeyLength).and_then(|okm| okm.fill(&mut key));
    filled.map_err(|_| CipherError::Random)?;
    Ok(Gcm::new(&key).expect("the length is one of AES"))
}
