//! The counts of a status that Go writes always, zero or not.
//!
//! Models the status types of k8s.io/api, v1.37: their fields without `omitempty`. Typed clients take no object without them.
use super::{absent, child_or_new};
use crate::tree::Object;

pub(super) fn apply(group: &str, kind: &str, object: &mut Object) {
    let counts: &[&str] = match (group, kind) {
        ("apps", "StatefulSet") => &["replicas", "availableReplicas"],
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &["replicas"],
        ("apps", "DaemonSet") => &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"],
        ("policy", "PodDisruptionBudget") => &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"],
        ("autoscaling", "HorizontalPodAutoscaler") => &["desiredReplicas"],
        _ => return,
    };
    let status = child_or_new(object, "status");
    for count in counts {
        absent(status, count, 0);
    }
}
