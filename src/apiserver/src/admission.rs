//! What is checked and changed between decoding and storing: the types of the request path, and (in `admission/`) the plugins.
use std::sync::Arc;

use api::registry::Resource;
use api::tree::Tree;
use futures::future::BoxFuture;

use crate::auth::UserInfo;
use crate::status::Status;

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
    pub user: UserInfo,
    pub operation: Operation,
    pub resource: &'static Resource,
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

/// The chain as a whole. Errors are the answer (403 Forbidden mostly, see [`Status::forbidden`]).
pub trait Admission: Send + Sync + 'static {
    /// Before validation; may change `request.object`.
    fn admit<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>>;
    /// After validation; must not change the object.
    fn validate<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<(), Status>>;
}

/// Admits everything (tests).
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit<'a>(&'a self, _: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
    fn validate<'a>(&'a self, _: &'a Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}
