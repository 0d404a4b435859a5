//! Defaults of Deployments, DaemonSets, StatefulSets and ReplicaSets.
//!
//! Models pkg/apis/apps/v1/defaults.go.
use super::{absent, child, child_or_new, each, pod, text, volume, zero};
use crate::tree::{Object, Tree};

pub(super) fn apply(kind: &str, object: &mut Object) {
    if !matches!(kind, "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet") {
        return;
    }
    let spec = child_or_new(object, "spec");
    if kind != "DaemonSet" {
        absent(spec, "replicas", 1);
    }
    if kind != "ReplicaSet" {
        absent(spec, "revisionHistoryLimit", 10);
    }
    match kind {
        "Deployment" => {
            rolling_update(spec, "strategy", Tree::from("25%"), Tree::from("25%"));
            absent(spec, "progressDeadlineSeconds", 600);
        }
        "DaemonSet" => {
            rolling_update(spec, "updateStrategy", Tree::Integer(1), Tree::Integer(0));
            // Of another type, numbers that are not there are zero, as those of Go are.
            if let Some(rolling) = child(child_or_new(spec, "updateStrategy"), "rollingUpdate") {
                absent(rolling, "maxUnavailable", 0);
                absent(rolling, "maxSurge", 0);
            }
        }
        "StatefulSet" => stateful_set(spec),
        _ => {}
    }
    pod::template(spec);
}

fn rolling_update(spec: &mut Object, strategy: &str, max_unavailable: Tree, max_surge: Tree) {
    let strategy = child_or_new(spec, strategy);
    zero(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = child_or_new(strategy, "rollingUpdate");
        absent(rolling, "maxUnavailable", max_unavailable);
        absent(rolling, "maxSurge", max_surge);
    }
}

fn stateful_set(spec: &mut Object) {
    zero(spec, "podManagementPolicy", "OrderedReady");
    let strategy = child_or_new(spec, "updateStrategy");
    if text(strategy, "type").is_empty() {
        strategy.insert("type", "RollingUpdate");
        child_or_new(strategy, "rollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = child(strategy, "rollingUpdate") {
            absent(rolling, "partition", 0);
            absent(rolling, "maxUnavailable", 1);
        }
    let retention = child_or_new(spec, "persistentVolumeClaimRetentionPolicy");
    zero(retention, "whenDeleted", "Retain");
    zero(retention, "whenScaled", "Retain");
    for claim in each(spec, "volumeClaimTemplates") {
        // A template of an older client may lack what makes it a claim.
        zero(claim, "apiVersion", "v1");
        zero(claim, "kind", "PersistentVolumeClaim");
        volume::claim(claim);
    }
}
