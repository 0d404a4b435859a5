//! Keeps the older Endpoints object of each Service that has a selector.
//!
//! Models pkg/controller/endpoint/endpoints_controller.go and pkg/api/v1/endpoints/util.go, v1.37.
//! Reads Service, Pod, Endpoints. Writes Endpoints.
//! Wakes on Services, on pods whose change endpoints would show, on Endpoints that others changed.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Controller, DeleteOptions, EventRecorder, EventType, Informer, Named, Next, ObjectKey};
use jiff::Timestamp;

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods;
use crate::service_pods as sp;

const NAME: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses that one Endpoints object holds; whoever needs more reads EndpointSlices.
const ADDRESSES_MAX: usize = 1000;

struct Context {
    client: Client,
    recorder: EventRecorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    trigger_times: sp::TriggerTimes,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        services: cx.informers.get(),
        pods: cx.informers.get(),
        endpoints: cx.informers.get(),
        trigger_times: sp::TriggerTimes::default(),
    });
    let (services, pods, endpoints) = (cx.services.clone(), cx.pods.clone(), cx.endpoints.clone());
    Controller::new(NAME, cx)
        .reconciles(&services)
        .reconciles(&endpoints)
        .watches(&pods, |cx, event| sp::services_of(&cx.services, event))
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let existing = cx.endpoints.get(key);
    let Some(service) = cx.services.get(key) else {
        cx.trigger_times.forget(key);
        // Only what this controller made goes with the Service; others' Endpoints may stand alone.
        if let Some(ours) = existing.filter(|e| e.label(MANAGED_BY) == Some(NAME)) {
            let options = DeleteOptions::uid(ours.uid());
            unless_gone(cx.client.delete::<Endpoints>(key, &options).await).during(|| format!("delete Endpoints {key}"))?;
        }
        return Ok(Next::Wait);
    };
    if sp::selector(&service).is_none() || service.is_deleting() {
        return Ok(Next::Wait);
    }
    let pods = sp::selected(&cx.pods, &service);
    let trigger = cx.trigger_times.compute(&service, pods.iter().map(|p| &**p));
    let Some(wanted) = plan(&service, &pods, existing.as_deref(), trigger) else { return Ok(Next::Wait) };
    let (result, reason, verb) = match existing {
        None => (cx.client.create(&wanted).await, "FailedToCreateEndpoint", "create"),
        Some(_) => (cx.client.update(&wanted).await, "FailedToUpdateEndpoint", "update"),
    };
    let Err(error) = result else { return Ok(Next::Wait) };
    if error.is_namespace_terminating() {
        return Ok(Next::Wait);
    }
    if !error.is_conflict() && !error.is_already_exists() {
        let message = format!("Failed to {verb} endpoint {key}: {error}");
        cx.recorder.record(&wanted, EventType::Warning, reason, message);
    }
    Err(error).during(|| format!("{verb} Endpoints {key}"))
}

/// The Endpoints to write, where they are not as they should be.
fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Option<&Endpoints>,
    trigger: Option<Timestamp>,
) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, pods);
    let labels = labels(service);
    let was_truncated = existing.and_then(|e| e.annotation(OVER_CAPACITY)).is_some();
    if let Some(existing) = existing {
        let same = existing.subsets.as_deref().unwrap_or_default() == subsets
            && existing.metadata.labels.as_ref() == Some(&labels)
            && was_truncated == truncated;
        if same {
            return None;
        }
    }
    let mut wanted = existing.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..Default::default()
        },
        subsets: None,
    });
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    wanted.metadata.labels = Some(labels);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    for (key, value) in
        [(sp::TRIGGER_TIME, trigger.map(|at| at.to_string())), (OVER_CAPACITY, truncated.then(|| "truncated".to_owned()))]
    {
        match value {
            Some(value) => annotations.insert(key.to_owned(), value),
            None => annotations.remove(key),
        };
    }
    Some(wanted)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(sp::HEADLESS);
    if !sp::has_cluster_ip(service) {
        labels.insert(sp::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    labels
}

/// Addresses by the set of ports that they share, in a stable order; and whether some had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    type Ports = BTreeSet<(String, i32, String, Option<String>)>;
    let eager = sp::publishes_not_ready(service);
    let is_v6 = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first()).is_some_and(|f| f == "IPv6");
    let mut all: Vec<(bool, Ports, EndpointAddress)> = Vec::new();
    for pod in pods.iter().filter(|p| sp::belongs(p, eager)) {
        let of_family = |ip: &&str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == is_v6);
        let Some(ip) = sp::addresses(pod).into_iter().find(of_family) else { continue };
        let ports: Ports = sp::ports(service)
            .iter()
            .filter_map(|p| {
                let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((p.name.clone().unwrap_or_default(), sp::find_port(pod, p)?, protocol, p.app_protocol.clone()))
            })
            .collect();
        // Only a headless Service may go without ports.
        if ports.is_empty() && (sp::has_cluster_ip(service) || !sp::ports(service).is_empty()) {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: sp::hostname(pod, service),
            node_name: Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
            target_ref: Some(sp::reference(pod)),
        };
        all.push((eager || pods::is_ready(pod), ports, address));
    }
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.2.ip.cmp(&b.2.ip)));
    let truncated = all.len() > ADDRESSES_MAX;
    all.truncate(ADDRESSES_MAX);
    let mut groups: BTreeMap<Ports, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for (ready, ports, address) in all {
        let group = groups.entry(ports).or_default();
        if ready { group.0.push(address) } else { group.1.push(address) }
    }
    let non_empty = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    let port = |(name, port, protocol, app_protocol): (String, i32, String, Option<String>)| EndpointPort {
        name: Some(name).filter(|n| !n.is_empty()),
        port,
        protocol: Some(protocol),
        app_protocol,
    };
    let subset = |(ports, (ready, not_ready)): (Ports, (Vec<_>, Vec<_>))| EndpointSubset {
        addresses: non_empty(ready),
        not_ready_addresses: non_empty(not_ready),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
    };
    (groups.into_iter().map(subset).collect(), truncated)
}

#[cfg(test)]
mod tests;
