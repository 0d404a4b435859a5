//! TaintToleration: untolerated NoSchedule and NoExecute taints keep a pod away, PreferNoSchedule ones make a node worse.
//!
//! Models pkg/scheduler/framework/plugins/tainttoleration and component-helpers/scheduling/corev1 `ToleratesTaint`.
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Filter, Prepared, Refusal, Score, World, check, normalize};
use crate::cache::NodeState;
use crate::events::{Change, ClusterEvent, bits};
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

fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerates(tolerations, &taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)
}

/// Whether a taint keeps the pod away.
pub fn is_kept_away(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    let mut hard = taints.iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.any(|t| !tolerated(tolerations, t))
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn events(&self) -> u32 {
        bits::NODE_ADD | bits::NODE_TAINT | bits::TARGET_TOLERATION
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Node { old, new: Some(new) } => {
                let away = |taints| is_kept_away(&pod.tolerations, taints);
                old.is_none_or(|old| away(&old.taints)) && !away(&new.taints)
            }
            _ => true,
        }
    }
    fn sees_node_only(&self, _: &PodInfo) -> bool {
        true
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        Prepared::Check(check(|node| match is_kept_away(&pod.tolerations, &node.taints) {
            true => Err(Refusal::unresolvable("node(s) had untolerated taint(s)")),
            false => Ok(()),
        }))
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn has_a_say(&self, _: &PodInfo, world: &World) -> bool {
        world.cache.has_taints()
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        if nodes.iter().all(|n| n.taints.is_empty()) {
            return None;
        }
        let bad = |n: &NodeState| n.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !tolerated(&pod.tolerations, t)).count() as i64;
        let mut scores: Vec<_> = nodes.iter().map(|n| bad(n)).collect();
        normalize(&mut scores, true);
        Some(scores)
    }
}
