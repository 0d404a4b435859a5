//! Follows the API and replaces the tables when something changed.
//!
//! Changes that come while a table is built are taken up by the next one: a burst costs two builds, not hundreds.
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client::{Client, HandlerGuard, Informer, Named, ObjectKey};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use tokio::sync::Notify;

use crate::config::IngressConfig;
use crate::routes::{Routes, build, is_served};
use crate::status;
use crate::tls::{Certificates, Resolver, certified_key};

const BY_SERVICE: &str = "service";

pub struct Sources {
    client: Client,
    ingresses: Informer<Ingress>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    secrets: Informer<Secret>,
    changed: Arc<Notify>,
    _handlers: Vec<HandlerGuard>,
}

impl Sources {
    pub fn new(client: &Client) -> Self {
        let ingresses = Informer::<Ingress>::builder(client).start();
        let services = Informer::<Service>::builder(client).start();
        let slices = Informer::<EndpointSlice>::builder(client).start();
        let secrets = Informer::<Secret>::builder(client).fields("type=kubernetes.io/tls").start();
        slices.add_index(BY_SERVICE, |s: &EndpointSlice| {
            s.label("kubernetes.io/service-name").map(|name| format!("{}/{name}", s.namespace())).into_iter().collect()
        });
        let changed = Arc::new(Notify::new());
        let wake = || {
            let changed = changed.clone();
            move || changed.notify_one()
        };
        let (a, b, c, d) = (wake(), wake(), wake(), wake());
        let handlers =
            vec![ingresses.on_event(move |_| a()), services.on_event(move |_| b()), slices.on_event(move |_| c()), secrets.on_event(move |_| d())];
        Self { client: client.clone(), ingresses, services, slices, secrets, changed, _handlers: handlers }
    }

    pub async fn synced(&self) {
        tokio::join!(self.ingresses.synced(), self.services.synced(), self.slices.synced(), self.secrets.synced());
    }

    /// Keeps `routes` and the certificates in step with the API; `ready` is called after the first build.
    pub async fn follow(self, config: IngressConfig, routes: Arc<ArcSwap<Routes>>, resolver: Arc<Resolver>, ready: impl FnOnce()) {
        self.synced().await;
        let mut backends = HashMap::new();
        let mut ready = Some(ready);
        loop {
            let served: Vec<_> = self.ingresses.list().into_iter().filter(|i| is_served(i, &config.class)).collect();
            let (table, kept) = build(
                &served,
                |key| self.services.get(key),
                |key| self.slices.by_index(BY_SERVICE, &key.to_string()),
                &backends,
            );
            backends = kept;
            routes.store(Arc::new(table));
            resolver.current.store(Arc::new(self.certificates(&served)));
            if let Some(ready) = ready.take() {
                ready();
            }
            let service = self.services.get(&config.service);
            for ingress in &served {
                status::publish(&self.client, ingress, service.as_deref()).await;
            }
            self.changed.notified().await;
        }
    }

    fn certificates(&self, served: &[Arc<Ingress>]) -> Certificates {
        let mut ordered: Vec<_> = served.iter().collect();
        ordered.sort_by_key(|i| (i.metadata.creation_timestamp.as_ref().map(|t| t.0), i.key()));
        let mut certificates = Certificates::default();
        for ingress in ordered {
            for tls in ingress.spec.iter().flat_map(|s| s.tls.iter().flatten()) {
                let Some(name) = &tls.secret_name else { continue };
                let key = ObjectKey::new(ingress.namespace(), name.as_str());
                let Some(secret) = self.secrets.get(&key) else { continue };
                match certified_key(&secret) {
                    Ok(certified) => {
                        let certified = Arc::new(certified);
                        for host in tls.hosts.iter().flatten() {
                            certificates.add(host, certified.clone());
                        }
                    }
                    Err(error) => tracing::warn!(secret = %key, ingress = %ingress.key(), error, "certificate not usable"),
                }
            }
        }
        certificates
    }
}
