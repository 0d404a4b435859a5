//! NodeResourcesFit: what the pod asks for must be free; the score prefers nodes by how full they would be.
//!
//! Models pkg/scheduler/framework/plugins/noderesources: fit.go, resource_allocation.go, least_allocated.go, most_allocated.go,
//! requested_to_capacity_ratio.go, v1.37.
use std::borrow::Cow;
use std::sync::Arc;

use super::{Filter, Prepared, Reasons, Refusal, SCORE_MAX, Score, World, check};
use crate::cache::{NodeFacts, NodeState};
use crate::dra::ExtendedResources;
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::PodInfo;
use crate::resources::{Place, Resources, is_extended, is_scalar};

/// How full a node should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of utilization (percent) and score (0 to 100), by utilization.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

pub struct NodeResourcesFit {
    pub ignored_resources: Vec<String>,
    pub ignored_groups: Vec<String>,
    pub strategy: Strategy,
    /// Resources that are looked at, with their weights.
    pub resources: Vec<(String, i64)>,
    /// Resources that device classes offer where a node itself has none.
    pub devices: Arc<ExtendedResources>,
}

fn insufficient(name: &str) -> Cow<'static, str> {
    match name {
        "cpu" => "Insufficient cpu".into(),
        "memory" => "Insufficient memory".into(),
        "ephemeral-storage" => "Insufficient ephemeral-storage".into(),
        _ => format!("Insufficient {name}").into(),
    }
}

impl NodeResourcesFit {
    fn is_ignored(&self, name: &str) -> bool {
        let group = name.split('/').next().unwrap_or_default();
        is_extended(name) && (self.ignored_resources.iter().any(|r| r == name) || self.ignored_groups.iter().any(|g| g == group))
    }

    fn is_left_to_devices(&self, name: &str, node: &NodeFacts) -> bool {
        is_extended(name) && node.allocatable.get(name) == 0 && self.devices.class_of(name).is_some()
    }

    /// What is missing on a node where `taken` and so many pods are there already.
    fn missing(&self, pod: &PodInfo, node: &NodeFacts, taken: &Resources, pods: usize) -> Result<(), Refusal> {
        if (pods as i64) < node.allowed_pods && pod.requests.scalars.is_empty() && pod.requests.fits_beside(taken, &node.allocatable) {
            return Ok(());
        }
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut resolvable = true;
        if pods as i64 + 1 > node.allowed_pods {
            reasons.push("Too many pods".into());
        }
        for (name, wanted) in pod.requests.iter().filter(|(_, wanted)| *wanted > 0) {
            let has = node.allocatable.get(name);
            if wanted > has - taken.get(name) && !self.is_ignored(name) && !self.is_left_to_devices(name, node) {
                reasons.push(insufficient(name));
                resolvable &= wanted <= has;
            }
        }
        match reasons.len() {
            0 => Ok(()),
            1 => Err(Refusal { reasons: Reasons::One(reasons.swap_remove(0)), resolvable }),
            _ => Err(Refusal { reasons: Reasons::Several(reasons), resolvable }),
        }
    }
}

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
    fn events(&self) -> u32 {
        bits::POD_DELETE
            | bits::NODE_ADD
            | bits::NODE_ALLOCATABLE
            | bits::POD_SCALE_DOWN
            | bits::TARGET_SCALE_DOWN
            | bits::DEVICE_CLASS
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Node { old, new: Some(new) } => {
                let has_more = |old: &NodeFacts| {
                    new.allowed_pods > old.allowed_pods
                        || pod.requests.iter().any(|(name, _)| {
                            new.allocatable.get(name) > old.allocatable.get(name) || self.is_left_to_devices(name, new)
                        })
                };
                self.missing(pod, new, &Resources::default(), 0).is_ok() && old.is_none_or(has_more)
            }
            Change::Pod { old: Some(old), new: Some(new) } => {
                pod.requests.iter().any(|(name, wanted)| wanted != 0 && old.requests.get(name) > new.requests.get(name))
            }
            Change::DeviceClass { new: Some(class), .. } => {
                let names = crate::dra::extended_names(class);
                pod.requests.iter().any(|(name, _)| names.iter().any(|n| n == name))
            }
            Change::DeviceClass { new: None, .. } => false,
            _ => true,
        }
    }
    fn sees_node_only(&self, pod: &PodInfo) -> bool {
        pod.requests.scalars.is_empty() // others may be devices, which classes offer
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        Prepared::Check(check(move |node| self.missing(pod, &node.facts, &node.requested, node.pods.len())))
    }
}

/// One resource that a score looks at: where it stands, and what the pod wants of it. In order of the plugin's list.
pub struct Wanted<'r> {
    place: Place<'r>,
    wanted: i64,
    /// What scoring assumes counts, not what pods ask for.
    assumed: bool,
    is_scalar: bool,
}

/// What the pod wants of each of `resources`. With `assumed`, CPU and memory are what scoring assumes of pods that ask for nothing.
pub fn wanted<'r>(pod: &PodInfo, resources: &'r [(String, i64)], assumed: bool) -> Vec<Wanted<'r>> {
    let one = |(name, _): &'r (String, i64)| {
        let place = Place::of(name);
        let assumed = assumed && matches!(place, Place::MilliCpu | Place::Memory);
        let wanted = if assumed { pod.assumed.at(place) } else { pod.requests.at(place) };
        Wanted { place, wanted, assumed, is_scalar: is_scalar(name) }
    };
    resources.iter().map(one).collect()
}

/// Of each resource that counts on the node: (number, taken before, taken after, allocatable).
pub fn allocation(node: &NodeState, resources: &[Wanted], mut each: impl FnMut(usize, i64, i64, i64)) {
    for (i, Wanted { place, wanted, assumed, is_scalar }) in resources.iter().enumerate() {
        let taken = if *assumed { node.assumed.at(*place) } else { node.requested.at(*place) };
        let allocatable = node.allocatable.at(*place);
        if allocatable != 0 && (*wanted != 0 || !is_scalar) {
            each(i, taken, taken + wanted, allocatable);
        }
    }
}

fn scaled(part: i64, of: i64) -> i64 {
    match part.checked_mul(SCORE_MAX) {
        Some(scaled) => scaled / of,
        None => (i128::from(part) * i128::from(SCORE_MAX) / i128::from(of)) as i64,
    }
}

/// Straight lines between the points (helper `BuildBrokenLinearFunction`).
pub fn along(shape: &[(i64, i64)], at: i64) -> i64 {
    let Some(i) = shape.iter().position(|(x, _)| at <= *x) else { return shape.last().map_or(0, |(_, y)| *y) };
    if i == 0 {
        return shape[0].1;
    }
    let ((x0, y0), (x1, y1)) = (shape[i - 1], shape[i]);
    y0 + (y1 - y0) * (at - x0) / (x1 - x0)
}

impl Score for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
    fn sees_node_only(&self) -> bool {
        true
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], _: &World) -> Option<Vec<i64>> {
        let resources = wanted(pod, &self.resources, true);
        let one = |node: &NodeState| {
            let (mut total, mut weights) = (0, 0);
            allocation(node, &resources, |i, _, after, of| {
                let weight = self.resources[i].1;
                let score = match &self.strategy {
                    Strategy::LeastAllocated => if after > of { 0 } else { scaled(of - after, of) },
                    Strategy::MostAllocated => scaled(after.min(of), of),
                    Strategy::RequestedToCapacityRatio(shape) => {
                        let score = along(shape, if after > of { 100 } else { after * 100 / of });
                        if score <= 0 {
                            return;
                        }
                        score
                    }
                };
                total += score * weight;
                weights += weight;
            });
            match (&self.strategy, weights) {
                (_, 0) => 0,
                (Strategy::RequestedToCapacityRatio(_), _) => (total as f64 / weights as f64).round() as i64,
                _ => total / weights,
            }
        };
        Some(nodes.iter().map(|n| one(n)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_followed_in_straight_lines() {
        let shape = [(0, 0), (50, 100), (100, 20)];
        assert_eq!([0, 25, 50, 75, 100, 120].map(|at| along(&shape, at)), [0, 50, 100, 60, 20, 20]);
    }
}
