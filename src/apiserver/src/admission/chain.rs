//! The compiled-in plugins, in upstream's order.
//!
//! Models pkg/kubeapiserver/options/plugins.go. NamespaceLifecycle stands in `rest`, beside the namespace's strategy; left
//! out: webhooks, ValidatingAdmissionPolicy, ResourceQuota, storage classes.
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Admission, Operation, Request};
use super::{
    default_ingress_class, default_toleration_seconds, limit_ranger, node_restriction, owner_references, pod_security,
    priority, runtime_class, service_account, taint_nodes,
};
use crate::auth::Authorization;
use crate::auth::rbac::escalation;
use crate::cache::Cache;
use crate::status::Status;

pub struct Chain {
    cache: Cache,
    authorization: Arc<Authorization>,
}

impl Chain {
    pub fn new(cache: Cache, authorization: Arc<Authorization>) -> Self {
        Self { cache, authorization }
    }

    fn escalation(&self, request: &Request) -> Result<(), Status> {
        if request.resource.group != "rbac.authorization.k8s.io" || request.operation == Operation::Delete {
            return Ok(());
        }
        let grant = escalation::Grant {
            user: &request.user,
            plural: request.resource.plural,
            namespace: &request.namespace,
            object: &request.object,
            old: request.old.as_deref(),
        };
        escalation::check(&self.authorization, &grant)
    }
}

impl Admission for Chain {
    fn admit<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            limit_ranger::admit(&self.cache, request)?;
            service_account::admit(&self.cache, request).await?;
            node_restriction::check(&self.cache, request)?;
            taint_nodes::admit(request);
            priority::admit(&self.cache, request)?;
            default_toleration_seconds::admit(request);
            runtime_class::admit(&self.cache, request)?;
            default_ingress_class::admit(&self.cache, request);
            // Validating upstream; but only here can it add warnings.
            pod_security::check(&self.cache, request)
        })
    }

    fn validate<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<(), Status>> {
        let result = || {
            limit_ranger::validate(&self.cache, request)?;
            service_account::validate(request)?;
            if request.operation == Operation::Delete {
                node_restriction::check(&self.cache, request)?; // a delete has no mutating half
            }
            priority::validate(&self.cache, request)?;
            owner_references::validate(&self.authorization, request)?;
            self.escalation(request)
        };
        Box::pin(std::future::ready(result()))
    }
}
