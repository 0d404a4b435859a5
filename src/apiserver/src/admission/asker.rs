//! The variable `authorizer` of expressions, bound to the server's own authorizer.
//!
//! Models k8s.io/apiserver/pkg/cel/library/authz.go and pkg/admission/plugin/authorizer/caching_authorizer.go.
use std::cell::RefCell;

use api::selector::{FieldSelector, LabelSelector};
use cel::{Check, Decision, What};

use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorizer, UserInfo, Verdict, service_account};

/// Asks for one request; the same question is asked once.
pub struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    user: &'a UserInfo,
    known: RefCell<Vec<(Check, Decision)>>,
}

impl<'a> Asker<'a> {
    pub fn new(authorizer: &'a dyn Authorizer, user: &'a UserInfo) -> Self {
        Self { authorizer, user, known: RefCell::default() }
    }

    fn ask(&self, check: &Check) -> Decision {
        let account = check.service_account.as_ref().map(|(namespace, name)| service_account(namespace, name));
        // A selector that does not parse limits nothing, as upstream has it.
        let selector = |of: &cel::ResourceCheck| of.field_selector.as_deref().and_then(|text| FieldSelector::parse(text).ok());
        let (fields, labels) = match &check.what {
            What::Resource(of) => (selector(of), of.label_selector.as_deref().and_then(|text| LabelSelector::parse(text).ok())),
            What::Path(_) => (None, None),
        };
        let none = Attributes {
            user: account.as_ref().unwrap_or(self.user),
            verb: &check.verb,
            api_group: "",
            api_version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            resource_request: false,
            path: "",
            fields: fields.as_ref().unwrap_or(&ALL_FIELDS),
            labels: labels.as_ref().unwrap_or(&ALL_LABELS),
        };
        let attributes = match &check.what {
            What::Path(of) => Attributes { path: &of.path, ..none },
            What::Resource(of) => Attributes {
                api_group: &of.group,
                api_version: "*",
                resource: &of.resource,
                subresource: &of.subresource,
                namespace: &of.namespace,
                name: &of.name,
                resource_request: true,
                ..none
            },
        };
        let decision = self.authorizer.authorize(&attributes);
        let error = Some(decision.failure).filter(|failure| !failure.is_empty());
        Decision { allowed: decision.verdict == Verdict::Allow, reason: decision.reason, error }
    }
}

impl cel::Authorize for Asker<'_> {
    fn check(&self, check: &Check) -> Decision {
        if let Some((_, decision)) = self.known.borrow().iter().find(|(known, _)| known == check) {
            return decision.clone();
        }
        let decision = self.ask(check);
        self.known.borrow_mut().push((check.clone(), decision.clone()));
        decision
    }
}
