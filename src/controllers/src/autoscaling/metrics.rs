//! Values of metrics, asked of the metrics APIs, whoever serves them.
//!
//! Models pkg/controller/podautoscaler/metrics/client.go and k8s.io/metrics/pkg/client, v1.37.

use std::collections::BTreeMap;
use std::time::Duration;

use client::k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricSpec};
use client::k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, LabelSelector, Time};
use client::{ApiResource, Client, ListOptions, percent_encode};
use serde::Deserialize;

use super::calculator::{Sample, Samples};
use super::scale;

const RESOURCE: &str = "unable to fetch metrics from resource metrics API";
const CUSTOM: &str = "unable to fetch metrics from custom metrics API";
const EXTERNAL: &str = "unable to fetch metrics from external metrics API";
/// Where a value does not say over how long it was taken.
const WINDOW: Duration = Duration::from_secs(60);

/// What one metric of an autoscaler is worth now, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Pods(Samples),
    Whole(i64),
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Name,
    timestamp: Time,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, ApiQuantity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    #[serde(default)]
    described_object: Option<Name>,
    timestamp: Time,
    #[serde(default, alias = "window")]
    window_seconds: Option<u64>,
    value: ApiQuantity,
}

#[derive(Deserialize)]
struct MetricValues {
    #[serde(default)]
    items: Vec<MetricValue>,
}

fn milli(quantity: &ApiQuantity) -> i64 {
    api::quantity::Quantity::parse(&quantity.0).map(|q| q.milli_value()).unwrap_or(0)
}

/// `pods` is the selector of the target's pods, as text.
pub(super) async fn fetch(client: &Client, namespace: &str, spec: &MetricSpec, pods: &str) -> Result<Value, String> {
    match spec.type_.as_str() {
        "Resource" => {
            let name = spec.resource.as_ref().map(|r| r.name.as_str()).unwrap_or_default();
            resource(client, namespace, pods, name, "").await.map(Value::Pods).map_err(|why| format!("unable to get metrics for resource {name}: {why}"))
        }
        "ContainerResource" => {
            let source = spec.container_resource.as_ref();
            let (name, container) = source.map(|r| (r.name.as_str(), r.container.as_str())).unwrap_or_default();
            let found = resource(client, namespace, pods, name, container).await;
            found.map(Value::Pods).map_err(|why| format!("unable to get metrics for resource {name}: {why}"))
        }
        "Pods" => {
            let Some(source) = &spec.pods else { return Err("pods must be set".to_owned()) };
            let name = &source.metric.name;
            of_pods(client, namespace, pods, name, source.metric.selector.as_ref()).await.map(Value::Pods).map_err(|why| format!("unable to get metric {name}: {why}"))
        }
        "Object" => {
            let Some(source) = &spec.object else { return Err("object must be set".to_owned()) };
            let (name, of) = (&source.metric.name, &source.described_object);
            let found = of_object(client, namespace, of, name, source.metric.selector.as_ref()).await;
            found.map(Value::Whole).map_err(|why| format!("unable to get metric {name} on {} {namespace}/{}: {why}", of.kind, of.name))
        }
        "External" => {
            let Some(source) = &spec.external else { return Err("external must be set".to_owned()) };
            let (name, selector) = (&source.metric.name, source.metric.selector.as_ref());
            let found = external(client, namespace, name, selector).await;
            found.map(Value::Whole).map_err(|why| format!("unable to get external metric {namespace}/{name}/{}: {why}", print(selector)))
        }
        other => Err(format!("unknown metric source type {other:?}")),
    }
}

async fn resource(client: &Client, namespace: &str, pods: &str, name: &str, container: &str) -> Result<Samples, String> {
    let resource = ApiResource { group: "metrics.k8s.io".into(), version: "v1beta1".into(), kind: "PodMetrics".into(), plural: "pods".into(), namespaced: true };
    let options = ListOptions::labels(pods);
    let list = client.list_at::<PodMetrics>(&resource, namespace, &options).await.map_err(|e| format!("{RESOURCE}: {e}"))?;
    if list.items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    Ok(list.items.iter().filter_map(|pod| Some((pod.metadata.name.clone(), sample(pod, name, container)?))).collect())
}

/// Of one container, or of all together; nothing where one of them is not known.
fn sample(pod: &PodMetrics, resource: &str, container: &str) -> Option<Sample> {
    let of = |c: &ContainerMetrics| c.usage.get(resource).map(milli);
    let value = if container.is_empty() {
        pod.containers.iter().map(of).sum::<Option<i64>>().filter(|_| !pod.containers.is_empty())?
    } else {
        pod.containers.iter().find(|c| c.name == container).and_then(of)?
    };
    Some(Sample { value, timestamp: pod.timestamp.0, window: duration(&pod.window).unwrap_or(WINDOW) })
}

/// As Go writes one: `1m30.5s`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[unit..];
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
    }
    Some(total)
}

/// The served version of the custom metrics API, the newest that is understood.
async fn custom_root(client: &Client) -> Result<String, String> {
    const GROUP: &str = "custom.metrics.k8s.io";
    let group: APIGroup = match client.get_path(&format!("/apis/{GROUP}")).await {
        Ok(group) => group,
        Err(error) if error.is_not_found() => return Err(format!("no custom metrics API ({GROUP}) registered")),
        Err(error) => return Err(error.to_string()),
    };
    let served = |version: &&str| group.versions.iter().any(|v| v.version == **version);
    let version = ["v1beta2", "v1beta1"].iter().find(|v| served(v)).ok_or_else(|| format!("no known version of {GROUP} is served"))?;
    Ok(format!("/apis/{GROUP}/{version}"))
}

async fn of_pods(client: &Client, namespace: &str, pods: &str, name: &str, selector: Option<&LabelSelector>) -> Result<Samples, String> {
    let root = custom_root(client).await.map_err(|e| format!("{CUSTOM}: {e}"))?;
    let selectors = format!("labelSelector={}&metricLabelSelector={}", percent_encode(pods), percent_encode(&text_of(selector)));
    let path = format!("{root}/namespaces/{}/pods/*/{}?{selectors}", percent_encode(namespace), percent_encode(name));
    let list: MetricValues = client.get_path(&path).await.map_err(|e| format!("{CUSTOM}: {e}"))?;
    if list.items.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    let sample = |m: &MetricValue| Sample { value: milli(&m.value), timestamp: m.timestamp.0, window: m.window_seconds.map_or(WINDOW, Duration::from_secs) };
    Ok(list.items.iter().filter_map(|m| Some((m.described_object.as_ref()?.name.clone(), sample(m)))).collect())
}

async fn of_object(client: &Client, namespace: &str, of: &CrossVersionObjectReference, name: &str, selector: Option<&LabelSelector>) -> Result<i64, String> {
    let fetch = async {
        let root = custom_root(client).await?;
        let (space, query) = (percent_encode(namespace), percent_encode(&text_of(selector)));
        // A metric of the namespace itself stands beside those of what is in it.
        let place = if of.kind == "Namespace" && !of.api_version.as_deref().unwrap_or_default().contains('/') {
            "metrics".to_owned()
        } else {
            let resource = scale::resource_of(client, of.api_version.as_deref().unwrap_or_default(), &of.kind).await?;
            let qualified = if resource.group.is_empty() { resource.plural } else { format!("{}.{}", resource.plural, resource.group) };
            format!("{qualified}/{}", percent_encode(&of.name))
        };
        let path = format!("{root}/namespaces/{space}/{place}/{}?metricLabelSelector={query}", percent_encode(name));
        let list: MetricValues = client.get_path(&path).await.map_err(|e| e.to_string())?;
        match list.items.as_slice() {
            [one] => Ok(milli(&one.value)),
            many => Err(format!("the custom metrics API server returned {} results when we asked for exactly one", many.len())),
        }
    };
    fetch.await.map_err(|why: String| format!("{CUSTOM}: {why}"))
}

async fn external(client: &Client, namespace: &str, name: &str, selector: Option<&LabelSelector>) -> Result<i64, String> {
    let query = percent_encode(&text_of(selector));
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}?labelSelector={query}", percent_encode(namespace), percent_encode(name));
    let list: MetricValues = client.get_path(&path).await.map_err(|e| format!("{EXTERNAL}: {e}"))?;
    if list.items.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    Ok(list.items.iter().fold(0, |sum: i64, m| sum.saturating_add(milli(&m.value))))
}

/// A selector as a query holds it.
fn text_of(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let set = selector.match_expressions.iter().flatten().map(|r| {
        let values = r.values.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(",");
        match r.operator.as_str() {
            "In" => format!("{} in ({values})", r.key),
            "NotIn" => format!("{} notin ({values})", r.key),
            "DoesNotExist" => format!("!{}", r.key),
            _ => r.key.clone(),
        }
    });
    equal.chain(set).collect::<Vec<_>>().join(",")
}

/// A selector as Go prints one: messages carry that form.
pub(super) fn print(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let rules = selector.match_expressions.iter().flatten().map(|r| {
        let values = r.values.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", r.key, r.operator)
    });
    format!("&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}", rules.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_the_sum_of_its_containers_if_all_are_known() {
        let pod: PodMetrics = serde_json::from_value(json!({"metadata": {"name": "p"}, "timestamp": "2026-01-01T00:00:00Z", "window": "1m15.5s",
            "containers": [{"name": "a", "usage": {"cpu": "250m", "memory": "1Ki"}}, {"name": "b", "usage": {"cpu": "1"}}]})).unwrap();
        let value = |resource: &str, container: &str| sample(&pod, resource, container).map(|s| s.value);
        assert_eq!(value("cpu", ""), Some(1250));
        assert_eq!(value("cpu", "b"), Some(1000));
        assert_eq!(value("memory", "a"), Some(1_024_000));
        assert_eq!(value("memory", ""), None);
        assert_eq!(value("cpu", "c"), None);
        assert_eq!(sample(&pod, "cpu", "").unwrap().window, Duration::from_millis(75_500));
    }

    #[test]
    fn selectors_are_written_as_queries_and_as_go_prints_them() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]})).unwrap();
        assert_eq!(text_of(Some(&selector)), "a=b,c in (d,e)");
        let printed = "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}";
        assert_eq!(print(Some(&selector)), printed);
        assert_eq!(print(None), "nil");
    }
}
