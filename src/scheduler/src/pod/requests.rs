//! What a pod asks of a node.
//!
//! Models k8s.io/component-helpers/resource `PodRequests`, v1.37.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::is_sidecar;
use crate::resources::{Resources, amount};

/// Requests assumed of a container that names none, for scoring only (pkg/scheduler/util/pod_resources.go).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

type List = BTreeMap<String, Quantity>;

/// The sum of containers and sidecars, or the largest moment of the init phase, whichever is more.
fn aggregate<'a>(pod: &'a Pod, of: impl Fn(&'a Container) -> Option<&'a List>, defaults: bool) -> Resources {
    let requests = |container: &'a Container| {
        let list = of(container);
        let mut all = Resources::of(list);
        if defaults {
            let names = |name: &str| list.is_some_and(|l| l.contains_key(name));
            if !names("cpu") {
                all.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if !names("memory") {
                all.memory_bytes = DEFAULT_MEMORY_BYTES;
            }
        }
        all
    };
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&requests(container));
    }
    let (mut sidecars, mut init_peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = requests(container);
        if is_sidecar(container) {
            total.add(&now);
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        init_peak.raise(&now);
    }
    total.raise(&init_peak);
    total
}

/// Pod-level requests stand for the sum of the containers', for the resources that may be asked for so.
fn apply_pod_level(total: &mut Resources, list: Option<&List>) {
    for (name, quantity) in list.into_iter().flatten() {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            total.set(name, amount(name, &quantity.0));
        }
    }
}

fn spec_requests(container: &Container) -> Option<&List> {
    container.resources.as_ref()?.requests.as_ref()
}

/// With the defaults, what scoring assumes of the pod.
pub fn of_spec(pod: &Pod, defaults: bool) -> Resources {
    let mut total = aggregate(pod, spec_requests, defaults);
    let spec = pod.spec.as_ref();
    apply_pod_level(&mut total, spec.and_then(|s| s.resources.as_ref()?.requests.as_ref()));
    total.add(&Resources::of(spec.and_then(|s| s.overhead.as_ref())));
    total
}

/// What the pod takes of its node: while it is resized, the most of what is asked, allotted and in effect.
pub fn of_placed(pod: &Pod) -> Resources {
    let Some(status) = pod.status.as_ref().filter(|s| s.container_statuses.is_some() || s.allocated_resources.is_some()) else {
        return of_spec(pod, false);
    };
    let infeasible = status.conditions.iter().flatten().any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
    let wanted = |container| if infeasible { None } else { spec_requests(container) };
    let find = |name: &str| -> Option<&ContainerStatus> {
        let statuses = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        statuses.into_iter().find(|s| s.name == name)
    };
    let mut total = if infeasible { Resources::default() } else { aggregate(pod, spec_requests, false) };
    let in_effect = status.resources.as_ref().and_then(|r| r.requests.as_ref());
    match (&status.allocated_resources, in_effect) {
        (Some(allotted), Some(in_effect)) => {
            total.raise(&Resources::of(Some(allotted)));
            total.raise(&Resources::of(Some(in_effect)));
        }
        _ => {
            total.raise(&aggregate(pod, |c| find(&c.name).and_then(|s| s.allocated_resources.as_ref()).or_else(|| wanted(c)), false));
            let effective = |c: &Container| {
                let found = find(&c.name);
                let real = found.and_then(|s| s.resources.as_ref()?.requests.as_ref());
                real.or_else(|| found.and_then(|s| s.allocated_resources.as_ref()))
            };
            total.raise(&aggregate(pod, |c| effective(c).or_else(|| wanted(c)), false));
        }
    }
    let spec = pod.spec.as_ref();
    if let Some(list) = spec.and_then(|s| s.resources.as_ref()?.requests.as_ref()) {
        let mut most = Resources::default();
        apply_pod_level(&mut most, Some(list).filter(|_| !infeasible));
        let mut other = Resources::default();
        apply_pod_level(&mut other, status.allocated_resources.as_ref());
        most.raise(&other);
        apply_pod_level(&mut other, in_effect);
        most.raise(&other);
        let named = most.iter().map(|(n, a)| (n.to_owned(), a)).collect::<Vec<_>>();
        for (name, amount) in named {
            total.set(&name, amount);
        }
    }
    total.add(&Resources::of(spec.and_then(|s| s.overhead.as_ref())));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(object: serde_json::Value) -> Pod {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_init_container() {
        let p = pod(serde_json::json!({"spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}, {"name": "b", "resources": {"requests": {"cpu": "200m"}}}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1", "example.com/x": "2"}}}
            ],
            "overhead": {"cpu": "10m"}
        }}));
        let requests = of_spec(&p, false);
        assert_eq!((requests.milli_cpu, requests.memory_bytes, requests.get("example.com/x")), (1060, 1 << 30, 2));
    }

    #[test]
    fn a_pod_that_is_resized_counts_with_the_most_of_what_it_wants_and_has() {
        let of = |wanted: &str, granted: &str, has: &str, reason: &str| {
            let object = serde_json::json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": wanted}}}]},
                "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": {"cpu": granted}, "resources": {"requests": {"cpu": has}}}]}});
            of_placed(&pod(object)).milli_cpu
        };
        assert_eq!(of("2", "1", "1", "Deferred"), 2000);
        assert_eq!(of("1", "1", "3", "Deferred"), 3000);
        assert_eq!(of("9", "1", "2", "Infeasible"), 2000);
    }

    #[test]
    fn scoring_assumes_something_of_a_container_that_asks_for_nothing() {
        let p = pod(serde_json::json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]}}));
        let assumed = of_spec(&p, true);
        assert_eq!((assumed.milli_cpu, assumed.memory_bytes), (1100, 400 << 20));
    }

    #[test]
    fn a_pod_that_is_being_resized_takes_the_most_of_what_it_has_and_wants() {
        let object = serde_json::json!({
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"containerStatuses": [{"name": "a", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"cpu": "3"}}}]}
        });
        assert_eq!(of_placed(&pod(object.clone())).milli_cpu, 3000);
        let mut asks_more = object;
        asks_more["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "8".into();
        assert_eq!(of_placed(&pod(asks_more.clone())).milli_cpu, 8000);
        asks_more["status"]["conditions"] = serde_json::json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(of_placed(&pod(asks_more)).milli_cpu, 3000);
    }
}
