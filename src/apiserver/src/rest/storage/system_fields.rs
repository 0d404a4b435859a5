//! The fields of metadata that the server keeps, and the values that it makes for them.
//!
//! Models k8s.io/apiserver/pkg/registry/rest/meta.go and pkg/storage/names.
use api::meta;
use api::tree::Tree;

/// Now, as metav1.Time prints it.
pub fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

pub fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) const MANAGED: [&str; 2] = ["metadata", "managedFields"];

/// What no client sets. Models pkg/registry/rest/meta.go WipeObjectMetaSystemFields.
pub(super) fn wipe_system_fields(object: &mut Tree) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object.remove(&["metadata", field]);
    }
}

pub(super) fn fill_system_fields(object: &mut Tree) {
    wipe_system_fields(object);
    object.remove(&["metadata", "resourceVersion"]);
    meta::set_uid(object, &uuid::Uuid::new_v4().to_string());
    meta::set_creation_timestamp(object, &now());
}

/// Fields that a client may leave out of an update, and those it has no say in.
pub(super) fn keep_system_fields(new: &mut Tree, old: &Tree) {
    const KEPT_WHEN_ABSENT: [&str; 4] = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    const ALWAYS_OLD: [&str; 2] = ["generation", "generateName"];
    new.remove(&["metadata", "selfLink"]);
    for field in KEPT_WHEN_ABSENT {
        if new.at(&["metadata", field]).is_none_or(Tree::is_null)
            && let Some(value) = old.at(&["metadata", field])
        {
            new.set(&["metadata", field], value.clone());
        }
    }
    for field in ALWAYS_OLD {
        match old.at(&["metadata", field]) {
            Some(value) => new.set(&["metadata", field], value.clone()),
            None => drop(new.remove(&["metadata", field])),
        }
    }
}

/// `base` and five characters that are no vowels and not alike: k8s.io/apiserver/pkg/storage/names.
pub fn generate_name(base: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LENGTH_MAX: usize = 63;
    let mut random = uuid::Uuid::new_v4().as_u128();
    let mut name: String = base.chars().take(LENGTH_MAX - 5).collect();
    for _ in 0..5 {
        name.push(ALPHABET[(random % ALPHABET.len() as u128) as usize] as char);
        random /= ALPHABET.len() as u128;
    }
    name
}
