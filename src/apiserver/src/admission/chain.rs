//! The compiled-in plugins, in upstream's order.
//!
//! Models pkg/kubeapiserver/options/plugins.go. What NamespaceLifecycle says of creations stands in `rest`, and
//! so does the call of ResourceQuota; left out: admission policies.
use std::sync::Arc;

use futures::future::BoxFuture;

use super::webhook::{Reinvocation, Webhooks};
use super::{Admission, Operation, Request};
use super::{
    certificates, default_ingress_class, default_toleration_seconds, limit_ranger, node_restriction, owner_references,
    pod_resize, pod_security, priority, runtime_class, service_account, storage, taint_nodes,
};
use crate::auth::Authorization;
use crate::auth::rbac::escalation;
use crate::cache::Cache;
use crate::status::Status;

pub struct Plugins {
    cache: Cache,
    authorization: Arc<Authorization>,
    webhooks: Webhooks,
}

impl Plugins {
    pub fn new(cache: &Cache, authorization: Arc<Authorization>) -> Self {
        Self { cache: cache.clone(), authorization, webhooks: Webhooks::new(cache) }
    }

    /// All that may change the object, once; webhooks come last.
    async fn mutate(&self, request: &mut Request, rounds: &mut Reinvocation) -> Result<(), Status> {
        limit_ranger::admit(&self.cache, request)?;
        service_account::admit(&self.cache, request).await?;
        node_restriction::check(&self.cache, &self.authorization, request)?;
        taint_nodes::admit(request);
        priority::admit(&self.cache, request)?;
        default_toleration_seconds::admit(request);
        runtime_class::admit(&self.cache, request)?;
        storage::admit(&self.cache, request);
        default_ingress_class::admit(&self.cache, request);
        self.webhooks.mutate(request, rounds).await
    }

    fn escalation(&self, request: &Request) -> Result<(), Status> {
        if request.resource.group != "rbac.authorization.k8s.io" || request.operation == Operation::Delete {
            return Ok(());
        }
        let grant = escalation::Grant {
            user: &request.user,
            plural: &request.resource.plural,
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
            let mut rounds = Reinvocation::default();
            self.mutate(request, &mut rounds).await?;
            if rounds.begin_again() {
                self.mutate(request, &mut rounds).await?;
            }
            // Validating upstream; but only here can it add warnings.
            pod_security::check(&self.cache, request)
        })
    }

    fn validate<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            // What has no mutating half of its own; webhooks are asked about it all the same.
            let is_whole = matches!(request.operation, Operation::Delete | Operation::Connect) || request.subresource == "eviction";
            if is_whole {
                if request.operation == Operation::Delete {
                    node_restriction::check(&self.cache, &self.authorization, request)?;
                }
                self.webhooks.mutate(request, &mut Reinvocation::default()).await?;
            }
            immortal_namespaces(request)?;
            limit_ranger::validate(&self.cache, request)?;
            service_account::validate(request)?;
            priority::validate(&self.cache, request)?;
            storage::validate(&self.cache, request)?;
            certificates::validate(&self.authorization, request)?;
            owner_references::validate(&self.cache, &self.authorization, request)?;
            self.escalation(request)?;
            pod_resize::validate(&self.cache, request)?;
            self.webhooks.validate(request).await
        })
    }
}
