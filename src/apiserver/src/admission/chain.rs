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
use crate::metrics::{Clock, Times};
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
    times: Arc<Times>,
}

impl Plugins {
    pub fn new(cache: &Cache, authorization: Arc<Authorization>) -> Self {
        let policies = Policies::new(cache, authorization.clone());
        let times = Arc::new(Times::default());
        let webhooks = Webhooks::new(cache, authorization.clone(), times.clone());
        Self { cache: cache.clone(), authorization, policies, webhooks, on_request: Vec::new(), times }
    }

    /// Asks these, too.
    pub fn enable(mut self, plugins: impl IntoIterator<Item = OnRequest>) -> Self {
        self.on_request.extend(plugins);
        self
    }


    /// All that may change the object, once; policies and webhooks come last.
    async fn mutate(&self, request: &mut Request, rounds: &mut Reinvocation, clock: &mut Clock<'_>) -> Result<(), Status> {
        clock.decided("LimitRanger", limit_ranger::admit(&self.cache, request))?;
        clock.decided("ServiceAccount", service_account::admit(&self.cache, request).await)?;
        clock.decided("NodeRestriction", node_restriction::check(&self.cache, &self.authorization, request))?;
        taint_nodes::admit(request);
        clock.done("TaintNodesByCondition");
        if self.on_request.iter().any(|plugin| matches!(plugin, OnRequest::AlwaysPullImages)) {
            always_pull_images::admit(request);
            clock.done("AlwaysPullImages");
        }
        clock.decided("Priority", priority::admit(&self.cache, request))?;
        default_toleration_seconds::admit(request);
        clock.done("DefaultTolerationSeconds");
        clock.decided("RuntimeClass", runtime_class::admit(&self.cache, request))?;
        storage::admit(&self.cache, request);
        clock.done("DefaultStorageClass");
        default_ingress_class::admit(&self.cache, request);
        clock.done("DefaultIngressClass");
        pod_topology_labels::admit(&self.cache, request);
        clock.done("PodTopologyLabels");
        clock.decided("MutatingAdmissionPolicy", self.policies.mutate(request, rounds).await)?;
        clock.decided("MutatingAdmissionWebhook", self.webhooks.mutate(request, rounds).await)
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
            let mut clock = self.times.begin("admit", request.operation);
            self.mutate(request, &mut rounds, &mut clock).await?;
            if rounds.begin_again() {
                self.mutate(request, &mut rounds, &mut clock).await?;
            }
            // Validating upstream; but only here can it add warnings.
            clock.decided("PodSecurity", pod_security::check(&self.cache, &self.times, request))
        })
    }

    fn validate<'a>(&'a self, request: &'a mut Request) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let mut clock = self.times.begin("validate", request.operation);
            // What has no mutating half of its own; webhooks are asked about it all the same.
            let is_whole = matches!(request.operation, Operation::Delete | Operation::Connect) || request.subresource == "eviction";
            if is_whole {
                if request.operation == Operation::Delete {
                    clock.decided("NodeRestriction", node_restriction::check(&self.cache, &self.authorization, request))?;
                }
                let mut rounds = Reinvocation::default();
                clock.decided("MutatingAdmissionPolicy", self.policies.mutate(request, &mut rounds).await)?;
                clock.decided("MutatingAdmissionWebhook", self.webhooks.mutate(request, &mut rounds).await)?;
            }
            clock.decided("NamespaceLifecycle", immortal_namespaces(request))?;
            clock.decided("LimitRanger", limit_ranger::validate(&self.cache, request))?;
            clock.decided("ServiceAccount", service_account::validate(request))?;
            for plugin in &self.on_request {
                match plugin {
                    OnRequest::AlwaysPullImages => clock.decided("AlwaysPullImages", always_pull_images::validate(request))?,
                    OnRequest::DenyServiceExternalIps => clock.decided("DenyServiceExternalIPs", external_ips::validate(request))?,
                    OnRequest::EventRateLimit(limits) => clock.decided("EventRateLimit", limits.validate(request, Instant::now()))?,
                }
            }
            clock.decided("Priority", priority::validate(&self.cache, request))?;
            clock.decided("RuntimeClass", runtime_class::validate(&self.cache, request))?;
            clock.decided("OwnerReferencesPermissionEnforcement", owner_references::validate(&self.cache, &self.authorization, request))?;
            clock.decided("PersistentVolumeClaimResize", storage::validate(&self.cache, request))?;
            clock.decided("CertificateApproval", certificates::validate(&self.authorization, request))?;
            clock.decided("PodResize", pod_resize::validate(&self.cache, request))?;
            // Those two are no plugins upstream, and are in no plugin's time.
            clock.other(self.escalation(request))?;
            clock.other(policy::check_access(&self.cache, &self.authorization, request))?;
            clock.decided("ValidatingAdmissionPolicy", self.policies.validate(request).await)?;
            clock.decided("ValidatingAdmissionWebhook", self.webhooks.validate(request).await)
        })
    }

    fn page(&self) -> String {
        let mut out = String::new();
        self.times.retain_webhooks(|name| self.webhooks.has(name));
        self.times.render(&mut out);
        out
    }
}
