//! The compiled-in plugins, in upstream's order.
//!
//! Models pkg/kubeapiserver/options/plugins.go. What NamespaceLifecycle says of creations stands in `rest`, and
//! so does the call of ResourceQuota; left out: webhooks, ValidatingAdmissionPolicy.
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Admission, Operation, Request};
use super::{
    certificates, default_ingress_class, default_toleration_seconds, limit_ranger, node_restriction, owner_references,
    pod_security, priority, runtime_class, service_account, storage, taint_nodes,
};
use crate::auth::Authorization;
use crate::auth::rbac::escalation;
use crate::cache::Cache;
use crate::status::Status;

pub struct Plugins {
    cache: Cache,
    authorization: Arc<Authorization>,
}

impl Plugins {
    pub fn new(cache: &Cache, authorization: Arc<Authorization>) -> Self {
        Self { cache: cache.clone(), authorization }
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

/// Models the deleting half of plugin/namespace/lifecycle.
fn immortal_namespaces(request: &Request) -> Result<(), Status> {
    let immortal = ["default", "kube-system", "kube-public"].contains(&request.name.as_str());
    if immortal && request.operation == Operation::Delete && request.is("", "namespaces") {
        return Err(request.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}

impl Admission for Plugins {
    fn admit<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            limit_ranger::admit(&self.cache, request)?;
            service_account::admit(&self.cache, request).await?;
            node_restriction::check(&self.cache, &self.authorization, request)?;
            taint_nodes::admit(request);
            priority::admit(&self.cache, request)?;
            default_toleration_seconds::admit(request);
            runtime_class::admit(&self.cache, request)?;
            storage::admit(&self.cache, request);
            default_ingress_class::admit(&self.cache, request);
            // Validating upstream; but only here can it add warnings.
            pod_security::check(&self.cache, request)
        })
    }

    fn validate<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<(), Status>> {
        let result = || {
            immortal_namespaces(request)?;
            limit_ranger::validate(&self.cache, request)?;
            service_account::validate(request)?;
            if request.operation == Operation::Delete {
                node_restriction::check(&self.cache, &self.authorization, request)?; // a delete has no mutating half
            }
            priority::validate(&self.cache, request)?;
            certificates::validate(&self.authorization, request)?;
            owner_references::validate(&self.authorization, request)?;
            self.escalation(request)
        };
        Box::pin(std::future::ready(result()))
    }
}
