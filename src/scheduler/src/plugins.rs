//! The plugins of the default profile, with upstream's names and weights (pkg/scheduler/apis/config/v1/default_plugins.go).
//!
//! A plugin may look over all nodes once for a pod ([`Filter::prepare`], [`Score::prepare`]) and is then asked about each node.
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod simple;
mod taints;
mod topology_spread;
pub mod volume_binding;

use std::collections::BTreeMap;

use crate::cache::{Cache, NodeState};
use crate::pod::PodInfo;
use crate::volumes::VolumeView;

pub const SCORE_MAX: i64 = 100;

/// What plugins may look at beside the pod and a node.
pub struct World<'a> {
    pub cache: &'a Cache,
    pub namespace_labels: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    pub volumes: &'a dyn VolumeView,
}

/// Why a node will not do; the text is what `kubectl describe` shows.
pub type Reason = String;

/// What may have made room for a pod that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    NodeAdded,
    NodeLabels,
    NodeTaints,
    NodeAllocatable,
    PodAdded,
    PodRemoved,
    PodUpdated,
    NamespaceLabels,
    /// A claim, a volume or a class has changed.
    Volumes,
}

pub trait Filter: Sync {
    fn name(&self) -> &'static str;
    /// The events after which a pod that this plugin turned away is worth another try (queueing hint).
    fn helped_by(&self, event: ClusterEvent) -> bool;
    /// Why no node at all will do for now; asked before any node is.
    fn refuses_all(&self, _: &PodInfo, _: &World) -> Option<Reason> {
        None
    }
    /// Answers for each node; `None` where the plugin has nothing to say about this pod.
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>>;
}

pub trait Score: Sync {
    fn weight(&self) -> i64;
    /// Scores from 0 to [`SCORE_MAX`] for `nodes`, in their order; `None` where all are equal to this plugin.
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>>;
}

/// In upstream's order: the first plugin that refuses a node gives the reason.
pub const FILTERS: [&dyn Filter; 10] = [
    &simple::NodeUnschedulable,
    &simple::NodeName,
    &taints::TaintToleration,
    &node_affinity::NodeAffinity,
    &simple::NodePorts,
    &fit::NodeResourcesFit,
    &volume_binding::VolumeBinding,
    &topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &simple::Unsupported,
];

pub const SCORES: [&dyn Score; 7] = [
    &taints::TaintToleration,
    &node_affinity::NodeAffinity,
    &fit::NodeResourcesFit,
    &topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &fit::NodeResourcesBalancedAllocation,
    &image_locality::ImageLocality,
];

/// Scales to 0..=100 by the largest value; `reverse` gives the least the most (framework/plugins/helper/normalize_score.go).
fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in scores.iter_mut() {
        *score = match max {
            0 => if reverse { SCORE_MAX } else { 0 },
            _ => {
                let scaled = *score * SCORE_MAX / max;
                if reverse { SCORE_MAX - scaled } else { scaled }
            }
        };
    }
}
