//! Shows Endpoints that people write by hand, for Services without a selector, as EndpointSlices.
//!
//! Models pkg/controller/endpointslicemirroring, v1.37. Left out: the batch period, which is 0 by default.
//! Reads Endpoints, Service, EndpointSlice. Writes EndpointSlice.
//! Wakes on Endpoints, on the Service of the same name, on slices of ours that others changed.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use client::k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Controller, DeleteOptions, Event, Informer, Named, Next, ObjectKey, WorkQueue};

use crate::context::ControllerContext;
use crate::endpointslice::tracker::Tracker;
use crate::failure::{During, Failure, unless_gone};
use crate::ownership::controller_reference;
use crate::service_pods as sp;

const NAME: &str = "endpointslicemirroring-controller";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Of each subset (`--mirroring-max-endpoints-per-subset`).
const ADDRESSES_MAX: usize = 1000;
/// Our slices by `namespace/service`.
const SERVICE_INDEX: &str = "mirrored-of-service";

struct Context {
    client: Client,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    tracker: Tracker,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let (endpoints, services, slices) = (cx.informers.get(), cx.informers.get(), cx.informers.get());
    let cx = Arc::new(Context { client, endpoints, services, slices, tracker: Tracker::default() });
    cx.slices.add_index(SERVICE_INDEX, |slice: &EndpointSlice| service_of(slice).map(|k| k.to_string()).into_iter().collect());
    let (endpoints, services, slices) = (cx.endpoints.clone(), cx.services.clone(), cx.slices.clone());
    Controller::new(NAME, cx)
        .reconciles(&endpoints)
        .watches(&services, |_, event: &Event<Service>| vec![event.object().key()])
        .on(&slices, on_slice)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.label(SERVICE_NAME).filter(|_| slice.label(MANAGED_BY) == Some(MANAGER))?;
    Some(ObjectKey::new(slice.namespace(), name))
}

fn on_slice(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<EndpointSlice>) {
    let deleted = matches!(event, Event::Deleted(_));
    for (key, slice) in event.states().filter_map(|slice| Some((service_of(slice)?, slice))) {
        if cx.tracker.observe(&key, slice, deleted) {
            queue.add(key);
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let service = cx.services.get(key);
    let endpoints = cx.endpoints.get(key).filter(|e| is_mirrored(e) && service.as_ref().is_some_and(|s| has_no_selector(s)));
    let existing = cx.slices.by_index(SERVICE_INDEX, &key.to_string());
    // Its Endpoints and its Service tell of themselves one after the other: the second would make what the first has made.
    cx.tracker.current(&cx.client, key, &existing).await?;
    if endpoints.is_none() && existing.is_empty() {
        cx.tracker.forget(key);
    }
    let plan = plan(endpoints.as_deref(), &existing);
    for slice in plan.create {
        match cx.client.create(&slice).await {
            Err(error) if error.is_namespace_terminating() => return Ok(Next::Wait),
            made => cx.tracker.written(key, &made.during(|| format!("mirror Endpoints {key}"))?),
        }
    }
    for slice in plan.update {
        let written = cx.client.update(&slice).await.during(|| format!("update EndpointSlice {}", slice.key()))?;
        cx.tracker.written(key, &written);
    }
    for slice in plan.delete {
        let deleted = cx.client.delete::<EndpointSlice>(&slice.key(), &DeleteOptions::uid(slice.uid())).await;
        unless_gone(deleted).during(|| format!("delete EndpointSlice {}", slice.key()))?;
        cx.tracker.deleted(key, &slice);
    }
    Ok(cx.tracker.next(key, &cx.slices.by_index(SERVICE_INDEX, &key.to_string())))
}

/// shouldMirror.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.label(SKIP) != Some("true") && endpoints.annotation(LEADER).is_none() && !endpoints.is_deleting()
}

fn has_no_selector(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.selector.is_none())
}

#[derive(Default)]
struct Plan {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
}

/// Slices keep their ports and address type; so each is compared with the wanted one of the same ports and type.
fn plan(endpoints: Option<&Endpoints>, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
    for wanted in endpoints.map(slices).unwrap_or_default() {
        let same = |s: &Arc<EndpointSlice>| s.address_type == wanted.address_type && s.ports == wanted.ports;
        let Some(at) = left.iter().position(same) else {
            plan.create.push(wanted);
            continue;
        };
        let found = left.swap_remove(at);
        let (old, new) = (&found.metadata, &wanted.metadata);
        if found.endpoints != wanted.endpoints
            || old.labels != new.labels
            || old.annotations.clone().unwrap_or_default() != new.annotations.clone().unwrap_or_default()
        {
            let metadata =
                ObjectMeta { labels: wanted.metadata.labels, annotations: wanted.metadata.annotations, ..found.metadata.clone() };
            plan.update.push(EndpointSlice { metadata, ..EndpointSlice { endpoints: wanted.endpoints, ..EndpointSlice::clone(&found) } });
        }
    }
    plan.delete = left;
    plan
}

fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    // By address type and ports: subsets may share both.
    let mut groups: BTreeMap<(&str, String), (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, is_ready) in ready.chain(not_ready).take(ADDRESSES_MAX) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let kind = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group = groups.entry((kind, format!("{ports:?}"))).or_insert_with(|| (ports.clone(), Vec::new()));
            group.1.push(endpoint(address, is_ready));
        }
    }
    groups.into_iter().map(|((kind, _), (ports, list))| new_slice(endpoints, kind, ports, list)).collect()
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn new_slice(endpoints: &Endpoints, kind: &str, ports: Vec<EndpointPort>, list: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.remove(sp::HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: endpoints.metadata.namespace.clone(),
            generate_name: Some(format!("{}-", endpoints.name())),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: kind.to_owned(),
        endpoints: Some(list),
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"}, "subsets": subsets})).expect("endpoints")
    }

    fn told(plan: &Plan) -> (Vec<String>, Vec<String>, usize) {
        let tell = |s: &EndpointSlice| {
            let list =
                s.endpoints.iter().flatten().map(|e| {
                    format!("{}{}", e.addresses[0], if e.conditions.as_ref().and_then(|c| c.ready) == Some(true) { "" } else { "!" })
                });
            format!("{} {}", s.address_type, list.collect::<Vec<_>>().join(","))
        };
        (plan.create.iter().map(tell).collect(), plan.update.iter().map(tell).collect(), plan.delete.len())
    }

    #[test]
    fn a_slice_for_each_family_and_set_of_ports_follows_the_endpoints() {
        let first = endpoints(
            json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fe80::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]),
        );
        let made = plan(Some(&first), &[]);
        assert_eq!(told(&made), (vec!["IPv4 10.0.0.1,10.0.0.2!".into(), "IPv6 fe80::1".into()], vec![], 0));
        let existing: Vec<_> = made.create.into_iter().map(Arc::new).collect();
        assert_eq!(told(&plan(Some(&first), &existing)), (vec![], vec![], 0));
        let second = endpoints(json!([{"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 80}]}]));
        assert_eq!(told(&plan(Some(&second), &existing)), (vec![], vec!["IPv4 10.0.0.3".into()], 1));
        assert_eq!(told(&plan(None, &existing)), (vec![], vec![], 2));
    }
}
