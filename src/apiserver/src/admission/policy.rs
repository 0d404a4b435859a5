//! Asks policies: rules that mutate and rules that validate, written as expressions.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/policy/{generic,validating,mutating}. Policies and bindings are kept in step with the watch cache
//! ([`index`]), compiled when the first request comes that one is about; which of them that is, and with which parameters, [`select`] says.
//! Expressions run on the request's own task and wait for nothing; their cost is bounded. Left out: validation failures and
//! annotations for the audit log (there is none to write them to), policies from files.
mod access;
mod index;
mod mutating;
mod patch;
mod select;
#[cfg(test)]
mod tests;
mod validating;

use std::cell::RefCell;
use std::sync::Arc;

use api::tree::Tree;

use self::index::Index;
use self::mutating::Mutations;
use self::validating::Validations;
use super::reinvocation::Reinvocation;
use super::{Operation, Request, matching};
use crate::auth::Authorization;
use crate::cache::{Cache, Cached};
use crate::status::Status;

pub use access::check as check_access;

static NULL: Tree = Tree::Null;

pub struct Policies {
    cache: Cache,
    authorization: Arc<Authorization>,
    mutating: Index<Mutations>,
    validating: Index<Validations>,
}

impl Policies {
    /// Listens to policies and bindings in `cache`.
    pub fn new(cache: &Cache, authorization: Arc<Authorization>) -> Self {
        let mutating = Index::follow(cache, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        let validating = Index::follow(cache, "validatingadmissionpolicies", "validatingadmissionpolicybindings");
        Self { cache: cache.clone(), authorization, mutating, validating }
    }

    /// One round of the mutating policies.
    pub async fn mutate(&self, request: &mut Request, rounds: &mut Reinvocation) -> Result<(), Status> {
        let policies = self.mutating.active();
        if policies.is_empty() || request.operation == Operation::Delete || matching::is_exempt(request) {
            return Ok(());
        }
        mutating::mutate(&self.cache, &self.authorization, &policies, request, rounds).await
    }

    /// All validating policies; the first refusal counts.
    pub async fn validate(&self, request: &mut Request) -> Result<(), Status> {
        let policies = self.validating.active();
        if policies.is_empty() || matching::is_exempt(request) {
            return Ok(());
        }
        validating::validate(&self.cache, &self.authorization, &policies, request).await
    }
}

/// How many namespaces each thread keeps as trees: requests come in bursts that are about few of them, and namespaces hardly ever change.
const NAMESPACES_KEPT: usize = 4;

thread_local! {
    /// Namespaces as expressions saw them last, the one used last standing last.
    static NAMESPACES: RefCell<Vec<(Arc<Cached>, Arc<Tree>)>> = const { RefCell::new(Vec::new()) };
}

/// The namespace of the request; null for what is in none. A namespace is not in itself here.
fn namespace_of(cache: &Cache, request: &Request) -> Result<Arc<Tree>, Status> {
    if request.namespace.is_empty() || (request.resource.group.is_empty() && request.resource.kind == "Namespace") {
        return Ok(Arc::default());
    }
    let found = cache.get("", "namespaces", "", &request.namespace);
    let found = found.ok_or_else(|| Status::not_found("", "namespaces", &request.namespace))?;
    Ok(NAMESPACES.with_borrow_mut(|kept| {
        // By identity: each state of a namespace is an object of its own.
        let entry = match kept.iter().position(|(known, _)| Arc::ptr_eq(known, &found)) {
            Some(at) => kept.remove(at),
            None => {
                let tree = Arc::new(shown(&found));
                // Of its earlier states none is asked for any more.
                kept.retain(|(known, _)| known.key != found.key);
                (found, tree)
            }
        };
        if kept.len() >= NAMESPACES_KEPT {
            kept.remove(0);
        }
        let tree = entry.1.clone();
        kept.push(entry);
        tree
    }))
}

fn shown(namespace: &Cached) -> Tree {
    let mut namespace = namespace.tree();
    for field in ["kind", "apiVersion"] {
        namespace.remove(&[field]);
    }
    for field in ["managedFields", "ownerReferences", "selfLink"] {
        namespace.remove(&["metadata", field]);
    }
    namespace
}
