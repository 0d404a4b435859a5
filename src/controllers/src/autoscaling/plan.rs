//! Decides what an autoscaler does: how many replicas, and what its status, its conditions and its events say. Pure.
//!
//! Models pkg/controller/podautoscaler/horizontal.go reconcileAutoscaler, computeReplicasForMetrics and computeStatusFor*, v1.37.

use std::sync::Arc;
use std::time::Duration;

use api::quantity::{Format, Quantity};
use client::k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use super::behavior::{History, Wish};
use super::calculator::{Answer, Ground, Tolerances, by_share};
use super::metrics::{Value, print};

/// What the operator decides about all autoscalers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub sync_period: Duration,
    pub downscale_stabilization: Duration,
    pub tolerance: f64,
    pub cpu_initialization_period: Duration,
    pub initial_readiness_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_secs(300),
            tolerance: 0.1,
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
        }
    }
}

/// Whether the size follows from bounds alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Metrics decide.
    Measure,
    /// Somebody set the target to zero.
    Disabled,
    Resize { to: i32, why: &'static str },
}

pub(super) fn min_replicas(hpa: &HorizontalPodAutoscaler) -> i32 {
    hpa.spec.min_replicas.unwrap_or(1)
}

pub(super) fn gate(hpa: &HorizontalPodAutoscaler, current: i32) -> Gate {
    let (min, max) = (min_replicas(hpa), hpa.spec.max_replicas);
    if current == 0 {
        // Its own zero it may leave again: for a metric that is not the pods', or because the least has been raised.
        let own = was_scaled_to_zero(hpa);
        return if own && (min != 0 || has_outer_metrics(hpa)) { Gate::Measure } else { Gate::Disabled };
    }
    if current > max {
        Gate::Resize { to: max, why: "Current number of replicas above Spec.MaxReplicas" }
    } else if current < min {
        Gate::Resize { to: min, why: "Current number of replicas below Spec.MinReplicas" }
    } else {
        Gate::Measure
    }
}

fn was_scaled_to_zero(hpa: &HorizontalPodAutoscaler) -> bool {
    let conditions = hpa.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "ScaledToZero" && c.status == "True")
}

pub(super) fn has_outer_metrics(hpa: &HorizontalPodAutoscaler) -> bool {
    hpa.spec.metrics.iter().flatten().any(|m| matches!(m.type_.as_str(), "Object" | "External"))
}

/// Numbers of the target as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub spec_replicas: i32,
    pub status_replicas: i32,
}

/// An event: whether it is a warning, its reason, its message.
pub(super) type Told = (bool, &'static str, String);

/// The autoscaler's conditions while they are worked on.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub list: Vec<HorizontalPodAutoscalerCondition>,
    now: Timestamp,
}

impl Conditions {
    pub fn of(hpa: &HorizontalPodAutoscaler, now: Timestamp) -> Self {
        Self { list: hpa.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default(), now }
    }

    pub fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let at = self.list.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
            self.list.push(HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..HorizontalPodAutoscalerCondition::default() });
            self.list.len() - 1
        });
        let condition = &mut self.list[at];
        if condition.status != status {
            let whole = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
            condition.last_transition_time = Some(Time(whole));
        }
        condition.status = status.to_owned();
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }
}

/// What the metrics ask for.
#[derive(Debug, Default)]
pub(super) struct Proposal {
    /// `None`: nothing can be done.
    pub replicas: Option<i32>,
    pub metric: String,
    pub statuses: Vec<MetricStatus>,
    pub events: Vec<Told>,
    /// Some metrics, or all, are of no use.
    pub error: Option<String>,
}

pub(super) struct Measured<'a> {
    pub hpa: &'a HorizontalPodAutoscaler,
    pub target: Target,
    pub pods: &'a [Arc<Pod>],
    /// In the order of the autoscaler's metrics.
    pub values: Vec<Result<Value, String>>,
    pub settings: &'a Settings,
    pub now: Timestamp,
}

/// The most that any metric asks for. One that cannot be read stands in the way of shrinking.
pub(super) fn propose(measured: Measured<'_>, conditions: &mut Conditions) -> Proposal {
    let Measured { hpa, target, pods, values, settings, now } = measured;
    let specs = hpa.spec.metrics.as_deref().unwrap_or_default();
    let ground = Ground {
        current: target.spec_replicas,
        tolerances: tolerances(hpa, settings.tolerance),
        pods,
        now,
        cpu_initialization: settings.cpu_initialization_period,
        initial_readiness_delay: settings.initial_readiness_delay,
    };
    let mut out = Proposal::default();
    let (mut most, mut failures, mut first) = (0, 0, None);
    for (spec, value) in specs.iter().zip(values) {
        match judge(spec, value, &ground, target.status_replicas) {
            Ok((replicas, metric, status)) => {
                out.statuses.push(status);
                if most == 0 || replicas > most {
                    (most, out.metric) = (replicas, metric);
                }
            }
            Err(Failed { reason, why, error }) => {
                // What could not be read has a place without content.
                out.statuses.push(MetricStatus::default());
                out.events.push((true, reason, why.clone()));
                failures += 1;
                first.get_or_insert((reason, why, error));
            }
        }
    }
    if let Some((reason, why, error)) = first {
        out.error = Some(format!("invalid metrics ({failures} invalid out of {}), first error is: {error}", specs.len()));
        if failures >= specs.len() || most < target.spec_replicas {
            conditions.set("ScalingActive", false, reason, format!("the HPA was unable to compute the replica count: {why}"));
            return out;
        }
    }
    let message = format!("the HPA was able to successfully calculate a replica count from {}", out.metric);
    conditions.set("ScalingActive", true, "ValidMetricFound", message);
    out.replicas = Some(most);
    out
}

fn tolerances(hpa: &HorizontalPodAutoscaler, default: f64) -> Tolerances {
    let own = |rules: Option<&HPAScalingRules>| rules.and_then(|r| r.tolerance.as_ref()).and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.as_f64());
    let behavior = hpa.spec.behavior.as_ref();
    Tolerances {
        down: own(behavior.and_then(|b| b.scale_down.as_ref())).unwrap_or(default),
        up: own(behavior.and_then(|b| b.scale_up.as_ref())).unwrap_or(default),
    }
}

struct Failed {
    reason: &'static str,
    /// For the event and the condition.
    why: String,
    /// With what it was about.
    error: String,
}

type Judged = (i32, String, MetricStatus);

fn judge(spec: &MetricSpec, value: Result<Value, String>, ground: &Ground<'_>, status_replicas: i32) -> Result<Judged, Failed> {
    let (reason, what) = match spec.type_.as_str() {
        "Object" => ("FailedGetObjectMetric", "object metric value".to_owned()),
        "Pods" => ("FailedGetPodsMetric", "pods metric value".to_owned()),
        "Resource" => ("FailedGetResourceMetric", format!("{} resource metric value", spec.resource.as_ref().map(|r| r.name.as_str()).unwrap_or_default())),
        "ContainerResource" => {
            let container = spec.container_resource.as_ref().map(|r| r.container.as_str()).unwrap_or_default();
            ("FailedGetContainerResourceMetric", format!("{container} container metric value"))
        }
        "External" => {
            let name = spec.external.as_ref().map(|e| e.metric.name.as_str()).unwrap_or_default();
            ("FailedGetExternalMetric", format!("{name} external metric value"))
        }
        other => {
            let why = format!("unknown metric source type {other:?}");
            return Err(Failed { reason: "InvalidMetricSourceType", error: why.clone(), why });
        }
    };
    let judged = match spec.type_.as_str() {
        "Object" => object(spec, value, ground, status_replicas),
        "Pods" => pods(spec, value, ground),
        "Resource" => resource(spec, value, ground),
        "ContainerResource" => container_resource(spec, value, ground),
        _ => external(spec, value, ground, status_replicas),
    };
    judged.map_err(|why| Failed { reason, error: format!("failed to get {what}: {why}"), why })
}

fn samples(value: Result<Value, String>) -> Result<super::calculator::Samples, String> {
    match value? {
        Value::Pods(samples) => Ok(samples),
        Value::Whole(_) => Err("a metric of pods was asked for".to_owned()),
    }
}

fn whole(value: Result<Value, String>) -> Result<i64, String> {
    match value? {
        Value::Whole(value) => Ok(value),
        Value::Pods(_) => Err("one value was asked for".to_owned()),
    }
}

fn milli(quantity: Option<&ApiQuantity>) -> Option<i64> {
    quantity.and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.milli_value())
}

fn print_milli(value: i64, resource: &str) -> Option<ApiQuantity> {
    let format = if resource == "memory" { Format::BinarySi } else { Format::DecimalSi };
    Some(ApiQuantity(Quantity::from_milli(value, format).to_string()))
}

fn object(spec: &MetricSpec, value: Result<Value, String>, ground: &Ground<'_>, status_replicas: i32) -> Result<Judged, String> {
    let source = spec.object.as_ref().ok_or("object must be set")?;
    let (name, target) = (&source.metric.name, &source.target);
    let status = |current: MetricValueStatus| MetricStatus {
        type_: "Object".to_owned(),
        object: Some(ObjectMetricStatus { described_object: source.described_object.clone(), metric: source.metric.clone(), current }),
        ..MetricStatus::default()
    };
    if let ("Value", Some(wanted)) = (target.type_.as_str(), milli(target.value.as_ref())) {
        let Answer { replicas, usage, .. } = ground.by_whole(whole(value)?, wanted)?;
        let current = MetricValueStatus { value: print_milli(usage, ""), ..MetricValueStatus::default() };
        return Ok((replicas, format!("{} metric {name}", source.described_object.kind), status(current)));
    }
    if let ("AverageValue", Some(wanted)) = (target.type_.as_str(), milli(target.average_value.as_ref())) {
        let value = whole(value).map_err(|why| format!("failed to get {name} object metric: {why}"))?;
        let Answer { replicas, usage, .. } = by_share(value, wanted, status_replicas, ground.tolerances);
        let current = MetricValueStatus { average_value: print_milli(usage, ""), ..MetricValueStatus::default() };
        return Ok((replicas, format!("external metric {name}({})", print(source.metric.selector.as_ref())), status(current)));
    }
    Err("invalid object metric source: neither a value target nor an average value target was set".to_owned())
}

fn pods(spec: &MetricSpec, value: Result<Value, String>, ground: &Ground<'_>) -> Result<Judged, String> {
    let source = spec.pods.as_ref().ok_or("pods must be set")?;
    let wanted = milli(source.target.average_value.as_ref()).ok_or("invalid pods metric source: no average value target was set")?;
    let Answer { replicas, usage, .. } = ground.by_amount(samples(value)?, "", wanted)?;
    let current = MetricValueStatus { average_value: print_milli(usage, ""), ..MetricValueStatus::default() };
    let status = MetricStatus {
        type_: "Pods".to_owned(),
        pods: Some(PodsMetricStatus { metric: source.metric.clone(), current }),
        ..MetricStatus::default()
    };
    Ok((replicas, format!("pods metric {}", source.metric.name), status))
}

fn of_resource(target: &MetricTarget, name: &str, container: &str, value: Result<Value, String>, ground: &Ground<'_>) -> Result<(i32, String, MetricValueStatus), String> {
    if let Some(wanted) = milli(target.average_value.as_ref()) {
        let judged = samples(value).and_then(|s| ground.by_amount(s, name, wanted));
        let Answer { replicas, usage, .. } = judged.map_err(|why| format!("failed to get {name} usage: {why}"))?;
        let current = MetricValueStatus { average_value: print_milli(usage, name), ..MetricValueStatus::default() };
        return Ok((replicas, format!("{name} resource"), current));
    }
    let Some(wanted) = target.average_utilization else {
        return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
    };
    let judged = samples(value).and_then(|s| ground.by_utilization(s, name, container, wanted));
    let Answer { replicas, usage, utilization } = judged.map_err(|why| format!("failed to get {name} utilization: {why}"))?;
    let current = MetricValueStatus { average_utilization: utilization, average_value: print_milli(usage, name), ..MetricValueStatus::default() };
    let of = if container.is_empty() { "" } else { "container " };
    Ok((replicas, format!("{name} {of}resource utilization (percentage of request)"), current))
}

fn resource(spec: &MetricSpec, value: Result<Value, String>, ground: &Ground<'_>) -> Result<Judged, String> {
    let source = spec.resource.as_ref().ok_or("resource must be set")?;
    let (replicas, metric, current) = of_resource(&source.target, &source.name, "", value, ground)?;
    let status = MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricStatus { name: source.name.clone(), current }),
        ..MetricStatus::default()
    };
    Ok((replicas, metric, status))
}

fn container_resource(spec: &MetricSpec, value: Result<Value, String>, ground: &Ground<'_>) -> Result<Judged, String> {
    let source = spec.container_resource.as_ref().ok_or("containerResource must be set")?;
    let (replicas, metric, current) = of_resource(&source.target, &source.name, &source.container, value, ground)?;
    let status = MetricStatus {
        type_: "ContainerResource".to_owned(),
        container_resource: Some(ContainerResourceMetricStatus { name: source.name.clone(), container: source.container.clone(), current }),
        ..MetricStatus::default()
    };
    Ok((replicas, metric, status))
}

fn external(spec: &MetricSpec, value: Result<Value, String>, ground: &Ground<'_>, status_replicas: i32) -> Result<Judged, String> {
    let source = spec.external.as_ref().ok_or("external must be set")?;
    let (name, target) = (&source.metric.name, &source.target);
    let (answer, is_share) = if let Some(wanted) = milli(target.average_value.as_ref()) {
        let value = whole(value).map_err(|why| format!("failed to get {name} external metric: {why}"))?;
        (by_share(value, wanted, status_replicas, ground.tolerances), true)
    } else if let Some(wanted) = milli(target.value.as_ref()) {
        let judged = whole(value).and_then(|v| ground.by_whole(v, wanted));
        (judged.map_err(|why| format!("failed to get external metric {name}: {why}"))?, false)
    } else {
        return Err("invalid external metric source: neither a value target nor an average value target was set".to_owned());
    };
    let usage = print_milli(answer.usage, "");
    let current = if is_share {
        MetricValueStatus { average_value: usage, ..MetricValueStatus::default() }
    } else {
        MetricValueStatus { value: usage, ..MetricValueStatus::default() }
    };
    let status = MetricStatus {
        type_: "External".to_owned(),
        external: Some(ExternalMetricStatus { metric: source.metric.clone(), current }),
        ..MetricStatus::default()
    };
    Ok((answer.replicas, format!("external metric {name}({})", print(source.metric.selector.as_ref())), status))
}

/// The size that the metrics' wish comes to within bounds and rules, and why it differs from the current one.
pub(super) fn settle(hpa: &HorizontalPodAutoscaler, current: i32, wished: i32, metric: &str, history: &mut History, settings: &Settings, conditions: &mut Conditions, now: Timestamp) -> (i32, String) {
    let min = min_replicas(hpa);
    let desired = wished.max(0);
    let mut why = match () {
        () if desired > current => format!("{metric} above target"),
        () if desired < current => "All metrics below target".to_owned(),
        () => String::new(),
    };
    let wish = Wish { current, desired, min, max: hpa.spec.max_replicas };
    let bounded = match &hpa.spec.behavior {
        None => history.bound(wish, settings.downscale_stabilization, now),
        Some(behavior) => history.bound_by(behavior, wish, settings.downscale_stabilization, now),
    };
    conditions.set("AbleToScale", true, bounded.able.0, bounded.able.1);
    let (limited, (reason, message)) = bounded.limited;
    conditions.set("ScalingLimited", limited, reason, message);
    let mut replicas = bounded.replicas;
    if current == 0 && min != 0 && was_scaled_to_zero(hpa) && replicas < min {
        replicas = min;
        if why.is_empty() {
            why = "Current number of replicas below Spec.MinReplicas".to_owned();
        }
    }
    (replicas, why)
}

#[cfg(test)]
mod tests;
