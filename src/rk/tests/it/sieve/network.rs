//! Controllers of Services and their addresses.
use serde_json::{Value, json};

use super::scenario::{Act, Scenario, Until, count, delete, gone, looks, merge, post, read, step};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SERVICE: &str = "/api/v1/namespaces/default/services/x";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/x";
const ALL_ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn pod(name: &str) -> Value {
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "a"}]});
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec})
}

fn service(more: Value) -> Value {
    let mut spec = json!({"ports": [{"port": 80}]});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": "x"}, "spec": spec})
}

pub fn endpoints() -> Scenario {
    let of = |name: &str| looks(ENDPOINTS, json!({"subsets": [{"addresses": [{"targetRef": {"name": name}}]}]}));
    let addresses = |n| Until::Size(ENDPOINTS, "/subsets/0/addresses", n);
    Scenario {
        controller: "endpoints-controller",
        seen: &["pods", "endpoints", "services"],
        // That of the API server itself is not this controller's.
        makes: &[ALL_ENDPOINTS],
        creates: 1,
        missed: Some(Act::Take(ENDPOINTS)),
        steps: vec![
            step([post(PODS, pod("a")), post(PODS, pod("b")), post(SERVICES, service(json!({"selector": {"app": "x"}})))], [of("a"), of("b"), addresses(2)]),
            step([delete("/api/v1/namespaces/default/pods/a")], [of("b"), addresses(1)]),
            step([delete(SERVICE)], [gone(ENDPOINTS)]),
        ],
        ..Scenario::default()
    }
}

/// The slices of the Service `x`, which are not the API server's.
fn slices(wanted: &'static str) -> Until {
    match wanted {
        "a b" => Until::Holds(|world| Box::pin(async move { targets(&world.list(SLICES).await) == ["a", "b"] })),
        "b" => Until::Holds(|world| Box::pin(async move { targets(&world.list(SLICES).await) == ["b"] })),
        other => panic!("{other} is not in the list"),
    }
}

fn targets(slices: &[Value]) -> Vec<&str> {
    let ours = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "x");
    let mut names: Vec<_> = ours.flat_map(|s| s["endpoints"].as_array().into_iter().flatten()).filter_map(|e| e["targetRef"]["name"].as_str()).collect();
    names.sort_unstable();
    names
}

pub fn endpoint_slices() -> Scenario {
    Scenario {
        controller: "endpointslice-controller",
        seen: &["pods", "endpointslices", "services"],
        makes: &[SLICES],
        creates: 1,
        // Also one that no watch has shown.
        missed: Some(delete(SLICES)),
        steps: vec![
            step([post(PODS, pod("a")), post(PODS, pod("b")), post(SERVICES, service(json!({"selector": {"app": "x"}})))], [slices("a b")]),
            step([delete("/api/v1/namespaces/default/pods/a")], [slices("b")]),
            step([merge(SERVICE, json!({"metadata": {"labels": {"team": "t"}}}))], [slices("b"), looks(SLICES, json!({"items": [{"metadata": {"labels": {"team": "t"}}}]}))]),
        ],
        ..Scenario::default()
    }
}

pub fn mirrored_slices() -> Scenario {
    let subset = |ips: &[&str]| {
        let addresses: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!([{"addresses": addresses, "ports": [{"port": 80}]}])
    };
    let shows = |ip: &str| looks(SLICES, json!({"items": [{"metadata": {"labels": {"kubernetes.io/service-name": "x"}}, "endpoints": [{"addresses": [ip]}]}]}));
    let withdrawn = Until::Holds(|world| {
        Box::pin(async move {
            let slices = world.list(SLICES).await;
            slices.iter().all(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] != "x")
        })
    });
    Scenario {
        controller: "endpointslicemirroring-controller",
        seen: &["endpointslices", "endpoints", "services"],
        makes: &[SLICES],
        creates: 1,
        // Also one that no watch has shown.
        missed: Some(delete(SLICES)),
        steps: vec![
            step(
                [post(ALL_ENDPOINTS, json!({"metadata": {"name": "x"}, "subsets": subset(&["10.1.0.1", "10.1.0.2"])})), post(SERVICES, service(json!({})))],
                [shows("10.1.0.1"), shows("10.1.0.2")],
            ),
            step([merge(ENDPOINTS, json!({"subsets": subset(&["10.1.0.3"])}))], [shows("10.1.0.3")]),
            step([delete(ENDPOINTS)], [withdrawn]),
        ],
        ..Scenario::default()
    }
}

pub fn balancer() -> Scenario {
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.4"}]);
    let node = json!({"metadata": {"name": "n4"}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": addresses}});
    Scenario {
        controller: "service-lb-controller",
        seen: &["nodes", "services"],
        steps: vec![
            step(
                [post(SERVICES, service(json!({"type": "LoadBalancer"}))), post("/api/v1/nodes", node)],
                [looks(SERVICE, json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.4"}]}}}))],
            ),
            step([delete("/api/v1/nodes/n4")], [looks(SERVICE, json!({"status": {"loadBalancer": {"ingress": null}}}))]),
        ],
        ..Scenario::default()
    }
}

/// One that addresses are in use from does not go.
pub fn service_range() -> Scenario {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    const RANGE: &str = "/apis/networking.k8s.io/v1/servicecidrs/x";
    let reference = json!({"group": "", "resource": "services", "namespace": "default", "name": "kubernetes"});
    let labels = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": "IPv4"});
    let address = json!({"metadata": {"name": "10.99.0.5", "labels": labels}, "spec": {"parentRef": reference}});
    let ready = |status: &str| json!({"metadata": {"finalizers": ["networking.k8s.io/service-cidr-finalizer"]}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
    Scenario {
        controller: "service-cidr-controller",
        seen: &["servicecidrs", "ipaddresses"],
        steps: vec![
            step([post(RANGES, json!({"metadata": {"name": "x"}, "spec": {"cidrs": ["10.99.0.0/24"]}}))], [looks(RANGE, ready("True"))]),
            step([post("/apis/networking.k8s.io/v1/ipaddresses", address)], [looks("/apis/networking.k8s.io/v1/ipaddresses/10.99.0.5", json!({"kind": "IPAddress"}))]),
            step([delete(RANGE)], [looks(RANGE, ready("False"))]),
        ],
        ..Scenario::default()
    }
}

pub fn headless() -> Scenario {
    let published = Until::Holds(|world| {
        Box::pin(async move {
            let all = read(world, ENDPOINTS).await;
            all["subsets"][0]["notReadyAddresses"].is_null() && all["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
        })
    });
    Scenario {
        controller: "endpoints-controller",
        seen: &["pods", "endpoints"],
        makes: &[ALL_ENDPOINTS],
        creates: 1,
        steps: vec![step(
            [post(SERVICES, service(json!({"clusterIP": "None", "selector": {"app": "x"}}))), post(PODS, pod("a"))],
            [published, looks(ENDPOINTS, json!({"subsets": [{"addresses": [{"targetRef": {"name": "a"}}]}]})), count(PODS, 1)],
        )],
        ..Scenario::default()
    }
}
