//! An object as the cache holds it.
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use api::protobuf::{EncodeError, Form};
use api::registry::{Resource, ResourceRef};
use api::tree::Tree;
use bytes::Bytes;
use store::{Expect, Revision};

use super::pairs::Pairs;
use super::splice;

/// One object as stored, with its resourceVersion spliced in.
#[derive(Debug)]
pub struct Cached {
    /// The storage key.
    pub key: Arc<str>,
    /// JSON in the storage version.
    pub bytes: Bytes,
    pub revision: u64,
    labels: Pairs,
    fields: Pairs,
    pub(super) version_at: usize,
    /// The store holds it otherwise: in an old version, or as another schema had it.
    pub is_stored_otherwise: bool,
    /// Of its protobuf message; 0: not known yet.
    message_bytes: AtomicU32,
    /// The same object in other versions of its kind, as they were asked for.
    views: OnceLock<Box<Mutex<Vec<View>>>>,
}

/// One object as one resource shows it.
#[derive(Debug)]
struct View {
    resource: ResourceRef,
    object: Arc<Cached>,
}

impl Cached {
    pub(super) fn of(resource: &Resource, key: Arc<str>, tree: &Tree, bytes: Bytes, revision: u64, version_at: usize) -> Self {
        let labels = tree.at(&["metadata", "labels"]).and_then(Tree::as_object).map_or_else(Pairs::default, |labels| {
            labels.iter().map(|(name, value)| (name, value.as_str().unwrap_or(""))).collect()
        });
        let fields = api::selector::fields(resource, tree);
        let fields = fields.into_iter().filter(|(name, value)| !value.is_empty() && !name.starts_with("metadata.")).collect();
        let (views, message_bytes) = (OnceLock::new(), AtomicU32::new(0));
        Self { key, bytes, revision, labels, fields, version_at, is_stored_otherwise: false, message_bytes, views }
    }

    /// Whether the bytes say so where they mostly do, at their beginning; false does not mean that they don't.
    pub fn is_of_version(&self, api_version: &str) -> bool {
        let begin = self.bytes.strip_prefix(b"{").unwrap_or_default();
        // Go's clients write the kind first.
        let after_kind = begin.strip_prefix(b"\"kind\":\"").and_then(|rest| rest.get(memchr::memchr(b'"', rest)? + 1..)?.strip_prefix(b","));
        let rest = after_kind.unwrap_or(begin).strip_prefix(b"\"apiVersion\":\"").and_then(|rest| rest.strip_prefix(api_version.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&b'"'))
    }

    /// The object as `resource` shows it, if that was made before.
    pub fn view(&self, resource: &ResourceRef) -> Option<Arc<Cached>> {
        let views = self.views.get()?.lock().expect("no panic under the lock");
        views.iter().find(|view| view.resource.is(resource)).map(|view| view.object.clone())
    }

    /// Keeps `tree`, which is this object as `resource` shows it. `None`: it is no object.
    pub fn add_view(&self, resource: &ResourceRef, mut tree: Tree) -> Option<Arc<Cached>> {
        tree.remove(&["metadata", "resourceVersion"]);
        let (bytes, version_at) = splice::resource_version(&tree.to_json(), self.revision)?;
        let object = Arc::new(Self::of(resource, self.key.clone(), &tree, bytes, self.revision, version_at));
        let mut views = self.views.get_or_init(Box::default).lock().expect("no panic under the lock");
        // Of an earlier definition, too: nobody asks for that any more.
        views.retain(|view| view.resource.version != resource.version);
        views.push(View { resource: resource.clone(), object: object.clone() });
        Some(object)
    }

    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or("")
    }

    /// `""` for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        let mut parts = self.key.rsplit('/');
        let (_, namespace, _) = (parts.next(), parts.next(), parts.next());
        // "/registry/<group>/<plural>/<name>" has no namespace: the part before the name is the plural.
        if self.key.bytes().filter(|b| *b == b'/').count() < 5 { "" } else { namespace.unwrap_or("") }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)
    }

    /// The value that a field selector compares; `""` where the object has none.
    pub fn field(&self, name: &str) -> &str {
        match name {
            "metadata.name" => self.name(),
            "metadata.namespace" => self.namespace(),
            _ => self.fields.get(name).unwrap_or(""),
        }
    }

    pub fn tree(&self) -> Tree {
        Tree::from_json(&self.bytes).expect("checked when it entered the cache")
    }

    /// The typed form; `Err` only where the stored object contradicts its schema.
    pub fn typed<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// The length of its protobuf message, found by writing the message to `scratch` if need be.
    pub fn message_length(&self, form: Form, scratch: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let known = self.message_bytes.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known as usize);
        }
        scratch.clear();
        form.message(&self.bytes, scratch)?;
        self.message_bytes.store(u32::try_from(scratch.len()).expect("objects are bounded"), Ordering::Relaxed);
        Ok(scratch.len())
    }

    /// That nobody has changed the object since it was read here, and what the store holds of it.
    pub fn unchanged(&self) -> Expect {
        let revision = Revision(self.revision);
        match self.is_stored_otherwise {
            true => Expect::Revision(revision),
            false => Expect::Unchanged { revision, value: splice::without(&self.bytes, self.version_at) },
        }
    }

    /// The same object under a later version: what a DELETED event shows.
    pub fn bytes_at(&self, revision: u64) -> Bytes {
        if revision == self.revision {
            return self.bytes.clone();
        }
        splice::replace(&self.bytes, self.version_at, revision)
    }
}

/// Stored bytes with their version, as clients read them.
pub fn with_version(stored: &[u8], revision: u64) -> Option<Bytes> {
    splice::resource_version(stored, revision).map(|(bytes, _)| bytes)
}
