//! Groups and versions that other API servers answer: APIServices, and requests passed on to what stands behind them.
//!
//! Models kube-aggregator, v1.37. The [`Table`] holds every APIService, compiled, in step with the watch cache: who sees an object sees what it
//! means. A request for a group version with a Service goes to [`proxy`] instead of the handlers of this server. [`registration`] makes the
//! APIServices of what this server has itself; [`availability`] says whether the others answer, and keeps what they say they serve.
//! Redirects are never followed, and a backend's address is looked up once for each request.
//! Left out: passing requests on to other servers of a cluster (there is one).
pub mod availability;
mod backend;
mod connect;
mod document;
mod identity;
mod order;
mod priority;
mod proxy;
pub mod registration;
pub mod trust;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::registry::Registry;
use api::tree::Tree;
use arc_swap::ArcSwap;

pub use backend::Backend;
pub use document::{Document, foreign_openapi};
pub use order::{ServedGroup, Tie, groups};

use crate::cache::Cache;
use crate::config::FrontProxy;
use crate::request::RequestInfo;

pub const GROUP: &str = "apiregistration.k8s.io";
pub const PLURAL: &str = "apiservices";

/// One APIService.
pub struct Registered {
    pub group: Box<str>,
    pub version: Box<str>,
    pub group_priority: i64,
    pub version_priority: i64,
    /// Its condition says that this server answers.
    is_marked_local: bool,
    /// `None`: this server answers itself.
    pub backend: Option<Arc<Backend>>,
}

/// All APIServices by name.
pub type Table = BTreeMap<Box<str>, Arc<Registered>>;

#[derive(Clone)]
pub struct Aggregation(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    /// What the backends serve, by the names of their APIServices.
    documents: Mutex<BTreeMap<Box<str>, Arc<Document>>>,
    front_proxy: Option<FrontProxy>,
}

/// The name of a group version's APIService.
pub fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

impl Aggregation {
    pub fn new(cache: &Cache, front_proxy: Option<FrontProxy>) -> Self {
        let inner = Inner { table: ArcSwap::default(), documents: Mutex::default(), front_proxy };
        let aggregation = Self(Arc::new(inner));
        let resource = Registry::get().resource(GROUP, "v1", PLURAL).expect("a built-in kind");
        if let Some(id) = cache.kind(resource) {
            let follower = aggregation.clone();
            cache.listen(id, Box::new(move |change| follower.take_in(change.object.name(), (!change.deleted).then(|| change.object.tree()))));
        }
        for object in cache.list(GROUP, PLURAL, None) {
            aggregation.take_in(object.name(), Some(object.tree()));
        }
        aggregation
    }

    fn take_in(&self, name: &str, object: Option<Tree>) {
        self.0.table.rcu(|table| {
            let mut next = Table::clone(table);
            match &object {
                Some(object) => {
                    let before = table.get(name).and_then(|registered| registered.backend.as_deref());
                    next.insert(name.into(), Arc::new(Registered::new(object, before, self.0.front_proxy.as_ref())));
                }
                None => drop(next.remove(name)),
            }
            next
        });
    }

    pub fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }

    /// The other server that answers for a group version.
    pub fn backend(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        self.0.table.load().get(name_of(group, version).as_str())?.backend.clone()
    }

    /// The other server that a request is for, by its path.
    pub fn backend_of(&self, info: &RequestInfo) -> Option<Arc<Backend>> {
        if info.is_resource {
            return self.backend(&info.group, &info.version);
        }
        let mut parts = info.path.trim_matches('/').split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("apis"), Some(group), Some(version), None) => self.backend(group, version),
            (Some("api"), Some(version), None, None) => self.backend("", version),
            _ => None,
        }
    }

    /// What a backend said it serves; `None` if it was never asked, or is gone.
    pub fn document(&self, group: &str, version: &str) -> Option<Arc<Document>> {
        self.documents().get(name_of(group, version).as_str()).cloned()
    }

    fn documents(&self) -> std::sync::MutexGuard<'_, BTreeMap<Box<str>, Arc<Document>>> {
        self.0.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_document(&self, name: &str, document: Option<Document>) {
        match document {
            Some(document) => drop(self.documents().insert(name.into(), Arc::new(document))),
            None => drop(self.documents().remove(name)),
        }
    }
}

impl Registered {
    fn new(object: &Tree, before: Option<&Backend>, front_proxy: Option<&FrontProxy>) -> Self {
        let number = |field: &str| object.at(&["spec", field]).and_then(Tree::as_i64).unwrap_or(0);
        Self {
            group: object.str_at(&["spec", "group"]).into(),
            version: object.str_at(&["spec", "version"]).into(),
            group_priority: number("groupPriorityMinimum"),
            version_priority: number("versionPriority"),
            is_marked_local: condition(object).is_some_and(|c| c.str_at(&["reason"]) == "Local"),
            backend: Backend::of(object, before, front_proxy).map(Arc::new),
        }
    }
}

/// The condition `Available` of an APIService.
fn condition(object: &Tree) -> Option<&Tree> {
    object.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == "Available")
}
