//! An EncryptionConfiguration: which resources are encrypted, with what, and what else may be read.
//!
//! Models k8s.io/apiserver/pkg/server/options/encryptionconfig and pkg/apis/apiserver/validation/validation_encryption.go. KMS providers are
//! those of version 2; upstream refuses the first version too, unless a feature gate is set.
use std::sync::Arc;

use api::codec;
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cipher::{Aes, Cipher, CipherError, Gcm};
use super::kms::{self, Envelope};
use crate::cache::PREFIX;
use crate::pipeline::go_duration;

/// What every encrypted value begins with.
const MARK: &[u8] = b"k8s:enc:";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct ConfigError {
    path: String,
    detail: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("identity transformer tried to read encrypted data")]
    NoProvider,
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

/// One key of one provider; the identity has none.
struct Transformer {
    /// `k8s:enc:aescbc:v1:key1:`; empty: values stay as they are.
    prefix: Vec<u8>,
    cipher: Option<Cipher>,
}

struct Rule {
    resources: Vec<String>,
    /// The first writes, all read.
    transformers: Vec<Transformer>,
}

/// No rules: nothing is encrypted.
#[derive(Default)]
pub struct Rules(Vec<Rule>);

fn wrong(path: impl Into<String>, detail: impl Into<String>) -> ConfigError {
    ConfigError { path: path.into(), detail: detail.into() }
}

impl Rules {
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let parsed = codec::parse_yaml(text.as_bytes()).map_err(|error| wrong("encryption configuration", error.to_string()))?;
        let tree = parsed.tree;
        let (version, kind) = (tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        if (version, kind) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") {
            return Err(wrong("kind", format!("{kind} in version {version} is no EncryptionConfiguration in version apiserver.config.k8s.io/v1")));
        }
        let entries = tree.array_at(&["resources"]);
        if entries.is_empty() {
            return Err(wrong("resources", "at least one resources is required"));
        }
        let mut kms_names = Vec::new();
        let rules = entries.iter().enumerate().map(|(i, entry)| rule(entry, &format!("resources[{i}]"), &mut kms_names));
        rules.collect::<Result<_, _>>().map(Rules)
    }

    /// The KMS providers.
    pub fn envelopes(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        let transformers = self.0.iter().flat_map(|rule| &rule.transformers);
        transformers.filter_map(|transformer| match &transformer.cipher {
            Some(Cipher::Kms(envelope)) => Some(envelope),
            _ => None,
        })
    }

    /// The rule for the object at a storage key: the first that names its resource.
    fn of(&self, key: &str) -> Option<&Rule> {
        let (group, rest) = key.strip_prefix(PREFIX)?.split_once('/')?;
        let (plural, _) = rest.split_once('/')?;
        let group = if group == "core" { "" } else { group };
        self.0.iter().find(|rule| rule.resources.iter().any(|named| names(named, group, plural)))
    }

    /// The value as it is stored.
    pub fn seal(&self, key: &str, value: &[u8]) -> Result<Option<Vec<u8>>, CipherError> {
        let Some(Transformer { prefix, cipher: Some(cipher) }) = self.of(key).and_then(|rule| rule.transformers.first()) else { return Ok(None) };
        Ok(Some([prefix.as_slice(), &cipher.seal(value, key.as_bytes())?].concat()))
    }

    /// The value as it is meant; `None`: it is stored as it is meant.
    pub fn open(&self, key: &str, value: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
        if !value.starts_with(MARK) {
            return Ok(None);
        }
        let mut failed = None;
        for Transformer { prefix, cipher } in self.of(key).into_iter().flat_map(|rule| &rule.transformers) {
            let (Some(cipher), Some(sealed)) = (cipher, value.strip_prefix(prefix.as_slice())) else { continue };
            match cipher.open(sealed, key.as_bytes()) {
                Ok(opened) => return Ok(Some(opened)),
                // Two providers may have a key of the same name, while one is rotated away from.
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.map_or(OpenError::NoProvider, OpenError::Cipher))
    }

    /// Whether the value would be stored otherwise today.
    pub fn is_stale(&self, key: &str, value: &[u8]) -> bool {
        match self.of(key).and_then(|rule| rule.transformers.first()) {
            Some(Transformer { prefix, cipher: Some(cipher) }) => match value.strip_prefix(prefix.as_slice()) {
                // The name of a key says nothing: it must open.
                Some(sealed) => cipher.open(sealed, key.as_bytes()).is_err() || matches!(cipher, Cipher::Kms(kms) if kms.is_stale(sealed)),
                None => true,
            },
            _ => value.starts_with(MARK),
        }
    }
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group), `*.*`.
fn names(named: &str, group: &str, plural: &str) -> bool {
    match named.split_once('.') {
        None => group.is_empty() && named == plural,
        Some(("*", "*")) => true,
        Some(("*", own)) => own == group,
        Some((own, own_group)) => own == plural && own_group == group,
    }
}

fn rule(entry: &Tree, path: &str, kms_names: &mut Vec<String>) -> Result<Rule, ConfigError> {
    let resources: Vec<String> = entry.array_at(&["resources"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
    let (at, providers_path) = (format!("{path}.resources"), format!("{path}.providers"));
    if resources.is_empty() {
        return Err(wrong(&at, format!("at least one {at} is required")));
    }
    check_resources(&resources, &at)?;
    let providers = entry.array_at(&["providers"]);
    if providers.is_empty() {
        return Err(wrong(&providers_path, format!("at least one {providers_path} is required")));
    }
    let mut transformers = Vec::new();
    for (i, provider) in providers.iter().enumerate() {
        transformers.extend(provider_of(provider, &format!("{providers_path}[{i}]"), kms_names)?);
    }
    Ok(Rule { resources, transformers })
}

fn check_resources(resources: &[String], path: &str) -> Result<(), ConfigError> {
    for (i, named) in resources.iter().enumerate() {
        let group = named.split_once('.').map_or("", |(_, group)| group);
        let detail = match named.as_str() {
            named if named.chars().any(char::is_uppercase) => "resource name should not contain capital letters",
            "*" => "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
            "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => "resources which do not have REST API/s cannot be encrypted",
            _ if group == "events.k8s.io" => {
                "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
            }
            _ if group == "extensions" => "'extensions' group has been removed and cannot be used for encryption",
            named if group == "*" && named != "*.*" => "encrypting the same resource across groups is not supported",
            _ => continue,
        };
        return Err(wrong(format!("{path}[{i}]"), detail));
    }
    for (i, a) in resources.iter().enumerate() {
        for b in &resources[i + 1..] {
            let parts = |named: &str| named.split_once('.').map_or((named.to_owned(), String::new()), |(r, g)| (r.to_owned(), g.to_owned()));
            let ((a_name, a_group), (b_name, b_group)) = (parts(a), parts(b));
            if a == b {
                return Err(wrong(path, "the same resource cannot be specified multiple times"));
            }
            let is_all = a == "*.*" || b == "*.*";
            if is_all || (a_group == b_group && (a_name == "*" || b_name == "*")) {
                let detail = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
                return Err(wrong(path, detail));
            }
        }
    }
    Ok(())
}

fn provider_of(provider: &Tree, path: &str, kms_names: &mut Vec<String>) -> Result<Vec<Transformer>, ConfigError> {
    const KNOWN: [&str; 5] = ["kms", "aesgcm", "aescbc", "secretbox", "identity"];
    let found: Vec<&str> = KNOWN.into_iter().filter(|name| provider.get(name).is_some_and(|p| !p.is_null())).collect();
    let name = match found[..] {
        [name] => name,
        [] => return Err(wrong(path, "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")),
        _ => return Err(wrong(path, "more than one provider specified in a single element, should split into different list elements")),
    };
    let lengths: &[usize] = match name {
        "identity" => return Ok(vec![Transformer { prefix: Vec::new(), cipher: None }]),
        "kms" => return kms_provider(provider.get("kms").unwrap_or(&Tree::Null), &format!("{path}.kms"), kms_names).map(|one| vec![one]),
        "secretbox" => &[32],
        _ => &[16, 24, 32],
    };
    let keys_path = format!("{path}.{name}.keys");
    let keys = provider.array_at(&[name, "keys"]);
    if keys.is_empty() {
        return Err(wrong(keys_path, "at least one keys is required"));
    }
    keys.iter().enumerate().map(|(i, key)| transformer(name, key, lengths, &format!("{keys_path}[{i}]"))).collect()
}

/// Models validateKMSConfiguration.
fn kms_provider(provider: &Tree, path: &str, names: &mut Vec<String>) -> Result<Transformer, ConfigError> {
    let text = |field: &str| provider.str_at(&[field]);
    let at = |field: &str| format!("{path}.{field}");
    let name = text("name");
    match text("apiVersion") {
        "v2" => {}
        "" | "v1" => {
            let why = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.";
            return Err(wrong(at("apiVersion"), why));
        }
        other => {
            return Err(wrong(at("apiVersion"), format!("unsupported apiVersion {other} for KMS provider, only v1 and v2 are supported")));
        }
    }
    if name.is_empty() {
        return Err(wrong(at("name"), "name is a mandatory field for a provider"));
    }
    if name.contains(':') {
        return Err(wrong(at("name"), format!("invalid KMS provider name {name}, must not contain ':'")));
    }
    if names.iter().any(|known| known == name) {
        return Err(wrong(at("name"), format!("duplicate KMS provider name {name}, names must be unique")));
    }
    names.push(name.to_owned());
    if provider.get("cachesize").is_some_and(|size| !size.is_null()) {
        return Err(wrong(at("cachesize"), "cachesize is not supported in v2"));
    }
    let timeout = match provider.get("timeout").filter(|timeout| !timeout.is_null()) {
        None => kms::TIMEOUT,
        Some(given) => go_duration(given.as_str().unwrap_or_default())
            .ok_or_else(|| wrong(at("timeout"), "timeout should be a positive value"))?,
    };
    let endpoint = text("endpoint");
    if endpoint.is_empty() {
        return Err(wrong(at("endpoint"), "endpoint is a mandatory field for a kms"));
    }
    let (scheme, rest) = endpoint.split_once(':').unwrap_or(("", endpoint));
    if scheme != "unix" {
        return Err(wrong(at("endpoint"), format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported")));
    }
    // What stands between the slashes would be a host, which a socket has not.
    let socket = rest.strip_prefix("//").map_or(rest, |rest| rest.find('/').map_or("", |slash| &rest[slash..]));
    let socket = socket.strip_prefix("/@").map_or_else(|| socket.to_owned(), |name| format!("@{name}"));
    let envelope = Envelope::new(name, &socket, timeout).map_err(|error| wrong(path, error.to_string()))?;
    Ok(Transformer { prefix: format!("{}{name}:", kms::PREFIX).into_bytes(), cipher: Some(Cipher::Kms(Arc::new(envelope))) })
}

fn transformer(provider: &str, key: &Tree, lengths: &[usize], path: &str) -> Result<Transformer, ConfigError> {
    let name = key.str_at(&["name"]);
    for (field, value) in [("name", name), ("secret", key.str_at(&["secret"]))] {
        if value.is_empty() {
            return Err(wrong(format!("{path}.{field}"), format!("{field} is a mandatory field for a key")));
        }
    }
    let at = format!("{path}.secret");
    let secret = STANDARD.decode(key.str_at(&["secret"])).map_err(|_| wrong(&at, "secrets must be base64 encoded"))?;
    let length = || {
        let expected = lengths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        wrong(&at, format!("secret is not of the expected length, got {}, expected one of [{expected}]", secret.len()))
    };
    let cipher = match provider {
        "aescbc" => Aes::new(&secret).map(Cipher::AesCbc),
        "aesgcm" => Gcm::new(&secret).map(|gcm| Cipher::AesGcm(Box::new(gcm))),
        _ => secret.as_slice().try_into().ok().map(|key| Cipher::SecretBox(Box::new(key))),
    };
    Ok(Transformer { prefix: format!("k8s:enc:{provider}:v1:{name}:").into_bytes(), cipher: Some(cipher.ok_or_else(length)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "/registry/core/secrets/default/a";

    fn rules(providers: &str) -> Result<Rules, ConfigError> {
        Rules::parse(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, widgets.example.com]\n  providers:\n{providers}"
        ))
    }

    fn keys(provider: &str, names: &[(&str, u8)]) -> String {
        let keys: Vec<String> = names.iter().map(|(n, byte)| format!("{{name: {n}, secret: {}}}", STANDARD.encode([*byte; 32]))).collect();
        format!("  - {provider}: {{keys: [{}]}}\n", keys.join(", "))
    }

    #[test]
    fn the_first_key_writes_and_all_of_them_read() {
        let (one, two) = (keys("aesgcm", &[("k1", 1)]), keys("secretbox", &[("k2", 2)]));
        let old = rules(&format!("{one}  - identity: {{}}\n")).unwrap();
        let new = rules(&format!("{two}{one}  - identity: {{}}\n")).unwrap();
        let off = rules(&format!("  - identity: {{}}\n{two}")).unwrap();
        let stored = old.seal(SECRET, b"{}").unwrap().unwrap();
        assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:k1:"));
        assert_eq!(new.open(SECRET, &stored).unwrap().unwrap(), b"{}");
        assert!(new.is_stale(SECRET, &stored) && !old.is_stale(SECRET, &stored) && new.is_stale(SECRET, b"{}"));
        let stored = new.seal(SECRET, b"{}").unwrap().unwrap();
        assert_eq!(off.open(SECRET, &stored).unwrap().unwrap(), b"{}");
        assert!(off.is_stale(SECRET, &stored) && off.seal(SECRET, b"{}").unwrap().is_none() && !off.is_stale(SECRET, b"{}"));
        assert_eq!(old.open(SECRET, &stored), Err(OpenError::NoProvider));
        assert_eq!(old.open("/registry/core/secrets/default/b", &old.seal(SECRET, b"{}").unwrap().unwrap()), Err(OpenError::Cipher(CipherError::Forged)));
        assert!(old.seal("/registry/core/pods/default/a", b"{}").unwrap().is_none());
        assert!(old.seal("/registry/example.com/widgets/default/a", b"{}").unwrap().is_some());
    }

    #[test]
    fn resources_are_named_as_upstream_has_it() {
        assert!(names("secrets", "", "secrets") && names("*.", "", "pods") && names("*.apps", "apps", "x") && names("*.*", "a.b", "x"));
        assert!(!names("secrets", "x.io", "secrets") && !names("*.", "apps", "x") && !names("a.b", "c", "a"));
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(rules(text).err().unwrap().to_string(), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused("  - {}\n", "resources[0].providers[0]: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity");
        refused("  - aescbc: {keys: []}\n", "resources[0].providers[0].aescbc.keys: at least one keys is required");
        refused("  - aescbc: {keys: [{name: a, secret: YWJj}]}\n", "resources[0].providers[0].aescbc.keys[0].secret: secret is not of the expected length, got 3, expected one of [16 24 32]");
        refused("  - aescbc: {keys: [{name: a, secret: '%'}]}\n", "resources[0].providers[0].aescbc.keys[0].secret: secrets must be base64 encoded");
        let kms = |fields: &str, expected: &str| refused(&format!("  - kms: {{{fields}}}\n"), &format!("resources[0].providers[0].kms.{expected}"));
        kms("name: a", "apiVersion: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.");
        kms("apiVersion: v3", "apiVersion: unsupported apiVersion v3 for KMS provider, only v1 and v2 are supported");
        kms("apiVersion: v2", "name: name is a mandatory field for a provider");
        kms("apiVersion: v2, name: 'a:b'", "name: invalid KMS provider name a:b, must not contain ':'");
        kms("apiVersion: v2, name: a", "endpoint: endpoint is a mandatory field for a kms");
        kms("apiVersion: v2, name: a, endpoint: 'tcp://x'", "endpoint: unsupported scheme \"tcp\" for KMS provider, only unix is supported");
        kms("apiVersion: v2, name: a, cachesize: 3", "cachesize: cachesize is not supported in v2");
        kms("apiVersion: v2, name: a, timeout: -1s", "timeout: timeout should be a positive value");
        let one = "  - kms: {apiVersion: v2, name: a, endpoint: 'unix:///run/a.sock'}\n";
        refused(&one.repeat(2), "resources[0].providers[1].kms.name: duplicate KMS provider name a, names must be unique");
        let check = |names: &[&str]| check_resources(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), "r").err().map(|e| e.path);
        assert_eq!(check(&["secrets", "*."]), Some("r".into()));
        assert_eq!(check(&["secrets", "secrets"]), Some("r".into()));
        assert_eq!(check(&["a", "*"]), Some("r[1]".into()));
        assert_eq!(check(&["secrets", "*.apps"]), None);
    }
}
