//! A mirror of one collection: list once, then watch, and never look twice.
//!
//! Models staging/src/k8s.io/client-go/tools/cache (reflector.go, shared_informer.go, thread_safe_store.go), v1.37.
//! A watch that ends is resumed after the last version seen, which bookmarks keep fresh. A version that has become too old
//! (410) leads to a new list, whose difference from the mirror is told as events, the vanished objects included. Left out:
//! resync (nothing here polls) and streaming lists.
mod kept;
mod labels;
mod reflector;
mod shared;
mod store;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

pub use self::shared::SharedInformers;
pub use self::store::CONTROLLER_UID;
pub use self::subscription::Subscription;

use self::reflector::Source;
use self::store::Mirror;
use crate::client::Client;
use crate::decode;
use crate::object::{ApiResource, Kind, Named, ObjectKey, PartialObject};

/// What happened to an object, as far as the mirror saw it.
#[derive(Debug)]
pub enum Event<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    /// The last state known; after a gap in the watch that may not be the last there was.
    Deleted(Arc<K>),
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(o) => Self::Added(o.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Deleted(o) => Self::Deleted(o.clone()),
        }
    }
}

impl<K> Event<K> {
    /// The newest state known.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(o) | Self::Deleted(o) | Self::Updated { new: o, .. } => o,
        }
    }

    /// The state before, where this is an update.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { old, .. } => Some(old),
            _ => None,
        }
    }

    /// The newest state, and before it the old one of an update.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old().into_iter().chain([self.object()])
    }
}

/// Projection that drops `metadata.managedFields`, which no controller reads and which is a third of many objects.
pub fn drop_managed_fields<K: Kind>(object: &mut K) {
    object.metadata_mut().managed_fields = None;
}

/// What to mirror, and how.
pub struct InformerBuilder<K> {
    client: Client,
    resource: ApiResource,
    namespace: String,
    labels: Option<String>,
    fields: Option<String>,
    project: Arc<dyn Fn(&mut K) + Send + Sync>,
    newest_only: bool,
}

impl<K: Kind> InformerBuilder<K> {
    /// Only objects of this namespace.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// A field selector, as `spec.nodeName=NAME`.
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }

    /// Applied to each object before it is stored; replaces [`drop_managed_fields`], which is the default.
    pub fn project(mut self, project: impl Fn(&mut K) + Send + Sync + 'static) -> Self {
        self.project = Arc::new(project);
        self
    }

    /// An update may tell its new state as the old one, too: for who keeps himself what he needs of it, so that it need not be read again from
    /// a text that is shared.
    pub fn newest_only(mut self) -> Self {
        self.newest_only = true;
        self
    }

    /// Starts to list and watch; ends when the last handle is dropped. Must be called inside a tokio runtime.
    pub fn start(self) -> Informer<K> {
        let (synced, _) = watch::channel(false);
        let project = self.project.clone();
        let read = move |text: &[u8]| {
            let mut object: K = decode::mirrored(std::str::from_utf8(text).ok()?)?;
            project(&mut object);
            Some(object)
        };
        let mirror = Arc::new(Mirror::new(synced, Box::new(read), self.newest_only));
        let partial = std::any::TypeId::of::<K>() == std::any::TypeId::of::<PartialObject>();
        let source = Source {
            client: self.client,
            resource: self.resource,
            namespace: self.namespace,
            labels: self.labels,
            fields: self.fields,
            partial,
            project: self.project,
        };
        let task = tokio::spawn(reflector::run(source, mirror.clone()));
        Informer { inner: Arc::new(Running { mirror, task }) }
    }
}

struct Running<K: Kind> {
    mirror: Arc<Mirror<K>>,
    task: tokio::task::JoinHandle<()>,
}

impl<K: Kind> Drop for Running<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A live mirror of a collection. Cheap to clone; all clones see the same objects.
pub struct Informer<K: Kind> {
    inner: Arc<Running<K>>,
}

impl<K: Kind> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Kind> Informer<K> {
    pub fn builder(client: &Client) -> InformerBuilder<K> {
        Self::builder_at(client, ApiResource::of::<K>())
    }

    /// Mirrors a kind known at run time only; `K` is [`PartialObject`] then.
    pub fn builder_at(client: &Client, resource: ApiResource) -> InformerBuilder<K> {
        InformerBuilder {
            client: client.clone(),
            resource,
            namespace: String::new(),
            labels: None,
            fields: None,
            project: Arc::new(drop_managed_fields),
            newest_only: false,
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.mirror.get(key)
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.mirror.list()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.mirror.list_namespace(namespace)
    }

    /// The objects of a namespace whose labels match, as the server has them; the others are not decoded for it.
    pub fn list_labelled(&self, namespace: &str, matches: impl Fn(&BTreeMap<String, String>) -> bool) -> Vec<Arc<K>> {
        self.inner.mirror.list_labelled(namespace, matches)
    }

    pub fn len(&self) -> usize {
        self.inner.mirror.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index; a second one of the same name changes nothing. May be called at any time.
    pub fn add_index(&self, name: &'static str, values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.inner.mirror.add_index(name, Arc::new(values));
    }

    /// Adds the index [`CONTROLLER_UID`]: by the uid of the controlling owner.
    pub fn index_by_controller(&self) {
        self.add_index(CONTROLLER_UID, |o: &K| {
            crate::object::controller_of(o.meta()).map(|c| c.uid.clone()).into_iter().collect()
        });
    }

    /// The objects for which the index `name` gives `value`; none where there is no such index.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        self.inner.mirror.by_index(name, value)
    }

    /// Calls `visit` with each object of the namespace, one after the other: however many they are, no more than one is decoded for it.
    pub fn each_in(&self, namespace: &str, visit: impl FnMut(&K)) {
        self.inner.mirror.each_in(namespace, visit);
    }

    /// The same with the objects for which the index `name` gives `value`.
    pub fn each_by_index(&self, name: &'static str, value: &str, visit: impl FnMut(&K)) {
        self.inner.mirror.each_by_index(name, value, visit);
    }

    /// How many objects there are for which the index `name` gives `value`.
    pub fn count_by_index(&self, name: &'static str, value: &str) -> usize {
        self.inner.mirror.count_by_index(name, value)
    }

    /// Whether the namespace has any object.
    pub fn has_any_in(&self, namespace: &str) -> bool {
        self.inner.mirror.has_any_in(namespace)
    }

    /// The version up to which what is seen here is complete; 0 before the first list, and where versions are no numbers.
    pub fn version(&self) -> u64 {
        self.inner.mirror.version()
    }

    /// Whether the first list is complete.
    pub fn has_synced(&self) -> bool {
        *self.inner.mirror.synced.borrow()
    }

    /// Waits until the first list is complete, and its events have reached all handlers.
    pub async fn synced(&self) {
        let mut synced = self.inner.mirror.synced.subscribe();
        // The sender lives in the mirror that we hold.
        let _ = synced.wait_for(|done| *done).await;
    }

    /// Calls `handler` for every event, on the reflector's task, after the mirror has changed; first with `Added` for what is
    /// there already. It must be quick, must not block, and must not add or drop handlers of this informer. Ends when the guard drops.
    pub fn on_event(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) -> HandlerGuard {
        let id = self.inner.mirror.add_handler(Box::new(handler));
        let mirror: Weak<Mirror<K>> = Arc::downgrade(&self.inner.mirror);
        HandlerGuard(Some(Box::new(move || {
            if let Some(mirror) = mirror.upgrade() {
                mirror.remove_handler(id);
            }
        })))
    }

    /// A queue of events of its own, coalesced per object: it never holds more than two events for a key (a deletion and the
    /// creation of its successor), so it needs no other bound and no event forces the reflector to wait.
    pub fn subscribe(&self) -> Subscription<K> {
        Subscription::new(self.clone())
    }
}

/// Ends a handler's subscription when dropped.
#[must_use = "the handler ends when its guard is dropped"]
pub struct HandlerGuard(Option<Box<dyn FnOnce() + Send + Sync>>);

impl HandlerGuard {
    /// Keeps the handler for as long as the informer lives.
    pub fn forever(mut self) {
        self.0 = None;
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

