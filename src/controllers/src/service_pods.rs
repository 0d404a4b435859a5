//! What both kinds of endpoints need to know about Services and their pods.
//!
//! Models staging/src/k8s.io/endpointslice/util/controller_utils.go and pkg/api/v1/pod/util.go FindPort, v1.37.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use client::k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use client::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use client::{Event, Informer, Named, ObjectKey, Room};
use jiff::Timestamp;

use crate::pods;

pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector, where the Service's endpoints are ours to keep.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then_some(selector)
}

pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selects_labels(service, pod.metadata.labels.as_ref().unwrap_or(&NONE))
}

fn selects_labels(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    selector(service).is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// The pods that the Service selects.
pub(crate) fn selected(pods: &Informer<Pod>, service: &Service) -> Vec<Arc<Pod>> {
    pods.list_labelled(service.namespace(), |labels| selects_labels(service, labels))
}

pub(crate) fn has_cluster_ip(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    !ip.is_empty() && ip != "None"
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// ShouldPodBeInEndpoints.
pub(crate) fn belongs(pod: &Pod, include_terminating: bool) -> bool {
    !pods::is_terminated(pod) && !addresses(pod).is_empty() && (include_terminating || !pod.is_deleting())
}

pub(crate) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut all: Vec<&str> = status.pod_ips.iter().flatten().map(|p| p.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() {
        all.extend(status.pod_ip.as_deref().filter(|ip| !ip.is_empty()));
    }
    all
}

/// The host name under which a pod of a headless Service is found.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.as_deref() == Some(service.name()) && pod.namespace() == service.namespace();
    spec.hostname.clone().filter(|h| named && !h.is_empty())
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// The number of the pod's port that a Service's port leads to; `None` where the pod has no port of that name.
pub(crate) fn find_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(n)) => return Some(*n),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let in_container = |c: &Container| {
        let found = c.ports.iter().flatten().find(|p| {
            p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        found.map(|p| p.container_port)
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().find_map(in_container).or_else(|| sidecars.clone().find_map(in_container))
}

/// The Services that an event of a pod may concern: none, if it changes nothing that endpoints show.
pub(crate) fn services_of(services: &Informer<Service>, event: &Event<Pod>) -> Vec<ObjectKey> {
    let pod = event.object();
    if event.old().is_some_and(|old| shows_same(old, pod)) {
        return Vec::new();
    }
    let all = services.list_namespace(pod.namespace());
    all.iter().filter(|s| event.states().any(|pod| selects(s, pod))).map(|s| s.key()).collect()
}

fn shows_same(a: &Pod, b: &Pod) -> bool {
    let spec = |p: &Pod| {
        let spec = p.spec.as_ref();
        (spec.and_then(|s| s.hostname.clone()), spec.and_then(|s| s.subdomain.clone()), pods::node_name(p).to_owned())
    };
    a.metadata.labels == b.metadata.labels
        && a.is_deleting() == b.is_deleting()
        && pods::is_ready(a) == pods::is_ready(b)
        && pods::is_terminated(a) == pods::is_terminated(b)
        && addresses(a) == addresses(b)
        && spec(a) == spec(b)
}

/// Since when a Service's endpoints are out of date: the earliest change that the last sync did not know of.
///
/// Models staging/src/k8s.io/endpointslice/trigger_time_tracker.go.
#[derive(Default)]
pub(crate) struct TriggerTimes(Mutex<HashMap<ObjectKey, Seen>>);

#[derive(Default)]
struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl TriggerTimes {
    pub fn compute<'a>(&self, service: &Service, pods: impl Iterator<Item = &'a Pod>) -> Option<Timestamp> {
        let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let mut now = Seen { service: created, pods: HashMap::new() };
        for pod in pods {
            let changed = pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
            now.pods.extend(changed.map(|at| (pod.name().to_owned(), at)));
        }
        let mut seen = self.0.lock().expect("nothing panics while it holds the times");
        let before = seen.get(&service.key());
        let earliest = before.map(|before| {
            let pods = now.pods.iter().filter(|(name, at)| before.pods.get(*name).is_none_or(|b| *at > b)).map(|(_, at)| *at);
            pods.chain(created.filter(|at| before.service.is_none_or(|b| *at > b))).min()
        });
        seen.insert(service.key(), now);
        // A new Service counts from its creation.
        earliest.unwrap_or(created)
    }

    pub fn forget(&self, service: &ObjectKey) {
        let mut seen = self.0.lock().expect("nothing panics while it holds the times");
        seen.remove(service);
        seen.give_back();
    }
}
