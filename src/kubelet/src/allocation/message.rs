//! The events of a resize: a word, and what the pod asks for as JSON. Models pkg/kubelet/events/resize.go.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Item<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Item<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

pub fn started(pod: &Pod) -> String {
    text("Pod resize started", pod, pod.metadata.generation.unwrap_or(0), "")
}

pub fn pending(pod: &Pod, reason: &str, why: &str) -> String {
    text(&format!("Pod resize {reason}"), pod, pod.metadata.generation.unwrap_or(0), why)
}

/// `allocated` is the pod as the node has it.
pub fn completed(allocated: &Pod, generation: i64) -> String {
    text("Pod resize completed", allocated, generation, "")
}

pub fn failed(allocated: &Pod, generation: i64, why: &str) -> String {
    text("Pod resize error", allocated, generation, why)
}

fn text(what: &str, pod: &Pod, generation: i64, error: &str) -> String {
    let Some(spec) = &pod.spec else { return what.to_owned() };
    let summary = Summary {
        init_containers: spec.init_containers.iter().flatten().map(item).collect(),
        containers: spec.containers.iter().map(item).collect(),
        generation,
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(json) => format!("{what}: {json}"),
        Err(_) => what.to_owned(),
    }
}

fn item(container: &Container) -> Item<'_> {
    Item { name: &container.name, resources: container.resources.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_message_holds_what_each_container_asks_for() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}, {"name": "b"}]}})).expect("a pod");
        let containers = r#"[{"name":"a","resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}}},{"name":"b","resources":{}}]"#;
        assert_eq!(started(&pod), format!(r#"Pod resize started: {{"containers":{containers},"generation":2}}"#));
        assert_eq!(pending(&pod, "Deferred", "no room"), format!(r#"Pod resize Deferred: {{"containers":{containers},"generation":2,"error":"no room"}}"#));
    }
}
