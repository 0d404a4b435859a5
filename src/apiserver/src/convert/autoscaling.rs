//! autoscaling/v1 HorizontalPodAutoscaler: the cpu target as a field, everything else of v2 in annotations.
use api::tree::{Object, Tree};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn is_cpu_utilization(metric: &Tree, value_path: &[&str]) -> bool {
    metric.str_at(&["type"]) == "Resource" && metric.str_at(&["resource", "name"]) == "cpu" && metric.at(value_path).is_some()
}

pub fn v1_from_v2(tree: &mut Tree) {
    const TARGET: [&str; 3] = ["resource", "target", "averageUtilization"];
    const USED: [&str; 3] = ["resource", "current", "averageUtilization"];
    take_list(tree, &["spec", "metrics"], &TARGET, "targetCPUUtilizationPercentage", "spec", METRICS);
    take_list(tree, &["status", "currentMetrics"], &USED, "currentCPUUtilizationPercentage", "status", CURRENT);
    for (path, annotation) in [(["spec", "behavior"], BEHAVIOR), (["status", "conditions"], CONDITIONS)] {
        if let Some(value) = tree.remove(&path) {
            annotate(tree, annotation, &value);
        }
    }
}

fn take_list(tree: &mut Tree, path: &[&str], value_path: &[&str], field: &str, parent: &str, annotation: &str) {
    let Some(Tree::Array(mut metrics)) = tree.remove(path) else { return };
    if let Some(at) = metrics.iter().position(|m| is_cpu_utilization(m, value_path)) {
        let value = metrics.remove(at).at(value_path).cloned().unwrap_or_default();
        tree.set(&[parent, field], value);
    }
    if !metrics.is_empty() {
        annotate(tree, annotation, &Tree::Array(metrics));
    }
}

fn annotate(tree: &mut Tree, key: &str, value: &Tree) {
    api::meta::set_annotation(tree, key, &String::from_utf8_lossy(&value.to_json()));
}

pub fn v2_from_v1(tree: &mut Tree) {
    give_list(tree, &["spec", "targetCPUUtilizationPercentage"], &["spec", "metrics"], "target", METRICS);
    give_list(tree, &["status", "currentCPUUtilizationPercentage"], &["status", "currentMetrics"], "current", CURRENT);
    for (path, annotation) in [(["spec", "behavior"], BEHAVIOR), (["status", "conditions"], CONDITIONS)] {
        if let Some(value) = annotated(tree, annotation) {
            tree.set(&path, value);
        }
    }
}

fn give_list(tree: &mut Tree, percentage: &[&str], path: &[&str], field: &str, annotation: &str) {
    let mut metrics = match annotated(tree, annotation) {
        Some(Tree::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    if let Some(value) = tree.remove(percentage).filter(|v| !v.is_null()) {
        let mut metric = Tree::object();
        metric.set(&["type"], "Resource");
        metric.set(&["resource", "name"], "cpu");
        metric.set(&["resource", field, "averageUtilization"], value);
        if field == "target" {
            metric.set(&["resource", field, "type"], "Utilization");
        }
        metrics.insert(0, metric);
    }
    if !metrics.is_empty() {
        tree.set(path, Tree::Array(metrics));
    }
}

fn annotated(tree: &mut Tree, key: &str) -> Option<Tree> {
    let annotations: &mut Object = tree.at_mut(&["metadata", "annotations"])?.as_object_mut()?;
    let text = annotations.remove(key)?;
    if annotations.is_empty() {
        tree.remove(&["metadata", "annotations"]);
    }
    Tree::from_json(text.as_str()?.as_bytes()).ok()
}
