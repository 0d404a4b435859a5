//! The plugins, with upstream's names, reasons and hints (pkg/scheduler/framework/plugins).
//!
//! A plugin looks over the cluster once for a pod ([`Filter::prepare`], [`Score::score`]); what it found answers for each node
//! ([`NodeCheck`]), and follows along while pods are put on or taken off a node in thought.
mod balanced;
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod simple;
mod taints;
mod topology_spread;
pub use self::topology_spread::system_defaults as topology_defaults;
pub mod volume_binding;
mod volume_limits;
mod volume_restrictions;
mod volume_zone;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub use self::balanced::NodeResourcesBalancedAllocation;
pub use self::fit::{NodeResourcesFit, Strategy};
pub use self::image_locality::ImageLocality;
pub use self::inter_pod_affinity::InterPodAffinity;
pub use self::node_affinity::{NodeAffinity, selector_matches};
pub use self::simple::{NodeName, NodePorts, NodeUnschedulable};
pub use self::taints::{TaintToleration, tolerates};
pub use self::topology_spread::PodTopologySpread;
pub use self::volume_binding::VolumeBinding;
pub use self::volume_limits::NodeVolumeLimits;
pub use self::volume_restrictions::VolumeRestrictions;
pub use self::volume_zone::VolumeZone;

use crate::cache::{Cache, NodeState};
use crate::dra::DeviceView;
use crate::events::ClusterEvent;
use crate::owners::OwnerView;
use crate::pod::{NamespaceLabels, PodInfo};
use crate::volumes::VolumeView;

pub const SCORE_MAX: i64 = 100;

/// What plugins may look at beside the pod and a node.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub cache: &'a Cache,
    pub namespace_labels: &'a NamespaceLabels<'a>,
    pub volumes: &'a dyn VolumeView,
    pub owners: &'a dyn OwnerView,
    pub devices: &'a dyn DeviceView,
}

/// Why a node (or all of them) will not do; the texts are what `kubectl describe` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reasons: Reasons,
    /// Taking pods away from the node could help (upstream's Unschedulable, against UnschedulableAndUnresolvable).
    pub resolvable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reasons {
    One(Cow<'static, str>),
    Several(Vec<Cow<'static, str>>),
}

impl Reasons {
    pub fn iter(&self) -> std::slice::Iter<'_, Cow<'static, str>> {
        match self {
            Self::One(reason) => std::slice::from_ref(reason).iter(),
            Self::Several(reasons) => reasons.iter(),
        }
    }

    pub fn joined(&self) -> String {
        self.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
    }
}

impl Refusal {
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: Reasons::One(reason.into()), resolvable: true }
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: Reasons::One(reason.into()), resolvable: false }
    }
}

pub type Verdict = Result<(), Refusal>;

/// What a filter found for one pod.
pub enum Prepared<'a> {
    /// The plugin has nothing to say about this pod.
    Skip,
    /// No node at all will do for now.
    Refused(Refusal),
    Check(Box<dyn NodeCheck<'a> + 'a>),
    /// As `Check`, and only these nodes come into question.
    Only(BTreeSet<String>, Box<dyn NodeCheck<'a> + 'a>),
}

/// Answers for one node; knows what the filter found for one pod.
pub trait NodeCheck<'a>: Send + Sync {
    fn check(&self, node: &NodeState) -> Verdict;
    /// Whether it follows along, in [`Self::with`] and [`Self::without`]; what looks at the given node alone need not.
    fn follows(&self) -> bool {
        false
    }
    /// As if `pod` were on `node` too.
    fn with(&mut self, _pod: &PodInfo, _node: &NodeState) {}
    /// As if `pod` were not on `node`.
    fn without(&mut self, _pod: &PodInfo, _node: &NodeState) {}
    fn duplicate(&self) -> Box<dyn NodeCheck<'a> + 'a>;
}

/// A check that looks at nothing but the node.
pub fn check<'a>(of_node: impl Fn(&NodeState) -> Verdict + Clone + Send + Sync + 'a) -> Box<dyn NodeCheck<'a> + 'a> {
    struct Plain<F>(F);
    impl<'a, F: Fn(&NodeState) -> Verdict + Clone + Send + Sync + 'a> NodeCheck<'a> for Plain<F> {
        fn check(&self, node: &NodeState) -> Verdict {
            (self.0)(node)
        }
        fn duplicate(&self) -> Box<dyn NodeCheck<'a> + 'a> {
            Box::new(Plain(self.0.clone()))
        }
    }
    Box::new(Plain(of_node))
}

pub trait Filter: Send + Sync {
    fn name(&self) -> &'static str;
    /// The bits of [`ClusterEvent`] that may help a pod which this plugin turned away.
    fn events(&self) -> u32;
    /// Whether this event could help this pod; asked where one of the bits is set.
    fn helps(&self, _pod: &PodInfo, _event: &ClusterEvent) -> bool {
        true
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a>;
    /// Whether its check looks at nothing but the node, and for pods that are alike ([`crate::alike`]) says the same.
    fn sees_node_only(&self, _pod: &PodInfo) -> bool {
        false
    }
}

pub trait Score: Send + Sync {
    fn name(&self) -> &'static str;
    /// Scores from 0 to [`SCORE_MAX`] for `nodes`, in their order; `None` where all are equal to this plugin.
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>>;
    /// Whether a node's score comes from nothing but the node, and is the same for pods that are alike ([`crate::alike`]).
    fn sees_node_only(&self) -> bool {
        false
    }
    /// False: all nodes are equal to it, whichever they are.
    fn has_a_say(&self, _pod: &PodInfo, _world: &World) -> bool {
        true
    }
}

/// Scales to 0..=100 by the largest value; `reverse` gives the least the most (framework/plugins/helper/normalize_score.go).
pub fn normalize(scores: &mut [i64], reverse: bool) {
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
