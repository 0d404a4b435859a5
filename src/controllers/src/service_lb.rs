//! Publishes the addresses of the nodes as those of every Service of type LoadBalancer: each node forwards to it.
//!
//! Stands where a cloud's service controller stands upstream (staging/src/k8s.io/cloud-provider/controllers/service, v1.37): the same
//! field, but the balancer is the service proxy of every node. A Service with a `loadBalancerClass` is somebody else's.
//! Reads Service, Node. Writes Service/status. Wakes on Services, and on nodes that come, go, or change readiness or address.
use std::collections::BTreeSet;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};
use client::{Client, Controller, EventRecorder, EventType, Informer, Named, Next, ObjectKey};

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "service-controller";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

struct Context {
    client: Client,
    recorder: EventRecorder,
    services: Informer<Service>,
    nodes: Informer<Node>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, NAME),
        client,
        services: cx.informers.get(),
        nodes: cx.informers.get(),
    });
    let (services, nodes) = (cx.services.clone(), cx.nodes.clone());
    Controller::new("service-lb-controller", cx)
        .reconciles(&services)
        .watches(&nodes, |cx, event| {
            let now = addresses(std::slice::from_ref(event.object()));
            if event.old().is_some_and(|old| addresses(std::slice::from_ref(old)) == now) {
                return Vec::new();
            }
            cx.services.list().iter().filter(|s| is_balanced(s)).map(|s| s.key()).collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none())
}

fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_deref()).unwrap_or_default()
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(service) = cx.services.get(key).filter(|s| !s.is_deleting()) else { return Ok(Next::Wait) };
    let Some(wanted) = plan(&service, &cx.nodes.list()) else { return Ok(Next::Wait) };
    let (before, after) = (ingress(&service).len(), wanted.len());
    let mut update = (*service).clone();
    let ingress = (!wanted.is_empty()).then_some(wanted);
    update.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus { ingress });
    unless_gone(cx.client.update_status(&update).await).during(|| format!("publish the load balancer of Service {key}"))?;
    match (before, after) {
        (0, 1..) => cx.recorder.record(&*service, EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer"),
        (1.., 0) => cx.recorder.record(&*service, EventType::Normal, "DeletedLoadBalancer", "Deleted load balancer"),
        _ => {}
    }
    Ok(Next::Wait)
}

/// The addresses to publish, where they are not those that are published.
fn plan(service: &Service, nodes: &[Arc<Node>]) -> Option<Vec<LoadBalancerIngress>> {
    let foreign = service.spec.as_ref().is_some_and(|s| s.load_balancer_class.is_some());
    if foreign {
        return None;
    }
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    let in_family = |ip: &String| {
        families.is_empty() || families.iter().any(|f| (f == "IPv6") == ip.contains(':'))
    };
    let addresses = if is_balanced(service) { addresses(nodes) } else { BTreeSet::new() };
    let wanted: Vec<_> = addresses
        .into_iter()
        .filter(in_family)
        .map(|ip| LoadBalancerIngress { ip: Some(ip), ip_mode: Some("VIP".to_owned()), ..Default::default() })
        .collect();
    (wanted != ingress(service)).then_some(wanted)
}

/// Internal addresses of the nodes that can take traffic.
fn addresses(nodes: &[Arc<Node>]) -> BTreeSet<String> {
    let serves = |node: &&Arc<Node>| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        ready && !node.is_deleting() && node.label(EXCLUDED).is_none()
    };
    let internal = |node: &Arc<Node>| {
        let all = node.status.as_ref().and_then(|s| s.addresses.clone()).unwrap_or_default();
        all.into_iter().filter(|a| a.type_ == "InternalIP").map(|a| a.address).collect::<Vec<_>>()
    };
    nodes.iter().filter(serves).flat_map(internal).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ip: &str, ready: &str) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": ip}, "status": {"conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": ip}]}}))
            .unwrap(),
        )
    }

    fn service(kind: &str, class: Option<&str>) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"type": kind, "loadBalancerClass": class}})).unwrap()
    }

    #[test]
    fn ready_nodes_are_published_and_withdrawn_with_the_type() {
        let nodes = [node("10.0.0.2", "True"), node("10.0.0.1", "True"), node("10.0.0.3", "Unknown")];
        let ips = |wanted: Option<Vec<LoadBalancerIngress>>| wanted.map(|w| w.into_iter().filter_map(|i| i.ip).collect::<Vec<_>>());
        let mut balanced = service("LoadBalancer", None);
        let wanted = plan(&balanced, &nodes);
        assert_eq!(ips(wanted.clone()), Some(vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()]));
        balanced.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus { ingress: wanted });
        assert_eq!(plan(&balanced, &nodes), None);
        balanced.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
        assert_eq!(ips(plan(&balanced, &nodes)), Some(Vec::new()));
        assert_eq!(plan(&service("LoadBalancer", Some("other")), &nodes), None);
        assert_eq!(plan(&service("ClusterIP", None), &nodes), None);
    }
}
