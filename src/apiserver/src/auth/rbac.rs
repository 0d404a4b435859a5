//! Role-based access control over the watch cache.
//!
//! Models plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac/validation. Roles and bindings are parsed once, when they
//! change: the cache's listener notes the object as it became (the cache itself does not show it yet), and the next question
//! takes it up. So a policy that was acknowledged decides every later request.
pub mod escalation;
mod policy;
pub mod rules;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use api::registry::Registry;

use super::{Attributes, Decision, PolicyRule, UserInfo, UserRules};
use crate::cache::{Cache, Cached};
use policy::{Kind, Policy};

pub const GROUP: &str = "rbac.authorization.k8s.io";

pub struct Rbac {
    policy: RwLock<Policy>,
    stale: Arc<Stale>,
}

/// What changed since the policy was last brought up to date.
#[derive(Default)]
struct Stale {
    any: AtomicBool,
    objects: Mutex<Vec<(Kind, Arc<Cached>, bool)>>,
}

impl Stale {
    fn note(&self, kind: Kind, object: &Arc<Cached>, deleted: bool) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).push((kind, Arc::clone(object), deleted));
        self.any.store(true, Ordering::Release);
    }
}

impl Rbac {
    pub fn new(cache: &Cache) -> Self {
        let stale = Arc::new(Stale::default());
        for kind in Kind::ALL {
            let resource = Registry::get().resource(GROUP, "v1", kind.plural());
            if let Some(id) = resource.and_then(|resource| cache.kind(resource)) {
                let stale = Arc::clone(&stale);
                cache.listen(id, Box::new(move |change| stale.note(kind, &change.object, change.deleted)));
            }
            // After listening: what changes meanwhile is noted twice, never missed.
            for object in cache.list(GROUP, kind.plural(), None) {
                stale.note(kind, &object, false);
            }
        }
        Self { policy: RwLock::default(), stale }
    }

    fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        if self.stale.any.load(Ordering::Acquire) {
            let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            self.stale.any.store(false, Ordering::Release);
            let objects = std::mem::take(&mut *self.stale.objects.lock().unwrap_or_else(PoisonError::into_inner));
            for (kind, object, deleted) in objects {
                let tree = (!deleted).then(|| object.tree());
                policy.set(kind, object.namespace(), object.name(), tree.as_ref());
            }
        }
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let policy = self.policy();
        let mut missing = Vec::new();
        let namespace = if attributes.resource_request { attributes.namespace } else { "" };
        let allowed = policy.visit(attributes.user, namespace, &mut missing, |rule, source| {
            rules::allows(rule, attributes).then(|| source.describe())
        });
        match allowed {
            Some(by) => Decision::allow(format!("RBAC: allowed by {by}")),
            None if missing.is_empty() => Decision::no_opinion(""),
            None => {
                let errors = crate::status::aggregate(&missing);
                Decision { evaluation_error: errors.clone(), ..Decision::no_opinion(format!("RBAC: {errors}")) }
            }
        }
    }

    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut missing = Vec::new();
        let mut found = Vec::new();
        self.policy().visit(user, namespace, &mut missing, |rule, _| {
            found.push(rule.clone());
            None::<()>
        });
        UserRules { rules: found, incomplete: !missing.is_empty(), evaluation_error: crate::status::aggregate(&missing) }
    }

    /// The rules of the role that a binding in `namespace` (`""`: a ClusterRoleBinding) refers to.
    pub fn rules_of(&self, namespace: &str, kind: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.policy().role(namespace, kind, name)
    }
}
