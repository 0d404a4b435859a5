//! Stored bytes become objects: what this process has printed is skimmed, what others may have written is read whole.
use std::sync::Arc;

use api::registry::Resource;
use api::tree::Tree;

use super::{Cached, splice};

/// Who may have written what the store brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This server alone, now or before.
    Own,
    /// Whoever else can write to the store.
    Others,
}

/// `Err` says why it is no object.
pub type Parsed = Result<Arc<Cached>, String>;

impl Cached {
    /// Reads what is in the store.
    pub(super) fn stored(resource: &Resource, key: Arc<str>, value: &[u8], revision: u64, source: Source) -> Result<Self, String> {
        let mut tree = read(value)?;
        if source == Source::Others {
            check(resource, &tree)?;
        }
        let is_foreign_print = source == Source::Others && {
            tree.remove(&["metadata", "resourceVersion"]);
            tree.to_json() != value
        };
        // What was stored under another schema shows as the one of today has it.
        let is_of_other_schema = resource.custom.as_ref().is_some_and(|custom| shows_otherwise(resource, custom, &mut tree));
        let is_stored_otherwise = is_foreign_print || is_of_other_schema;
        let spliced = match is_stored_otherwise {
            true => splice::resource_version(&tree.to_json(), revision),
            false => splice::resource_version(value, revision),
        };
        let (bytes, version_at) = spliced.ok_or("it has no metadata")?;
        let mut cached = Self::of(resource, key, &tree, bytes, revision, version_at);
        cached.is_stored_otherwise = is_stored_otherwise;
        Ok(cached)
    }

    /// The same of what this process has printed just now: nothing but what selectors read is parsed, unless a custom object looks otherwise
    /// than it was stored.
    pub(super) fn written(resource: &Resource, key: Arc<str>, value: &[u8], revision: u64) -> Result<Self, String> {
        let skimmed = match &resource.custom {
            Some(custom) if api::crd::is_settled(custom, &resource.api_version(), &resource.kind, value) => {
                api::skim::skim(value, &custom.selected.wanted()).map(|found| found.tree)
            }
            Some(_) => return Self::stored(resource, key, value, revision, Source::Own),
            None => api::selector::skim(value),
        };
        let tree = skimmed.map_err(|error| read(value).err().unwrap_or_else(|| error.to_string()))?;
        let (bytes, version_at) = splice::resource_version(value, revision).ok_or("it has no metadata")?;
        Ok(Self::of(resource, key, &tree, bytes, revision, version_at))
    }
}

fn read(value: &[u8]) -> Result<Tree, String> {
    match value {
        [b'k', b'8', b's', 0, ..] => Err("it is stored as protobuf, and rk stores JSON".to_owned()),
        value if value.starts_with(b"k8s:enc:") => Err("it is encrypted, and no key at hand opens it".to_owned()),
        value => Tree::from_json(value).map_err(|error| error.to_string()),
    }
}

/// Of what somebody else may have written: that it is an object of this kind, as far as everything here relies on it.
fn check(resource: &Resource, tree: &Tree) -> Result<(), String> {
    let (group, _) = api::meta::api_version(tree).rsplit_once('/').unwrap_or_default();
    let kind = api::meta::kind(tree);
    if (group, kind) != (&*resource.group, &*resource.kind) {
        let version = api::meta::api_version(tree);
        return Err(format!("it is of kind {kind:?} of apiVersion {version:?}, and {} is of {}", resource.kind, resource.api_version()));
    }
    match tree.at(&["metadata"]) {
        Some(Tree::Object(_)) => Ok(()),
        _ => Err("it has no metadata".to_owned()),
    }
}

fn shows_otherwise(resource: &Resource, custom: &api::crd::Custom, tree: &mut Tree) -> bool {
    // Only a webhook can say what it is in the version of today.
    if custom.conversion.is_some() && api::meta::api_version(tree) != resource.api_version() {
        return false;
    }
    let stored = tree.clone();
    api::meta::set_type(tree, &resource.api_version(), &resource.kind);
    api::crd::from_stored(custom, tree);
    *tree != stored
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;

    use super::*;

    fn stored(value: &str, source: Source) -> Result<Cached, String> {
        let resource = Registry::get().resource("", "v1", "configmaps").unwrap();
        Cached::stored(resource, "/registry/core/configmaps/default/a".into(), value.as_bytes(), 7, source)
    }

    #[test]
    fn what_others_print_is_printed_anew() {
        let own = r#"{"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"name":"a"}}"#;
        let shown = r#"{"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"resourceVersion":"7","name":"a"}}"#;
        let foreign = "{ \"apiVersion\": \"v1\",\n\"kind\":\"ConfigMap\", \"metadata\": {\"name\": \"\\u0061\", \"resourceVersion\": \"3\"},\
            \"data\":{\"k\":\"v\"} }\n";
        for (value, is_stored_otherwise) in [(own, false), (foreign, true)] {
            let cached = stored(value, Source::Others).unwrap();
            assert_eq!((std::str::from_utf8(&cached.bytes).unwrap(), cached.is_stored_otherwise), (shown, is_stored_otherwise));
            assert_eq!(cached.bytes_at(12), shown.replace("\"7\"", "\"12\""));
        }
    }

    #[test]
    fn what_is_no_object_of_the_kind_says_why() {
        for (value, why) in [
            ("", "EOF"),
            ("k8s\0\n", "stored as protobuf"),
            ("k8s:enc:aescbc:v1:key:x", "is encrypted"),
            ("[]", "of kind \"\""),
            ("{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{}}", "of kind \"Secret\""),
            ("{\"apiVersion\":\"apps/v1\",\"kind\":\"ConfigMap\",\"metadata\":{}}", "apiVersion \"apps/v1\""),
            ("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\"}", "no metadata"),
            ("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":[]}", "no metadata"),
            ("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{}}x", "trailing"),
        ] {
            let error = stored(value, Source::Others).err().unwrap_or_else(|| panic!("{value} is taken"));
            assert!(error.contains(why), "{value}: {error}");
        }
    }
}
