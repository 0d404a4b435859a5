//! Defaults of HorizontalPodAutoscalers.
//!
//! Models pkg/apis/autoscaling/v1/defaults.go and pkg/apis/autoscaling/v2/defaults.go.
use super::{absent, child, child_or_new, is_zero};
use crate::tree::{Object, Tree};

pub(super) fn apply(version: &str, kind: &str, object: &mut Object) {
    if kind != "HorizontalPodAutoscaler" {
        return;
    }
    let spec = child_or_new(object, "spec");
    absent(spec, "minReplicas", 1);
    if version == "v1" {
        absent(spec, "targetCPUUtilizationPercentage", 80);
        return;
    }
    if spec.get("metrics").is_none_or(is_zero) {
        let mut metric = Tree::object();
        metric.set(&["type"], "Resource");
        metric.set(&["resource", "name"], "cpu");
        metric.set(&["resource", "target", "type"], "Utilization");
        metric.set(&["resource", "target", "averageUtilization"], 80);
        spec.insert("metrics", vec![metric]);
    }
    let Some(behavior) = child(spec, "behavior") else { return };
    let up = child_or_new(behavior, "scaleUp");
    absent(up, "selectPolicy", "Max");
    absent(up, "stabilizationWindowSeconds", 0);
    absent(up, "policies", vec![policy("Pods", 4), policy("Percent", 100)]);
    let down = child_or_new(behavior, "scaleDown");
    absent(down, "selectPolicy", "Max");
    absent(down, "policies", vec![policy("Percent", 100)]);
}

fn policy(kind: &str, value: i64) -> Tree {
    let entries = [("type", Tree::from(kind)), ("value", Tree::Integer(value)), ("periodSeconds", Tree::Integer(15))];
    Tree::Object(entries.into_iter().collect())
}
