//! Lists the addresses behind each Service that has a selector, in EndpointSlices of at most 100.
//!
//! Models pkg/controller/endpointslice/endpointslice_controller.go and staging/src/k8s.io/endpointslice/{reconciler,utils}.go,
//! v1.37. Left out: topology hints (`trafficDistribution`), and the batch period, which is 0 by default.
//! Reads Service, Pod, Node, EndpointSlice. Writes EndpointSlice.
//! Wakes on Services, on pods whose change endpoints would show, on slices of ours that others changed.
mod pack;
#[cfg(test)]
mod tests;
pub(crate) mod tracker;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{Node, Pod, Service};
use client::k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{
    Client, Controller, DeleteOptions, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, WorkQueue,
};
use jiff::Timestamp;

use self::pack::{Change, Group, pack};
use self::tracker::Tracker;
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::node_lifecycle::{NODE_INDEX, index_by_node};
use crate::ownership::controller_reference;
use crate::pods;
use crate::service_pods as sp;

const NAME: &str = "endpointslice-controller";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Our slices by `namespace/service`.
const SERVICE_INDEX: &str = "managed-of-service";

struct Context {
    client: Client,
    recorder: EventRecorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    trigger_times: sp::TriggerTimes,
    tracker: Tracker,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, "endpoint-slice-controller"),
        client,
        services: cx.informers.get(),
        pods: cx.informers.get(),
        nodes: cx.informers.get(),
        slices: cx.informers.get(),
        trigger_times: sp::TriggerTimes::default(),
        tracker: Tracker::default(),
    });
    index_by_node(&cx.pods);
    cx.slices.add_index(SERVICE_INDEX, |slice: &EndpointSlice| service_of(slice).map(|k| k.to_string()).into_iter().collect());
    let (services, pods, nodes, slices) = (cx.services.clone(), cx.pods.clone(), cx.nodes.clone(), cx.slices.clone());
    Controller::new(NAME, cx)
        .reconciles(&services)
        .watches(&pods, |cx, event| sp::services_of(&cx.services, event))
        .on(&nodes, on_node)
        .on(&slices, on_slice)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// The Service whose slice it is, if it is one of ours.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.label(SERVICE_NAME).filter(|_| slice.label(MANAGED_BY) == Some(MANAGER))?;
    Some(ObjectKey::new(slice.namespace(), name))
}

/// The zone is all that a slice shows of a node; a node that comes may complete pods that came before it.
fn on_node(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Node>) {
    let node = event.object();
    if event.old().is_some_and(|old| old.label(ZONE) == node.label(ZONE)) || !cx.pods.has_synced() {
        return;
    }
    for pod in &cx.pods.by_index(NODE_INDEX, node.name()) {
        for service in cx.services.list_namespace(pod.namespace()) {
            if sp::selects(&service, pod) {
                queue.add(service.key());
            }
        }
    }
}

/// Our own writes are known already; what others did is looked at.
fn on_slice(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<EndpointSlice>) {
    for slice in event.states() {
        if let Some(key) = service_of(slice) {
            let deleted = matches!(event, Event::Deleted(_));
            if cx.tracker.observe(&key, slice, deleted) {
                queue.add(key);
            }
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(service) = cx.services.get(key) else {
        // The slices go with their owner, by garbage collection.
        cx.trigger_times.forget(key);
        cx.tracker.forget(key);
        return Ok(Next::Wait);
    };
    if sp::selector(&service).is_none() || service.is_deleting() {
        return Ok(Next::Wait);
    }
    let existing = cx.slices.by_index(SERVICE_INDEX, &key.to_string());
    cx.tracker.current(&cx.client, key, &existing).await?;
    let pods = sp::selected(&cx.pods, &service);
    let trigger = cx.trigger_times.compute(&service, pods.iter().map(|p| &**p));
    let (changes, missing_nodes) = plan(&service, &pods, &existing, |name| cx.nodes.get(&ObjectKey::cluster(name)), trigger);
    for change in changes {
        if let Err(failure) = execute(cx, key, change).await {
            if failure.api().is_some_and(|e| e.is_namespace_terminating()) {
                return Ok(Next::Wait);
            }
            let message = format!("Error updating Endpoint Slices for Service {key}: {failure}");
            cx.recorder.record(&*service, EventType::Warning, "FailedToUpdateEndpointSlices", message);
            return Err(failure);
        }
    }
    match missing_nodes.is_empty() {
        true => Ok(cx.tracker.next(key, &cx.slices.by_index(SERVICE_INDEX, &key.to_string()))),
        false => Err(Failure::Stale(format!("nodes of pods of Service {key} are unknown: {}", missing_nodes.join(", ")))),
    }
}

async fn execute(cx: &Context, key: &ObjectKey, change: Change) -> Result<(), Failure> {
    match change {
        Change::Create(slice) => {
            let made = cx.client.create(&*slice).await.during(|| format!("create an EndpointSlice of Service {key}"))?;
            cx.tracker.written(key, &made);
        }
        Change::Update(slice) => {
            let made = cx.client.update(&*slice).await.during(|| format!("update EndpointSlice {}", slice.key()))?;
            cx.tracker.written(key, &made);
        }
        Change::Delete(slice) => {
            let options = DeleteOptions::uid(slice.uid());
            unless_gone(cx.client.delete::<EndpointSlice>(&slice.key(), &options).await)
                .during(|| format!("delete EndpointSlice {}", slice.key()))?;
            cx.tracker.deleted(key, &slice);
        }
    }
    Ok(())
}

/// What to write so that the slices show the pods; and the nodes that pods name but that are not there.
fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
    trigger: Option<Timestamp>,
) -> (Vec<Change>, Vec<String>) {
    let families = families(service);
    let template = |kind: &str, ports: &[EndpointPort]| new_slice(service, kind, ports, trigger);
    // A slice cannot change its address type.
    let (mut changes, mut missing) = (Vec::new(), Vec::new());
    for slice in existing.iter().filter(|s| !families.contains(&s.address_type.as_str())) {
        changes.push(Change::Delete(slice.clone()));
    }
    for family in families {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods.iter().filter(|p| sp::belongs(p, true)) {
            let node = node(pods::node_name(pod));
            if node.is_none() && !sp::publishes_not_ready(service) {
                missing.push(pods::node_name(pod).to_owned());
                continue;
            }
            let endpoint = endpoint(pod, node.as_deref(), service, family);
            if !endpoint.addresses.is_empty() {
                let ports = endpoint_ports(service, pod);
                groups.entry(port_key(&ports)).or_insert_with(|| Group::new(ports)).desired.push(endpoint);
            }
        }
        let own: Vec<_> = existing.iter().filter(|s| s.address_type == family).cloned().collect();
        changes.extend(pack(family, groups, &own, &template));
    }
    (changes, missing)
}

fn families(service: &Service) -> Vec<&'static str> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    let types: Vec<_> = families.iter().map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if types.is_empty() { vec!["IPv4"] } else { types }
}

fn endpoint(pod: &Pod, node: Option<&Node>, service: &Service, family: &str) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pod.is_deleting());
    let is_v6 = family == "IPv6";
    let of_family = |ip: &&str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == is_v6);
    Endpoint {
        addresses: sp::addresses(pod).into_iter().filter(of_family).map(str::to_owned).collect(),
        conditions: Some(EndpointConditions {
            ready: Some(sp::publishes_not_ready(service) || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: sp::hostname(pod, service),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(sp::reference(pod)),
        zone: node.and_then(|n| n.label(ZONE)).filter(|z| !z.is_empty()).map(str::to_owned),
        ..Default::default()
    }
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let port = |port: &client::k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(sp::find_port(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    sp::ports(service).iter().filter_map(port).collect()
}

/// Equal for equal sets of ports, in whatever order.
fn port_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<_> = ports
        .iter()
        .map(|p| format!("{:?}/{:?}/{:?}/{:?}", p.name.as_deref().unwrap_or_default(), p.port, p.protocol, p.app_protocol))
        .collect();
    keys.sort();
    keys.join(",")
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(sp::HEADLESS);
    if !sp::has_cluster_ip(service) {
        labels.insert(sp::HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_slice(service: &Service, kind: &str, ports: &[EndpointPort], trigger: Option<Timestamp>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            generate_name: Some(format!("{}-", service.name())),
            labels: Some(labels(service)),
            annotations: trigger.map(|at| BTreeMap::from([(sp::TRIGGER_TIME.to_owned(), at.to_string())])),
            owner_references: Some(vec![controller_reference(service)]),
            ..Default::default()
        },
        address_type: kind.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports.to_vec()),
    }
}
