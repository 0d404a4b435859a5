//! The compiled-in plugins, in upstream's order.
//!
//! Models pkg/kubeapiserver/options/plugins.go. What NamespaceLifecycle says of creations stands in `rest`, and
//! so does the call of ResourceQuota.
use std::sync::Arc;

use api::tree::Tree;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::event_rate_limit::EventRateLimit;
use super::policy::{self, Policies};
use super::reinvocation::Reinvocation;
use super::webhook::Webhooks;
use super::{Admission, Operation, Request};
use super::{
    always_pull_images, certificates, default_ingress_class, default_toleration_seconds, external_ips, limit_ranger,
    node_restriction, owner_references, pod_resize, pod_security, pod_topology_labels, priority, runtime_class, service_account, storage,
    taint_nodes,
};
use crate::auth::Authorization;
use crate::auth::rbac::escalation;
use crate::cache::Cache;
use crate::status::Status;

/// What upstream has, and only asks where it is told to (`--enable-admission-plugins`).
pub enum OnRequest {
    AlwaysPullImages,
    DenyServiceExternalIps,
    EventRateLimit(EventRateLimit),
}

impl OnRequest {
    /// Upstream's names.
    pub const NAMES: [&str; 3] = ["AlwaysPullImages", "DenyServiceExternalIPs", "EventRateLimit"];

    /// By upstream's name, with its configuration (null: none). `Err` says what is wrong with that.
    pub fn named(name: &str, configuration: &Tree) -> Option<Result<Self, String>> {
        Some(Ok(match name {
            "AlwaysPullImages" => Self::AlwaysPullImages,
            "DenyServiceExternalIPs" => Self::DenyServiceExternalIps,
            "EventRateLimit" => match EventRateLimit::new(configuration) {
                Ok(limits) => Self::EventRateLimit(limits),
                Err(errors) => return Some(Err(api::field_error::aggregate(&errors))),
            },
            _ => return None,
        }))
    }
}

pub struct Plugins {
    cache: Cache,
    authorization: Arc<Authorization>,
    policies: Policies,
    webhooks: Webhooks,
    on_request: Vec<OnRequest>,
}

impl Plugins {
    pub fn new(cache: &Cache, authorization: Arc<Authorization>) -> Self {
        let policies = Policies::new(cache, authorization.clone());
        let webhooks = Webhooks::new(cache, authorization.clone());
        Self { cache: cache.clone(), authorization, policies, webhooks, on_request: Vec::new() }
    }

    /// Asks these, too.
    pub fn enable(mut self, plugins: impl IntoIterator<Item = OnRequest>) -> Self {
        self.on_request.extend(plugins);
        self
    }


    /// All that may change the object, once; policies and webhooks come last.
    async fn mutate(&self, request: &mut Request, rounds: &mut Reinvocation) -> Result<(), Status> {
        limit_ranger::admit(&self.cache, request)?;
        service_account::admit(&self.cache, request).await?;
        node_restriction::check(&self.cache, &self.authorization, request)?;
        taint_nodes::admit(request);
        if self.on_request.iter().any(|plugin| matches!(plugin, OnRequest::AlwaysPullImages)) {
            always_pull_images::admit(request);
        }
        priority::admit(&self.cache, request)?;
        default_toleration_seconds::admit(request);
        runtime_class::admit(&self.cache, request)?;
        storage::admit(&self.cache, request);
        default_ingress_class::admit(&self.cache, request);
        pod_topology_labels::admit(&self.cache, request);
        self.policies.mutate(request, rounds).await?;
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
                let mut rounds = Reinvocation::default();
                self.policies.mutate(request, &mut rounds).await?;
                self.webhooks.mutate(request, &mut rounds).await?;
            }
            immortal_namespaces(request)?;
            limit_ranger::validate(&self.cache, request)?;
            service_account::validate(request)?;
            for plugin in &self.on_request {
                match plugin {
                    OnRequest::AlwaysPullImages => always_pull_images::validate(request)?,
                    OnRequest::DenyServiceExternalIps => external_ips::validate(request)?,
                    OnRequest::EventRateLimit(limits) => limits.validate(request, Instant::now())?,
                }
            }
            priority::validate(&self.cache, request)?;
            owner_references::validate(&self.cache, &self.authorization, request)?;
            storage::validate(&self.cache, request)?;
            certificates::validate(&self.authorization, request)?;
            pod_resize::validate(&self.cache, request)?;
            self.escalation(request)?;
            policy::check_access(&self.cache, &self.authorization, request)?;
            self.policies.validate(request).await?;
            self.webhooks.validate(request).await
        })
    }
}
