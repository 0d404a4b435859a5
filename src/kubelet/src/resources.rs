//! Requests and limits as the kernel understands them: QoS class, cgroup names, shares, quotas, OOM scores.
//!
//! Models pkg/apis/core/v1/helper/qos, pkg/kubelet/cm/helpers_linux.go and pkg/kubelet/qos/policy.go, v1.37.

pub mod totals;

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const PERIOD_MICROSECONDS: u64 = 100_000;
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
const QUOTA_MIN_MICROSECONDS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// Below the root of the pods' cgroups; guaranteed pods stand directly in it.
    pub fn cgroup_parent(self, uid: &str) -> String {
        match self {
            Self::Guaranteed => format!("kubepods/pod{uid}"),
            Self::Burstable => format!("kubepods/burstable/pod{uid}"),
            Self::BestEffort => format!("kubepods/besteffort/pod{uid}"),
        }
    }
}

/// What one cgroup is told. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    pub cpu_shares: u64,
    pub cpu_quota_microseconds: Option<u64>,
    pub cpu_period_microseconds: u64,
    pub memory_limit_bytes: Option<u64>,
}

type List = Option<BTreeMap<String, ApiQuantity>>;

fn value(list: &List, name: &str) -> Option<Quantity> {
    list.as_ref()?.get(name).and_then(|q| Quantity::parse(&q.0).ok())
}

fn requests(container: &Container, name: &str) -> Option<Quantity> {
    container.resources.as_ref().and_then(|r| value(&r.requests, name))
}

/// In the unit of [`measure`].
pub fn request_of(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    resources.and_then(|r| value(&r.requests, name)).map(|q| measure(name, &q))
}

pub fn limit_of(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    resources.and_then(|r| value(&r.limits, name)).map(|q| measure(name, &q))
}

fn limits(container: &Container, name: &str) -> Option<Quantity> {
    container.resources.as_ref().and_then(|r| value(&r.limits, name))
}

pub fn qos(pod: &Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let mut any = false;
    let mut guaranteed = true;
    let mut look = |requests: [Option<i64>; 2], limits: [Option<i64>; 2]| {
        for (request, limit) in requests.into_iter().zip(limits) {
            let (request, limit) = (request.filter(|v| *v > 0), limit.filter(|v| *v > 0));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    };
    if let Some(whole) = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some()) {
        let of = |l: &List| [value(l, "cpu").map(|q| q.milli_value()), value(l, "memory").map(|q| q.value())];
        look(of(&whole.requests), of(&whole.limits));
    } else {
        for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            look(
                [requests(c, "cpu").map(|q| q.milli_value()), requests(c, "memory").map(|q| q.value())],
                [limits(c, "cpu").map(|q| q.milli_value()), limits(c, "memory").map(|q| q.value())],
            );
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// A container without a limit of its own has the pod's. Models pkg/kubelet/util GetLimits.
pub fn container_limits(pod: &Pod, container: &Container) -> Limits {
    let limit = |name: &str| effective_limit(pod, container.resources.as_ref(), name);
    let cpu = limit("cpu");
    let request = requests(container, "cpu").map(|q| q.milli_value()).or(cpu).unwrap_or(0);
    Limits {
        cpu_shares: shares(request),
        cpu_quota_microseconds: cpu.and_then(quota),
        cpu_period_microseconds: PERIOD_MICROSECONDS,
        memory_limit_bytes: limit("memory").and_then(|v| u64::try_from(v).ok()),
    }
}

/// The container's own limit, else that of the pod; `None`: unlimited.
pub fn effective_limit(pod: &Pod, container: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    let of = |r: Option<&ResourceRequirements>| limit_of(r, name).filter(|v| *v > 0);
    of(container).or_else(|| of(pod.spec.as_ref().and_then(|s| s.resources.as_ref())))
}

/// Thousandths of a cpu; of anything else whole units.
pub fn measure(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" { quantity.milli_value() } else { quantity.value() }
}

/// The pod's own cgroup: sums over containers, and limits only where every container has one, or the pod itself.
/// Models ResourceConfigForPod.
pub fn pod_limits(pod: &Pod) -> Limits {
    let unlimited = Limits { cpu_shares: SHARES_MIN, cpu_period_microseconds: PERIOD_MICROSECONDS, ..Limits::default() };
    if pod.spec.is_none() || qos(pod) == Qos::BestEffort {
        return unlimited;
    }
    let declared = |name: &str| declares_limit(pod, name).then(|| totals::limit(pod, name)).flatten().filter(|v| *v > 0);
    Limits {
        cpu_shares: shares(totals::request(pod, "cpu").unwrap_or(0)),
        cpu_quota_microseconds: declared("cpu").and_then(quota),
        memory_limit_bytes: declared("memory").and_then(|v| u64::try_from(v).ok()),
        ..unlimited
    }
}

fn declares_limit(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let set = |r: Option<&ResourceRequirements>| r.and_then(|r| value(&r.limits, name)).is_some_and(|q| !q.is_zero());
    set(spec.resources.as_ref()) || spec.containers.iter().chain(spec.init_containers.iter().flatten()).all(|c| set(c.resources.as_ref()))
}

fn shares(milli: i64) -> u64 {
    let milli = u64::try_from(milli).unwrap_or(0);
    (milli.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: i64) -> Option<u64> {
    let milli = u64::try_from(milli).ok().filter(|m| *m > 0)?;
    Some((milli.saturating_mul(PERIOD_MICROSECONDS) / 1000).max(QUOTA_MIN_MICROSECONDS))
}

/// The kernel kills what has the highest score first.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity_bytes: u64) -> i32 {
    let critical = pod.spec.as_ref().and_then(|s| s.priority_class_name.as_deref()) == Some("system-node-critical");
    if critical {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = requests(container, "memory").or_else(|| limits(container, "memory")).map_or(0, |q| q.value());
            let capacity = i64::try_from(memory_capacity_bytes.max(1)).unwrap_or(i64::MAX);
            let score = 1000 - (1000i128 * i128::from(request) / i128::from(capacity)) as i64;
            if score < 3 { 3 } else if score == 1000 { 999 } else { score as i32 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).expect("a pod")
    }

    #[test]
    fn qos_classes_follow_requests_and_limits() {
        let class = |v| qos(&pod(v));
        assert_eq!(class(serde_json::json!([{"name": "a"}])), Qos::BestEffort);
        let full = serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        assert_eq!(class(serde_json::json!([{"name": "a", "resources": full}])), Qos::Guaranteed);
        assert_eq!(class(serde_json::json!([{"name": "a", "resources": full}, {"name": "b"}])), Qos::Burstable);
        assert_eq!(class(serde_json::json!([{"name": "a", "resources": {"requests": {"cpu": "1m"}}}])), Qos::Burstable);
    }

    #[test]
    fn a_pods_limits_count_for_itself_and_for_containers_without() {
        let p = |spec: serde_json::Value| -> Pod { serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).expect("a pod") };
        let own = serde_json::json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "1Mi"}});
        let none = p(serde_json::json!({"containers": [{"name": "a", "resources": own}, {"name": "b"}]}));
        let all = pod_limits(&none);
        assert_eq!((all.cpu_shares, all.cpu_quota_microseconds, all.memory_limit_bytes), (102, None, None));
        let level = p(serde_json::json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}, "containers": [{"name": "a", "resources": own}, {"name": "b"}]}));
        let all = pod_limits(&level);
        assert_eq!((all.cpu_shares, all.cpu_quota_microseconds, all.memory_limit_bytes), (1024, Some(200_000), None));
        let b = &level.spec.as_ref().expect("spec").containers[1];
        assert_eq!(container_limits(&level, b).cpu_quota_microseconds, Some(200_000));
    }

    #[test]
    fn shares_and_quotas_are_upstreams() {
        let p = pod(serde_json::json!([{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}}]));
        let c = &p.spec.as_ref().expect("spec").containers[0];
        let l = container_limits(&p, c);
        assert_eq!((l.cpu_shares, l.cpu_quota_microseconds, l.memory_limit_bytes), (102, Some(50_000), Some(64 << 20)));
        assert_eq!(oom_score_adj(&p, c, 64 << 30), 999);
        let b = pod(serde_json::json!([{"name": "a"}]));
        let c = &b.spec.as_ref().expect("spec").containers[0];
        assert_eq!((container_limits(&b, c).cpu_shares, oom_score_adj(&b, c, 1)), (2, 1000));
        assert_eq!(Qos::Burstable.cgroup_parent("u"), "kubepods/burstable/podu");
    }
}
