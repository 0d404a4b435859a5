//! The Services and endpoints that names stand for.
use std::net::IpAddr;
use std::sync::Arc;

use client::{Client, Informer, ObjectKey};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";
const BY_ADDRESS: &str = "address";

/// Where names are looked up.
pub(crate) trait Catalog: Send + Sync + 'static {
    fn is_complete(&self) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// Whether any Service is in it.
    fn has_namespace(&self, namespace: &str) -> bool;
    fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>>;
    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The Service that a slice belongs to.
pub(crate) fn service_name(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(SERVICE_NAME).map(String::as_str)
}

/// Mirrors of the API server's objects, cut down to what names need.
#[derive(Clone)]
pub(crate) struct Mirrors {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Mirrors {
    /// Starts to list and watch.
    pub(crate) fn start(client: &Client) -> Mirrors {
        let services: Informer<Service> = Informer::builder(client).project(slim_service).start();
        services.add_index(BY_ADDRESS, |service| {
            let spec = service.spec.as_ref();
            let ips = spec.and_then(|s| s.cluster_ips.clone()).unwrap_or_default();
            ips.into_iter().filter(|ip| ip != "None").collect()
        });
        let slices: Informer<EndpointSlice> = Informer::builder(client).labels(SERVICE_NAME).project(slim_slice).start();
        slices.add_index(BY_SERVICE, |slice| {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service_name(slice).map(|name| format!("{namespace}/{name}")).into_iter().collect()
        });
        slices.add_index(BY_ADDRESS, |slice| slice.endpoints.iter().flatten().flat_map(|e| e.addresses.clone()).collect());
        Mirrors { services, slices }
    }

    pub(crate) async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }
}

fn slim_service(service: &mut Service) {
    service.metadata.managed_fields = None;
    service.metadata.annotations = None;
    service.metadata.labels = None;
    service.status = None;
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
        spec.external_ips = None;
    }
}

fn slim_slice(slice: &mut EndpointSlice) {
    slice.metadata.managed_fields = None;
    slice.metadata.annotations = None;
    slice.metadata.owner_references = None;
    for endpoint in slice.endpoints.iter_mut().flatten() {
        endpoint.target_ref = None;
        endpoint.node_name = None;
        endpoint.zone = None;
        endpoint.hints = None;
        endpoint.deprecated_topology = None;
    }
}

impl Catalog for Mirrors {
    fn is_complete(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&ObjectKey::new(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        !self.services.list_namespace(namespace).is_empty()
    }

    fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &address.to_string())
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &address.to_string())
    }
}
