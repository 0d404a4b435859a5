//! ReplicationControllers, kept as ReplicaSets are.
//!
//! Models pkg/controller/replication/{replication_controller.go, conversion.go}, v1.37: an adapter.
use std::borrow::Cow;

use client::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use client::k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::context::ControllerContext;
use crate::replicaset::{Replicated, keep};

pub(crate) async fn run(cx: ControllerContext) {
    keep::<ReplicationController>(cx, "replication-controller").await;
}

impl Replicated for ReplicationController {
    fn as_replica_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().unwrap_or_default();
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: spec.replicas,
                selector: self.selector().into_owned(),
                template: spec.template,
            },
            status: self.status.clone().map(from_own),
        })
    }

    fn selector(&self) -> Cow<'_, LabelSelector> {
        let labels = self.spec.as_ref().and_then(|s| s.selector.clone());
        Cow::Owned(LabelSelector { match_labels: labels, match_expressions: None })
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(own_condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        });
    }

    const COUNTS_TERMINATING: bool = false;
}

fn from_own(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
        last_transition_time: c.last_transition_time,
        message: c.message,
        reason: c.reason,
        status: Some(c.status),
        type_: Some(c.type_),
    };
    ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    }
}

fn own_condition(condition: ReplicaSetCondition) -> ReplicationControllerCondition {
    ReplicationControllerCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status.unwrap_or_default(),
        type_: condition.type_.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_controller_is_read_as_a_set_and_its_status_written_back() {
        let mut rc: ReplicationController = serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "u", "generation": 4},
            "spec": {"replicas": 3, "minReadySeconds": 5, "selector": {"app": "web"}},
            "status": {"replicas": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota"}]},
        }))
        .unwrap();
        let mut set = rc.as_replica_set().into_owned();
        assert_eq!((set.spec.replicas, set.spec.min_ready_seconds), (Some(3), Some(5)));
        assert_eq!(set.spec.selector.match_labels.as_ref().unwrap()["app"], "web");
        let mut status = set.status.take().unwrap();
        assert_eq!(status.conditions.as_ref().unwrap()[0].message.as_deref(), Some("quota"));
        status.ready_replicas = Some(1);
        rc.set_status(status);
        let written = rc.status.unwrap();
        assert_eq!((written.replicas, written.ready_replicas), (2, Some(1)));
        assert_eq!(written.conditions.unwrap()[0].type_, "ReplicaFailure");
    }
}
