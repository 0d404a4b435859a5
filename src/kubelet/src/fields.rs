//! Values of a pod that its containers may see: `fieldRef` and `resourceFieldRef`.
//!
//! Models pkg/fieldpath/fieldpath.go and pkg/api/v1/resource/helpers.go, v1.37.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

/// What only the node knows of a pod.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    pub pod_ips: Vec<String>,
    pub host_ip: String,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
    pub allocatable_storage_bytes: i64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("invalid divisor {0}")]
    Divisor(String),
}

/// The value of a field path; for `metadata.labels` and `metadata.annotations` the whole map, one line each.
pub fn field(pod: &Pod, path: &str, facts: &NodeFacts) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(FieldError::Unsupported(path.into())),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(FieldError::Unsupported(path.into())),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

/// Go's `strconv.Quote`.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a container's request or limit, divided and rounded up. What has no limit gets the node's allocatable.
pub fn resource(pod: &Pod, own: Option<&Container>, selector: &ResourceFieldSelector, facts: &NodeFacts) -> Result<String, FieldError> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => {
            let spec = pod.spec.as_ref();
            spec.into_iter()
                .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
                .find(|c| c.name == name)
                .ok_or_else(|| FieldError::NoContainer(name.into()))?
        }
        None => own.ok_or_else(|| FieldError::NoContainer(String::new()))?,
    };
    let none = BTreeMap::new();
    let resources = container.resources.as_ref();
    let (kind, name) = selector.resource.split_once('.').ok_or_else(|| FieldError::Resource(selector.resource.clone()))?;
    let map = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()).unwrap_or(&none),
        "requests" => resources.and_then(|r| r.requests.as_ref()).unwrap_or(&none),
        _ => return Err(FieldError::Resource(selector.resource.clone())),
    };
    let found = map.get(name).and_then(|q| Quantity::parse(&q.0).ok());
    let divisor = match selector.divisor.as_ref().map(|q| q.0.as_str()).filter(|d| !d.is_empty() && *d != "0") {
        Some(text) => Some(Quantity::parse(text).map_err(|_| FieldError::Divisor(text.into()))?),
        None => None,
    };
    let limit = kind == "limits";
    match name {
        "cpu" => {
            let milli = found.map_or(if limit { facts.allocatable_cpu_milli } else { 0 }, |q| q.milli_value());
            let divisor = divisor.map_or(1000, |d| d.milli_value()).max(1);
            Ok(ceil_div(milli, divisor).to_string())
        }
        "memory" | "ephemeral-storage" => {
            let fallback = match (limit, name) {
                (false, _) => 0,
                (true, "memory") => facts.allocatable_memory_bytes,
                (true, _) => facts.allocatable_storage_bytes,
            };
            let bytes = found.map_or(fallback, |q| q.value());
            let divisor = divisor.map_or(1, |d| d.value()).max(1);
            Ok(ceil_div(bytes, divisor).to_string())
        }
        name if name.starts_with("hugepages-") => {
            let bytes = found.map_or(0, |q| q.value());
            Ok(ceil_div(bytes, divisor.map_or(1, |d| d.value()).max(1)).to_string())
        }
        _ => Err(FieldError::Resource(selector.resource.clone())),
    }
}

fn ceil_div(value: i64, by: i64) -> i64 {
    value / by + i64::from(value % by != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y"}, "annotations": {"k/x": "v"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}
        }))
        .expect("a pod")
    }

    #[test]
    fn field_paths_give_what_the_pod_says() {
        let facts = NodeFacts { pod_ips: vec!["10.0.0.1".into()], host_ip: "1.2.3.4".into(), ..Default::default() };
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.labels", "a=\"x\\\"y\"\nb=\"2\""),
            ("metadata.labels['b']", "2"),
            ("metadata.annotations['k/x']", "v"),
            ("metadata.labels['none']", ""),
            ("status.podIP", "10.0.0.1"),
            ("status.hostIP", "1.2.3.4"),
            ("spec.nodeName", "node"),
        ] {
            assert_eq!(field(&pod(), path, &facts).as_deref(), Ok(value), "{path}");
        }
        assert!(field(&pod(), "spec.x", &facts).is_err());
    }

    #[test]
    fn resources_round_up_and_fall_back_to_the_node() {
        let facts = NodeFacts { allocatable_memory_bytes: 1000, ..Default::default() };
        let pod = pod();
        let own = &pod.spec.as_ref().expect("spec").containers[0];
        let get = |resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                container_name: None,
                divisor: divisor.map(|d| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into())),
            };
            super::resource(&pod, Some(own), &selector, &facts).expect("a value")
        };
        assert_eq!(get("limits.cpu", None), "2");
        assert_eq!(get("limits.cpu", Some("1m")), "1500");
        assert_eq!(get("requests.cpu", None), "1");
        assert_eq!(get("limits.memory", Some("1Mi")), "64");
        assert_eq!(get("requests.memory", None), "0");
    }
}
