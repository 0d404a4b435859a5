//! May they: `system:masters` always, then the node authorizer, then RBAC; the first that has an opinion decides.
//!
//! Models k8s.io/apiserver/pkg/authorization/{union,authorizerfactory}.
use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::{Attributes, Authorizer, Decision, UserInfo, UserRules, Verdict};
use crate::cache::Cache;

pub struct Authorization {
    node: NodeAuthorizer,
    rbac: Rbac,
}

impl Authorization {
    /// Listens to roles, bindings and pods in `cache`; make one and share it.
    pub fn new(cache: &Cache) -> Self {
        Self { node: NodeAuthorizer::new(cache), rbac: Rbac::new(cache) }
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }
}

impl Authorizer for Authorization {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group("system:masters") {
            return Decision::allow("");
        }
        let node = self.node.authorize(attributes);
        if node.verdict != Verdict::NoOpinion {
            return node;
        }
        let mut decision = self.rbac.authorize(attributes);
        if decision.verdict == Verdict::NoOpinion && !node.reason.is_empty() {
            let reasons = [node.reason, decision.reason];
            decision.reason = reasons.into_iter().filter(|reason| !reason.is_empty()).collect::<Vec<_>>().join("\n");
        }
        decision
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut rules = self.rbac.rules_for(user, namespace);
        if super::node::name_of(user).is_some() {
            rules.incomplete = true;
            let why = "node authorizer does not support user rule resolution".to_owned();
            let errors = [why, std::mem::take(&mut rules.evaluation_error)];
            rules.evaluation_error = errors.into_iter().filter(|e| !e.is_empty()).collect::<Vec<_>>().join(", ");
        }
        rules
    }
}
