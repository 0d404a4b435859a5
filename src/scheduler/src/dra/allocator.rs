//! Finds devices for claims on one node: a search that takes back what does not lead on.
//!
//! Models k8s.io/dynamic-resource-allocation/structured/internal/incubating/allocator_incubating.go, v1.37. Left out, as off by default:
//! derived attributes, list attributes, compatibility groups, skipped node operations. The time that a search may take is counted in steps.
mod result;
mod search;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::Named;
use k8s_openapi::api::resource::v1::{
    AllocationResult, CapacityRequirements, Device, DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaim,
    ResourceSlice,
};

use self::search::{Found, Search};
use super::capacity::{Amounts, suffices};
use super::constraint::Constraint;
use super::pools::{DeviceId, Pool, devices, gather, node_matches};
use super::selector::all_match;
use crate::cache::NodeFacts;

/// A claim holds no more devices.
pub const DEVICES_MAX: usize = 32;

/// What is allocated already.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    pub devices: HashSet<DeviceId>,
    /// What is taken of devices that are shared.
    pub shared: HashMap<DeviceId, Amounts>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// No node will do before somebody has mended it.
    #[error("{0}")]
    Fatal(String),
    #[error("invalid resource pools were encountered")]
    InvalidPools,
    #[error("timed out trying to allocate devices")]
    TooLong,
}

pub struct Allocator<'a> {
    pub in_use: &'a InUse,
    pub class: &'a (dyn Fn(&str) -> Option<Arc<DeviceClass>> + Sync),
    pub slices: &'a [Arc<ResourceSlice>],
}

/// A request or one of its alternatives.
pub(super) struct Wanted<'a> {
    pub request: &'a str,
    pub sub_request: Option<&'a str>,
    pub class: Arc<DeviceClass>,
    pub selectors: Option<&'a Vec<DeviceSelector>>,
    pub tolerations: &'a [DeviceToleration],
    pub capacity: Option<&'a CapacityRequirements>,
    pub admin: bool,
    pub has_admin: Option<bool>,
    pub count: usize,
    /// Where all devices are wanted, which.
    pub all: Option<Vec<Spot>>,
}

/// Where a device is: number of pool, slice and device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spot {
    pub pool: usize,
    pub slice: usize,
    pub device: usize,
}

impl Wanted<'_> {
    pub fn name(&self) -> String {
        match self.sub_request {
            None => self.request.to_owned(),
            Some(sub) => format!("{}/{sub}", self.request),
        }
    }
}

impl<'a> Allocator<'a> {
    /// An allocation for each claim; `None` where the node does not have the devices.
    pub fn allocate(&self, node: &NodeFacts, claims: &[Arc<ResourceClaim>]) -> Result<Option<Vec<AllocationResult>>, AllocateError> {
        let pools = gather(self.slices, node);
        let mut wanted = Vec::new();
        let mut constraints = Vec::new();
        for claim in claims {
            let spec = claim.spec.as_ref().and_then(|s| s.devices.as_ref());
            let requests = spec.and_then(|d| d.requests.as_deref()).unwrap_or_default();
            let mut least = 0;
            let mut of_claim = Vec::new();
            for request in requests {
                let alternatives = self.alternatives(claim, request, node, &pools)?;
                least += alternatives.iter().map(|w| w.count).min().unwrap_or_default();
                if least > DEVICES_MAX {
                    let name = &request.name;
                    return Err(fatal(claim, name, &format!("adding devices exceeds the claim limit of {DEVICES_MAX}")));
                }
                of_claim.push(alternatives);
            }
            wanted.push(of_claim);
            let mut of_claim = Vec::new();
            for (i, constraint) in spec.and_then(|d| d.constraints.as_ref()).into_iter().flatten().enumerate() {
                let key = claim.key();
                let unknown = || format!("claim {key}, constraint #{i}: empty constraint (unsupported constraint type?)");
                of_claim.push(Constraint::new(constraint).ok_or_else(|| AllocateError::Fatal(unknown()))?);
            }
            constraints.push(of_claim);
        }
        let mut search = Search::new(self, node, claims, &pools, &wanted, constraints);
        match search.run()? {
            Found::Yes => Ok(Some(result::results(claims, &wanted, search.into_picked(), node))),
            Found::No | Found::TooMany if pools.iter().any(|p| p.invalid.is_some()) => Err(AllocateError::InvalidPools),
            Found::No | Found::TooMany => Ok(None),
        }
    }

    fn alternatives<'c>(
        &self,
        claim: &ResourceClaim,
        request: &'c DeviceRequest,
        node: &NodeFacts,
        pools: &[Pool],
    ) -> Result<Vec<Wanted<'c>>, AllocateError> {
        let name = request.name.as_str();
        let find = |class: &str| {
            let found = (self.class)(class);
            found.ok_or_else(|| fatal(claim, name, &format!("could not retrieve device class {class}")))
        };
        let mut all = Vec::new();
        if let Some(exact) = &request.exactly {
            all.push((
                Wanted {
                    request: name,
                    sub_request: None,
                    class: find(&exact.device_class_name)?,
                    selectors: exact.selectors.as_ref(),
                    tolerations: exact.tolerations.as_deref().unwrap_or_default(),
                    capacity: exact.capacity.as_ref(),
                    admin: exact.admin_access == Some(true),
                    has_admin: exact.admin_access,
                    count: 0,
                    all: None,
                },
                exact.allocation_mode.as_deref(),
                exact.count,
            ));
        }
        for sub in request.first_available.iter().flatten() {
            all.push((
                Wanted {
                    request: name,
                    sub_request: Some(&sub.name),
                    class: find(&sub.device_class_name)?,
                    selectors: sub.selectors.as_ref(),
                    tolerations: sub.tolerations.as_deref().unwrap_or_default(),
                    capacity: sub.capacity.as_ref(),
                    admin: false,
                    has_admin: None,
                    count: 0,
                    all: None,
                },
                sub.allocation_mode.as_deref(),
                sub.count,
            ));
        }
        let mut ready = Vec::new();
        for (mut wanted, mode, count) in all {
            match mode {
                Some("All") => {
                    let every = self.every(claim, &wanted, node, pools)?;
                    wanted.count = every.len();
                    wanted.all = Some(every);
                }
                Some("ExactCount") | None => wanted.count = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX),
                Some(other) => return Err(fatal(claim, name, &format!("unsupported count mode {other}"))),
            }
            ready.push(wanted);
        }
        Ok(ready)
    }

    /// All devices that a request for all of them means.
    fn every(&self, claim: &ResourceClaim, wanted: &Wanted, node: &NodeFacts, pools: &[Pool]) -> Result<Vec<Spot>, AllocateError> {
        let mut spots = Vec::new();
        for (p, pool) in pools.iter().enumerate() {
            let is = |what: &str| {
                let text = format!("asks for all devices, but resource pool {}/{} is currently {what}", pool.driver, pool.name);
                fatal(claim, &wanted.name(), &text)
            };
            if pool.is_incomplete {
                return Err(is("being updated"));
            }
            if pool.invalid.is_some() {
                return Err(is("invalid"));
            }
            for (s, slice) in pool.slices.iter().enumerate() {
                for (d, device) in devices(slice).iter().enumerate() {
                    if selects(claim, wanted, slice, device, node)? && suffices(wanted.capacity, device, &[]) {
                        spots.push(Spot { pool: p, slice: s, device: d });
                    }
                }
            }
        }
        Ok(spots)
    }
}

fn fatal(claim: &ResourceClaim, request: &str, what: &str) -> AllocateError {
    AllocateError::Fatal(format!("claim {}, request {request}: {what}", claim.key()))
}

/// Whether the class and the request mean this device, and the node can use it.
pub(super) fn selects(
    claim: &ResourceClaim,
    wanted: &Wanted,
    slice: &ResourceSlice,
    device: &Device,
    node: &NodeFacts,
) -> Result<bool, AllocateError> {
    let driver = slice.spec.driver.as_str();
    let of_class = wanted.class.spec.as_ref().and_then(|s| s.selectors.as_ref());
    let in_class = all_match(of_class, driver, device)
        .map_err(|(i, e)| AllocateError::Fatal(format!("class {}: selector #{i}: {e}", wanted.class.name())))?;
    if !in_class {
        return Ok(false);
    }
    let asked_for = all_match(wanted.selectors, driver, device)
        .map_err(|(i, e)| AllocateError::Fatal(format!("claim {}: selector #{i}: {e}", claim.key())))?;
    let per_device = slice.spec.per_device_node_selection == Some(true);
    let reachable = || node_matches(node, device.node_name.as_deref(), device.all_nodes, device.node_selector.as_ref());
    Ok(asked_for && (!per_device || reachable()))
}
