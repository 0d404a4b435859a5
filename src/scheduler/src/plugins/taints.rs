//! TaintToleration: untolerated NoSchedule and NoExecute taints keep a pod away, PreferNoSchedule ones make a node worse.
//!
//! Models pkg/scheduler/framework/plugins/tainttoleration and component-helpers/scheduling/corev1 `ToleratesTaint`.
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{ClusterEvent, Filter, Reason, Score, World, normalize};
use crate::cache::NodeState;
use crate::pod::PodInfo;

pub struct TaintToleration;

pub fn tolerates(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
    tolerations.iter().any(|t| {
        let own_effect = t.effect.as_deref().unwrap_or_default();
        let own_key = t.key.as_deref().unwrap_or_default();
        let own_value = t.value.as_deref().unwrap_or_default();
        let number = |text: &str| text.parse::<i64>().ok();
        (own_effect.is_empty() || own_effect == effect)
            && (own_key.is_empty() || own_key == key)
            && match t.operator.as_deref().unwrap_or_default() {
                "" | "Equal" => own_value == value,
                "Exists" => true,
                "Lt" => number(value).zip(number(own_value)).is_some_and(|(v, limit)| v < limit),
                "Gt" => number(value).zip(number(own_value)).is_some_and(|(v, limit)| v > limit),
                _ => false,
            }
    })
}

fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    tolerates(&pod.tolerations, &taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeTaints)
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>> {
        Some(Box::new(|node| {
            let hard = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
            match hard.into_iter().find(|t| !tolerated(pod, t)) {
                Some(taint) => {
                    let value = taint.value.as_deref().unwrap_or_default();
                    Err(vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)])
                }
                None => Ok(()),
            }
        }))
    }
}

impl Score for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        let bad = |n: &NodeState| n.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !tolerated(pod, t)).count() as i64;
        let mut scores: Vec<_> = nodes.iter().map(|n| bad(n)).collect();
        normalize(&mut scores, true);
        Some(scores)
    }
}
