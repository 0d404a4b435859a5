//! DynamicResources: a pod goes where its claims are allocated, or can be.
//!
//! Models pkg/scheduler/framework/plugins/dynamicresources/dynamicresources.go, v1.37. Left out: extended resources that device classes
//! offer (they count as what a node itself has), workload claims and node allocatable resources (off by default).
use std::sync::Arc;

use client::{Named, ObjectKey, controller_of};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::allocator::{AllocateError, Allocator, InUse};
use super::binding_conditions::{Readiness, readiness};
use super::devices::{DeviceView, is_allocated};
use crate::cache::{NodeFacts, NodeState};
use crate::events::{Change, ClusterEvent, bits};
use crate::plugins::{Filter, NodeCheck, Prepared, Refusal, Score, Verdict, World, check, normalize, selector_matches};
use crate::pod::{DeviceClaimSource, PodInfo};

pub struct DynamicResources;

/// A claim takes so many pods.
const RESERVED_MAX: usize = 256;
/// Alternatives of a request.
const ALTERNATIVES_MAX: i64 = 8;

/// The claims of a pod; why it has to wait for them.
pub fn claims_of(pod: &PodInfo, devices: &dyn DeviceView) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let mut claims = Vec::new();
    for used in &pod.device_claims {
        let (name, is_own) = match &used.source {
            DeviceClaimSource::Named(name) => (name, false),
            DeviceClaimSource::Generated(Some(name)) if name.is_empty() => continue,
            DeviceClaimSource::Generated(Some(name)) => (name, true),
            DeviceClaimSource::Generated(None) => {
                return Err(format!("pod {:?}: ResourceClaim not created yet", pod.key.to_string()));
            }
        };
        let key = ObjectKey::new(pod.key.namespace.clone(), name.clone());
        let claim = devices.claim(&key).ok_or_else(|| format!("resourceclaim.resource.k8s.io {name:?} not found"))?;
        if claim.is_deleting() {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        if is_own && controller_of(&claim.metadata).is_none_or(|owner| owner.uid != pod.uid) {
            return Err(format!("ResourceClaim {key} was not created for Pod {} (Pod is not owner)", pod.key));
        }
        claims.push(claim);
    }
    Ok(claims)
}

fn reserved_for(claim: &ResourceClaim) -> impl Iterator<Item = &str> {
    let consumers = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref());
    consumers.into_iter().flatten().map(|c| c.uid.as_str())
}

pub fn is_reserved_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    reserved_for(claim).any(|uid| uid == pod.uid)
}

fn reaches(claim: &ResourceClaim, node: &NodeFacts) -> bool {
    let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
    allocation.and_then(|a| a.node_selector.as_ref()).is_none_or(|selector| selector_matches(selector, node))
}

/// Allocations for the claims that have none, on this node.
fn allocate(
    claims: &[Arc<ResourceClaim>],
    node: &NodeFacts,
    devices: &dyn DeviceView,
    in_use: &InUse,
) -> Result<Option<Vec<AllocationResult>>, AllocateError> {
    let slices = devices.slices();
    let class = |name: &str| devices.class(name);
    Allocator { in_use, class: &class, slices: &slices }.allocate(node, claims)
}

/// The pod's claims, each with the allocation that it is to get if the pod goes to this node.
pub fn choices(pod: &PodInfo, node: &NodeFacts, devices: &dyn DeviceView) -> Vec<(Arc<ResourceClaim>, Option<AllocationResult>)> {
    let claims = claims_of(pod, devices).unwrap_or_default();
    let (done, open): (Vec<_>, Vec<_>) = claims.into_iter().partition(|c| is_allocated(c));
    let found = if open.is_empty() { None } else { allocate(&open, node, devices, &devices.in_use()).ok().flatten() };
    let open = open.into_iter().zip(found.unwrap_or_default()).map(|(claim, allocation)| (claim, Some(allocation)));
    done.into_iter().map(|claim| (claim, None)).chain(open).collect()
}

/// A claim that keeps the pod from a node although nobody uses it: without its allocation the pod may find one.
pub fn idle(pod: &PodInfo, world: &World) -> Option<Arc<ResourceClaim>> {
    let claims = claims_of(pod, world.devices).ok()?;
    let mut idle = claims.into_iter().filter(|claim| {
        let unused = reserved_for(claim).all(|uid| uid == pod.uid);
        let in_the_way = world.cache.nodes().any(|n| !reaches(claim, n)) || matches!(readiness(claim), Readiness::Failed(_));
        is_allocated(claim) && unused && in_the_way
    });
    idle.next()
}

#[derive(Clone)]
struct Check<'a> {
    done: Arc<Vec<Arc<ResourceClaim>>>,
    open: Arc<Vec<Arc<ResourceClaim>>>,
    devices: &'a dyn DeviceView,
    in_use: Arc<InUse>,
}

impl Check<'_> {
    fn look(&self, node: &NodeFacts) -> Verdict {
        if !self.open.is_empty() {
            match allocate(&self.open, node, self.devices, &self.in_use) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(Refusal::unresolvable("cannot allocate all claims")),
                Err(AllocateError::TooLong) => {
                    return Err(Refusal::unresolvable(format!("node {}: timed out trying to allocate devices", node.name)));
                }
                Err(error) => return Err(Refusal::unresolvable(error.to_string())),
            }
        }
        let available = |claim: &Arc<ResourceClaim>| reaches(claim, node) && !matches!(readiness(claim), Readiness::Failed(_));
        match self.done.iter().all(available) {
            true => Ok(()),
            false => Err(Refusal::unresolvable("resourceclaim not available on the node")),
        }
    }
}

impl Filter for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
    fn events(&self) -> u32 {
        bits::DEVICE_CLAIM
            | bits::DEVICE_SLICE
            | bits::DEVICE_CLASS
            | bits::DEVICE_TAINT_RULE
            | bits::TARGET_CLAIMS
            | bits::NODE_ADD
            | bits::NODE_LABEL
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let Change::DeviceClaim { old, new } = event.change else { return true };
        let claim = new.or(old);
        let is_own = claim.is_some_and(|c| {
            let named = pod.device_claims.iter().any(|used| match &used.source {
                DeviceClaimSource::Named(name) | DeviceClaimSource::Generated(Some(name)) => name == c.name(),
                DeviceClaimSource::Generated(None) => false,
            });
            c.namespace() == pod.key.namespace && named
        });
        // What another claim gives back may be what this one lacks.
        let freed = old.is_some_and(is_allocated) && !new.is_some_and(is_allocated);
        is_own || freed
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        if pod.device_claims.is_empty() {
            return Prepared::Skip;
        }
        let devices = world.devices;
        let claims = match claims_of(pod, devices) {
            Ok(claims) if claims.is_empty() => return Prepared::Skip,
            Ok(claims) => claims,
            Err(why) => return Prepared::Refused(Refusal::unresolvable(why)),
        };
        let (done, open): (Vec<_>, Vec<_>) = claims.into_iter().partition(|c| is_allocated(c));
        if done.iter().any(|c| reserved_for(c).count() >= RESERVED_MAX && !is_reserved_for(c, pod)) {
            return Prepared::Refused(Refusal::unresolvable("resourceclaim in use"));
        }
        for claim in &open {
            if devices.is_pending(claim.uid()) {
                let why = format!("resource claim {} is in the process of being allocated", claim.key());
                return Prepared::Refused(Refusal::unresolvable(why));
            }
            if let Some(why) = missing_class(claim, devices) {
                return Prepared::Refused(Refusal::unresolvable(why));
            }
        }
        let in_use = Arc::new(if open.is_empty() { InUse::default() } else { devices.in_use() });
        let all = Check { done: Arc::new(done), open: Arc::new(open), devices, in_use };
        let answers: Box<dyn NodeCheck<'a> + 'a> = check(move |node| all.look(node));
        Prepared::Check(answers)
    }
}

fn missing_class(claim: &ResourceClaim, devices: &dyn DeviceView) -> Option<String> {
    let requests = claim.spec.as_ref().and_then(|s| s.devices.as_ref()?.requests.as_ref());
    for request in requests.into_iter().flatten() {
        let exact = request.exactly.iter().map(|e| (request.name.clone(), &e.device_class_name));
        let alternatives = request.first_available.iter().flatten();
        let alternatives = alternatives.map(|sub| (format!("{}/{}", request.name, sub.name), &sub.device_class_name));
        for (name, class) in exact.chain(alternatives) {
            if devices.class(class).is_none() {
                return Some(format!("request {name}: device class {class} does not exist"));
            }
        }
    }
    None
}

impl Score for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
    fn has_a_say(&self, pod: &PodInfo, _: &World) -> bool {
        !pod.device_claims.is_empty()
    }
    /// The earlier the alternatives that a node has, the better.
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let claims = claims_of(pod, world.devices).ok()?;
        let requests = |c: &ResourceClaim| c.spec.as_ref().and_then(|s| s.devices.as_ref()?.requests.clone()).unwrap_or_default();
        if !claims.iter().any(|c| requests(c).iter().any(|r| r.first_available.is_some())) {
            return None;
        }
        let one = |node: &NodeState| -> i64 {
            let mut score = 0;
            for (claim, allocation) in choices(pod, node, world.devices) {
                let allocation = allocation.or_else(|| claim.status.as_ref().and_then(|s| s.allocation.clone()));
                let results = allocation.and_then(|a| a.devices?.results).unwrap_or_default();
                for request in requests(&claim) {
                    for (i, sub) in request.first_available.iter().flatten().enumerate() {
                        let name = format!("{}/{}", request.name, sub.name);
                        score += if results.iter().any(|r| r.request == name) { ALTERNATIVES_MAX - i as i64 } else { 0 };
                    }
                }
            }
            score
        };
        let mut scores: Vec<i64> = nodes.iter().map(|n| one(n)).collect();
        normalize(&mut scores, false);
        Some(scores)
    }
}
