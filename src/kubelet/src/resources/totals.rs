//! What a pod asks for as a whole.
//!
//! Models k8s.io/component-helpers/resource/helpers.go PodRequests and PodLimits, v1.37: containers and sidecars together, or the
//! largest moment of the init phase where that is more; then the pod's own amounts in their place; then overhead.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{List, measure, value};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Requests,
    Limits,
}

impl Of {
    fn list(self, resources: &ResourceRequirements) -> &List {
        match self {
            Self::Requests => &resources.requests,
            Self::Limits => &resources.limits,
        }
    }
}

/// In the unit of [`measure`]; `None` where nothing is said.
pub fn request(pod: &Pod, name: &str) -> Option<i64> {
    total(pod, name, Of::Requests).map(|q| measure(name, &q))
}

pub fn limit(pod: &Pod, name: &str) -> Option<i64> {
    total(pod, name, Of::Limits).map(|q| measure(name, &q))
}

pub fn requests(pod: &Pod) -> BTreeMap<String, ApiQuantity> {
    all(pod, Of::Requests)
}

pub fn limits(pod: &Pod) -> BTreeMap<String, ApiQuantity> {
    all(pod, Of::Limits)
}

fn all(pod: &Pod, choose: Of) -> BTreeMap<String, ApiQuantity> {
    let Some(spec) = &pod.spec else { return BTreeMap::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten()).filter_map(|c| c.resources.as_ref());
    let mut names: BTreeSet<&String> = containers.chain(&spec.resources).flat_map(|r| choose.list(r).iter().flatten()).map(|(name, _)| name).collect();
    if choose == Of::Requests {
        names.extend(spec.overhead.iter().flatten().map(|(name, _)| name));
    }
    names.into_iter().filter_map(|name| Some((name.clone(), ApiQuantity(total(pod, name, choose)?.to_string())))).collect()
}

fn total(pod: &Pod, name: &str, choose: Of) -> Option<Quantity> {
    let spec = pod.spec.as_ref()?;
    let own = spec.resources.as_ref().and_then(|r| value(choose.list(r), name)).filter(|_| is_pod_level(name));
    let sum = own.or_else(|| of_containers(spec, name, choose));
    let overhead = value(&spec.overhead, name);
    match (sum, overhead) {
        (Some(sum), Some(more)) if choose == Of::Requests || !sum.is_zero() => Some(sum + more),
        (None, Some(more)) if choose == Of::Requests => Some(more),
        (sum, _) => sum,
    }
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn of_containers(spec: &PodSpec, name: &str, choose: Of) -> Option<Quantity> {
    let of = |c: &Container| c.resources.as_ref().and_then(|r| value(choose.list(r), name));
    let plus = |a: Option<Quantity>, b: Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    let mut sum = spec.containers.iter().map(of).fold(None, plus);
    let (mut sidecars, mut peak) = (None, None);
    for container in spec.init_containers.iter().flatten() {
        let now = if container.restart_policy.as_deref() == Some("Always") {
            sum = plus(sum, of(container));
            sidecars = plus(sidecars, of(container));
            sidecars
        } else {
            plus(of(container), sidecars)
        };
        peak = peak.max(now);
    }
    sum.max(peak)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: Value, requests_are: Value, limits_are: Value) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        assert_eq!(json!(requests(&pod)), requests_are);
        assert_eq!(json!(limits(&pod)), limits_are);
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_its_largest_init_container() {
        let c = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
        let mut sidecar = c("s", "50m");
        sidecar["restartPolicy"] = json!("Always");
        check(json!({"containers": [c("a", "100m"), c("b", "200m")], "initContainers": [sidecar, c("i", "100m")]}), json!({"cpu": "350m"}), json!({"cpu": "350m"}));
        check(json!({"containers": [c("a", "100m")], "initContainers": [sidecar, c("i", "1")]}), json!({"cpu": "1050m"}), json!({"cpu": "1050m"}));
        check(json!({"containers": [{"name": "a"}], "overhead": {"cpu": "1"}}), json!({"cpu": "1"}), json!({}));
    }

    #[test]
    fn amounts_of_the_pod_replace_those_of_its_containers() {
        let a = json!({"name": "a", "resources": {"requests": {"cpu": "1", "example.com/x": "2"}}});
        let level = json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}});
        check(json!({"containers": [a], "resources": level, "overhead": {"cpu": "1", "memory": "1Gi"}}), json!({"cpu": "3", "example.com/x": "2", "memory": "1Gi"}), json!({"memory": "2Gi"}));
    }
}
