//! Watches, and hands what changed to the writer.
//!
//! Models pkg/proxy/nftables/proxier.go, v1.37, its part that watches. Reads Service, EndpointSlice (index: Service). Writes nothing
//! to the API. While one transaction is on its way, everything that changes meanwhile gathers for the next, so a burst needs no
//! timer to become one.
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use client::{Client, Event, Informer, ObjectKey, Subscription};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::{Change, Mesh, Network, ServiceId, ServiceWriter};

use crate::nodes;
use crate::rule::of_service;

/// Services that somebody else proxies, or nobody.
const SELECTOR: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";

/// A node's proxy.
pub struct Proxy {
    client: Client,
    writer: ServiceWriter,
    mesh: Mesh,
    node_name: String,
}

impl Proxy {
    /// A proxy for the node `node_name`, whose endpoints are the local ones.
    pub fn new(client: Client, network: &Network, node_name: impl Into<String>) -> Proxy {
        Proxy { client, writer: network.services(), mesh: network.mesh(), node_name: node_name.into() }
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        let (client, mesh, name) = (self.client.clone(), self.mesh.clone(), self.node_name.clone());
        tokio::join!(nodes::run(&client, &mesh, &name), self.run_services());
    }

    /// A refused change is retried by the writer; here it is told.
    async fn run_services(self) {
        let services: Informer<Service> = Informer::builder(&self.client).labels(SELECTOR).project(slim_service).start();
        let slices: Informer<EndpointSlice> = Informer::builder(&self.client).labels(SELECTOR).project(slim_slice).start();
        slices.add_index(BY_SERVICE, |slice| service_of(slice).iter().map(index_value).collect());
        let mut service_events = services.subscribe();
        let mut slice_events = slices.subscribe();
        services.synced().await;
        slices.synced().await;

        let node = Node { services, slices, name: self.node_name };
        let mut changed: BTreeSet<ObjectKey> = BTreeSet::new();
        drain(&mut service_events, &mut slice_events, &mut changed);
        changed.clear();
        let table = node.table();
        let count = table.len();
        match self.writer.replace(table).await {
            Ok(()) => tracing::info!(services = count, "Service rules loaded"),
            Err(e) => tracing::error!(error = %e, "Services do not work"),
        }
        loop {
            tokio::select! {
                event = service_events.recv() => note_service(&event, &mut changed),
                event = slice_events.recv() => note_slice(&event, &mut changed),
            }
            drain(&mut service_events, &mut slice_events, &mut changed);
            let keys = std::mem::take(&mut changed);
            let changes = keys.iter().map(|key| node.change(key)).collect();
            if let Err(e) = self.writer.apply(changes).await {
                tracing::error!(error = %e, services = keys.len(), "Services may be out of date");
            }
        }
    }
}

fn drain(services: &mut Subscription<Service>, slices: &mut Subscription<EndpointSlice>, changed: &mut BTreeSet<ObjectKey>) {
    while let Some(event) = services.try_recv() {
        note_service(&event, changed);
    }
    while let Some(event) = slices.try_recv() {
        note_slice(&event, changed);
    }
}

fn note_service(event: &Event<Service>, changed: &mut BTreeSet<ObjectKey>) {
    changed.insert(ObjectKey::of(event.object().as_ref()));
}

fn note_slice(event: &Event<EndpointSlice>, changed: &mut BTreeSet<ObjectKey>) {
    // A slice may be given to another Service.
    changed.extend(event.states().filter_map(|slice| service_of(slice)));
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    Some(ObjectKey::new(namespace, labels.get(SERVICE_NAME)?.as_str()))
}

fn index_value(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// Keeps what [`of_service`] reads.
fn slim_service(service: &mut Service) {
    service.metadata.managed_fields = None;
    service.metadata.annotations = None;
    if let Some(status) = &mut service.status {
        status.conditions = None;
    }
}

/// Keeps what [`of_service`] reads: a slice holds up to a thousand endpoints.
fn slim_slice(slice: &mut EndpointSlice) {
    slice.metadata.managed_fields = None;
    slice.metadata.annotations = None;
    slice.metadata.owner_references = None;
    for endpoint in slice.endpoints.iter_mut().flatten() {
        endpoint.target_ref = None;
        endpoint.hostname = None;
        endpoint.deprecated_topology = None;
        endpoint.hints = None;
        endpoint.zone = None;
    }
}

struct Node {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    name: String,
}

impl Node {
    fn change(&self, key: &ObjectKey) -> Change {
        let id = id(key);
        let rule = self.services.get(key).and_then(|service| {
            let slices = self.slices.by_index(BY_SERVICE, &index_value(key));
            of_service(&service, &slices, &self.name)
        });
        match rule {
            Some(rule) => Change::Set(id, rule),
            None => Change::Remove(id),
        }
    }

    fn table(&self) -> network::ServiceTable {
        let all = self.services.list();
        let rules = all.iter().filter_map(|service: &Arc<Service>| {
            let key = ObjectKey::of(service.as_ref());
            match self.change(&key) {
                Change::Set(id, rule) => Some((id, rule)),
                _ => None,
            }
        });
        rules.collect::<HashMap<_, _>>()
    }
}

fn id(key: &ObjectKey) -> ServiceId {
    index_value(key).into()
}
