//! What is checked and changed between decoding and storing: the types of the request path, and (in `admission/`) the plugins.
mod always_pull_images;
mod asker;
mod certificates;
mod chain;
mod changed;
mod conditions;
mod default_ingress_class;
mod default_toleration_seconds;
mod event_rate_limit;
mod expression;
mod external_ips;
mod limit_ranger;
mod matching;
mod node_restriction;
mod owner_references;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod policy;
mod priority;
mod reinvocation;
pub(crate) mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes;
mod webhook;

use std::sync::Arc;

use api::registry::ResourceRef;
use api::tree::Tree;
use futures::future::BoxFuture;

use crate::auth::UserInfo;
use crate::status::Status;

pub use chain::{OnRequest, Plugins};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach, portforward, proxy.
    Connect,
}

/// One request before admission. Models k8s.io/apiserver/pkg/admission Attributes.
#[derive(Debug)]
pub struct Request {
    pub user: Arc<UserInfo>,
    pub operation: Operation,
    pub resource: ResourceRef,
    /// `""` for the object itself.
    pub subresource: &'static str,
    /// `""` for cluster-scoped kinds.
    pub namespace: String,
    /// `""` for a create whose name the server makes.
    pub name: String,
    /// The new object (of a subresource: its body); null for delete.
    pub object: Tree,
    /// What is stored now; `None` for create and connect.
    pub old: Option<Arc<Tree>>,
    pub dry_run: bool,
    /// Becomes `Warning: 299` headers.
    pub warnings: Vec<String>,
}

impl Request {
    /// Whether it is about an object of this kind itself.
    fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource.is_empty()
    }

    /// The refusal of a plugin. Models k8s.io/apiserver/pkg/admission/errors.go NewForbidden.
    fn forbidden(&self, why: impl AsRef<str>) -> Status {
        let names = [self.name.as_str(), api::meta::name(&self.object), api::meta::generate_name(&self.object)];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
        Status::forbidden(&self.resource.group, &self.resource.plural, name, why.as_ref())
    }
}

/// The chain as a whole. Errors are the answer (403 Forbidden mostly, see [`Status::forbidden`]).
pub trait Admission: Send + Sync + 'static {
    /// Before validation; may change `request.object`.
    fn admit<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>>;
    /// After validation; may add warnings, must not change the object.
    fn validate<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>>;
    /// What it says on `/metrics`.
    fn page(&self) -> String {
        String::new()
    }
}

/// Admits everything (tests).
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit<'a>(&'a self, _: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
    fn validate<'a>(&'a self, _: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}
