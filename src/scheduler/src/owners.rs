//! Which pods belong together by what selects them: Services, and the controller that made them.
//!
//! Models pkg/scheduler/framework/plugins/helper/spread.go `DefaultSelector`, v1.37.
use std::collections::BTreeMap;

use api::selector::LabelSelector;
use client::{Client, Informer, Kind, ObjectKey};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerSpec, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as TypedSelector, ObjectMeta};

use crate::pod::PodInfo;

pub trait OwnerView: Send + Sync {
    /// Empty where nothing selects the pod.
    fn selector_of(&self, pod: &PodInfo) -> LabelSelector;
}

pub struct Owners {
    services: Informer<Service>,
    controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
}

/// Keeps the name only, and what `keep` copies over.
fn slim<K: Kind + Default>(keep: impl Fn(&mut K, &mut K) + Send + Sync + 'static) -> impl Fn(&mut K) + Send + Sync + 'static {
    move |object| {
        let mut slim = K::default();
        let meta = object.metadata_mut();
        *slim.metadata_mut() = ObjectMeta {
            name: meta.name.take(),
            namespace: meta.namespace.take(),
            uid: meta.uid.take(),
            resource_version: meta.resource_version.take(),
            ..ObjectMeta::default()
        };
        keep(object, &mut slim);
        *object = slim;
    }
}

impl Owners {
    pub fn new(client: &Client) -> Self {
        let services = slim(|from: &mut Service, to| {
            let selector = from.spec.take().and_then(|s| s.selector);
            to.spec = Some(ServiceSpec { selector, ..Default::default() });
        });
        let controllers = slim(|from: &mut ReplicationController, to| {
            let selector = from.spec.take().and_then(|s| s.selector);
            to.spec = Some(ReplicationControllerSpec { selector, ..Default::default() });
        });
        let replica_sets = slim(|from: &mut ReplicaSet, to| {
            to.spec = ReplicaSetSpec { selector: std::mem::take(&mut from.spec.selector), ..Default::default() };
        });
        let stateful_sets = slim(|from: &mut StatefulSet, to| {
            to.spec = StatefulSetSpec { selector: std::mem::take(&mut from.spec.selector), ..Default::default() };
        });
        Self {
            services: Informer::builder(client).project(services).start(),
            controllers: Informer::builder(client).project(controllers).start(),
            replica_sets: Informer::builder(client).project(replica_sets).start(),
            stateful_sets: Informer::builder(client).project(stateful_sets).start(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(self.services.synced(), self.controllers.synced(), self.replica_sets.synced(), self.stateful_sets.synced());
    }
}

/// The labels all of which Services ask for, and beside them what the controller selects by.
fn combined(labels: &BTreeMap<String, String>, controller: Option<&TypedSelector>) -> LabelSelector {
    let mut typed = TypedSelector { match_labels: Some(labels.clone()), match_expressions: None };
    if let Some(controller) = controller {
        typed.match_labels.get_or_insert_default().extend(controller.match_labels.clone().unwrap_or_default());
        typed.match_expressions = controller.match_expressions.clone();
    }
    crate::pod::selector(Some(&typed))
}

impl OwnerView for Owners {
    fn selector_of(&self, pod: &PodInfo) -> LabelSelector {
        let namespace = pod.key.namespace.as_str();
        let mut labels = BTreeMap::new();
        for service in self.services.list_namespace(namespace) {
            let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { continue };
            if selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v)) {
                labels.extend(selector.clone());
            }
        }
        let Some(owner) = &pod.owner else { return combined(&labels, None) };
        let key = ObjectKey::new(namespace, owner.name.clone());
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => {
                if let Some(controller) = self.controllers.get(&key) {
                    labels.extend(controller.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default());
                }
                combined(&labels, None)
            }
            ("apps/v1", "ReplicaSet") => {
                let set = self.replica_sets.get(&key);
                combined(&labels, set.as_ref().map(|s| &s.spec.selector))
            }
            ("apps/v1", "StatefulSet") => {
                let set = self.stateful_sets.get(&key);
                combined(&labels, set.as_ref().map(|s| &s.spec.selector))
            }
            _ => combined(&labels, None),
        }
    }
}

/// A cluster in which nothing selects pods.
#[cfg(test)]
pub struct Nobody;

#[cfg(test)]
impl OwnerView for Nobody {
    fn selector_of(&self, _: &PodInfo) -> LabelSelector {
        LabelSelector::everything()
    }
}
