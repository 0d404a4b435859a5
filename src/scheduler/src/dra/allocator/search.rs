//! The search itself.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{Device, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{AllocateError, Allocator, DEVICES_MAX, Spot, Wanted, selects};
use crate::cache::NodeFacts;
use crate::dra::capacity::{Amounts, consumed, milli, suffices};
use crate::dra::constraint::Constraint;
use crate::dra::pools::{DeviceId, Pool, devices};

/// A search is given up after so many steps.
const STEPS_MAX: u32 = 1_000_000;

/// A device that was chosen for a request.
pub struct Picked<'a> {
    pub request: usize,
    pub alternative: usize,
    pub slice: &'a ResourceSlice,
    pub device: &'a Device,
    pub share: Option<BTreeMap<String, Text>>,
}

pub enum Found {
    Yes,
    No,
    /// The claim would hold too many devices; another alternative may hold fewer.
    TooMany,
}

type Counters<'a> = HashMap<(&'a str, &'a str), i128>;

pub struct Search<'a> {
    allocator: &'a Allocator<'a>,
    node: &'a NodeFacts,
    claims: &'a [Arc<ResourceClaim>],
    pools: &'a [Pool<'a>],
    /// By claim and request, the alternatives.
    wanted: &'a [Vec<Vec<Wanted<'a>>>],
    constraints: Vec<Vec<Constraint<'a>>>,
    /// By pool, what is left of its counters.
    available: HashMap<usize, Counters<'a>>,
    /// Devices of this search, by the claims that have them.
    taken: HashMap<Spot, HashSet<usize>>,
    shares: HashMap<Spot, Vec<Amounts>>,
    selected: HashMap<(Spot, usize, usize, usize), bool>,
    picked: Vec<Vec<Picked<'a>>>,
    steps: u32,
}

/// Where the search stands.
#[derive(Clone, Copy, Default)]
struct At {
    claim: usize,
    request: usize,
    alternative: usize,
    /// How many devices the request has.
    devices: usize,
}

impl<'a> Search<'a> {
    pub fn new(
        allocator: &'a Allocator<'a>,
        node: &'a NodeFacts,
        claims: &'a [Arc<ResourceClaim>],
        pools: &'a [Pool<'a>],
        wanted: &'a [Vec<Vec<Wanted<'a>>>],
        constraints: Vec<Vec<Constraint<'a>>>,
    ) -> Self {
        let picked = claims.iter().map(|_| Vec::new()).collect();
        let (available, taken, shares, selected) = Default::default();
        Self { allocator, node, claims, pools, wanted, constraints, available, taken, shares, selected, picked, steps: 0 }
    }

    pub fn run(&mut self) -> Result<Found, AllocateError> {
        self.request(0, 0)
    }

    pub fn into_picked(self) -> Vec<Vec<Picked<'a>>> {
        self.picked
    }

    /// Goes on with a request, or with the next claim.
    fn request(&mut self, claim: usize, request: usize) -> Result<Found, AllocateError> {
        let Some(requests) = self.wanted.get(claim) else { return Ok(Found::Yes) };
        let Some(alternatives) = requests.get(request) else {
            return Ok(match self.request(claim + 1, 0)? {
                // That the next claim is too large is no reason to choose otherwise here.
                Found::TooMany => Found::No,
                found => found,
            });
        };
        let has_alternatives = alternatives.first().is_some_and(|w| w.sub_request.is_some());
        let mut all_too_many = true;
        for alternative in 0..alternatives.len() {
            match self.devices(At { claim, request, alternative, devices: 0 }, Spot::default())? {
                Found::Yes => return Ok(Found::Yes),
                Found::TooMany if has_alternatives => {}
                Found::TooMany => return Ok(Found::TooMany),
                Found::No => all_too_many = false,
            }
        }
        Ok(if all_too_many && has_alternatives { Found::TooMany } else { Found::No })
    }

    /// Finds the devices that the request still lacks, beginning at `from`.
    fn devices(&mut self, at: At, from: Spot) -> Result<Found, AllocateError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(AllocateError::TooLong);
        }
        let wanted = &self.wanted[at.claim][at.request][at.alternative];
        if wanted.all.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Found::No);
        }
        if at.devices >= wanted.count {
            return self.request(at.claim, at.request + 1);
        }
        if wanted.count - at.devices > DEVICES_MAX - self.picked[at.claim].len().min(DEVICES_MAX) {
            return Ok(Found::TooMany);
        }
        let next = At { devices: at.devices + 1, ..at };
        if let Some(all) = &wanted.all {
            let spot = all[at.devices];
            return Ok(match self.take(at, spot)? {
                None => Found::No,
                Some(undo) => match self.devices(next, Spot::default())? {
                    Found::Yes => Found::Yes,
                    found => {
                        self.give_back(at, spot, undo);
                        found
                    }
                },
            });
        }
        for pool in from.pool..self.pools.len() {
            if self.pools[pool].is_incomplete || self.pools[pool].invalid.is_some() {
                continue;
            }
            let slices = self.pools[pool].slices.len();
            let first_slice = if pool == from.pool { from.slice } else { 0 };
            for slice in first_slice..slices {
                let first = if pool == from.pool && slice == from.slice { from.device } else { 0 };
                for device in first..devices(self.pools[pool].slices[slice]).len() {
                    let spot = Spot { pool, slice, device };
                    if !self.is_selected(at, spot)? {
                        continue;
                    }
                    let Some(undo) = self.take(at, spot)? else { continue };
                    match self.devices(next, Spot { device: device + 1, ..spot })? {
                        Found::Yes => return Ok(Found::Yes),
                        Found::No => self.give_back(at, spot, undo),
                        Found::TooMany => {
                            self.give_back(at, spot, undo);
                            return Ok(Found::TooMany);
                        }
                    }
                }
            }
        }
        Ok(Found::No)
    }

    fn is_selected(&mut self, at: At, spot: Spot) -> Result<bool, AllocateError> {
        let key = (spot, at.claim, at.request, at.alternative);
        if let Some(known) = self.selected.get(&key) {
            return Ok(*known);
        }
        let slice = self.pools[spot.pool].slices[spot.slice];
        let wanted = &self.wanted[at.claim][at.request][at.alternative];
        let is = selects(&self.claims[at.claim], wanted, slice, &devices(slice)[spot.device], self.node)?;
        self.selected.insert(key, is);
        Ok(is)
    }

    /// Takes the device for the request; `None` where it is not to be had.
    fn take(&mut self, at: At, spot: Spot) -> Result<Option<Undo>, AllocateError> {
        let pool = &self.pools[spot.pool];
        let slice = pool.slices[spot.slice];
        let device = &devices(slice)[spot.device];
        let wanted = &self.wanted[at.claim][at.request][at.alternative];
        let id = DeviceId { driver: pool.driver.to_owned(), pool: pool.name.to_owned(), device: device.name.clone() };
        let is_shared = device.allow_multiple_allocations == Some(true);
        let by_any = self.taken.get(&spot).is_some_and(|claims| !claims.is_empty());
        let by_claim = self.taken.get(&spot).is_some_and(|claims| claims.contains(&at.claim));
        if wanted.admin && !is_shared && by_claim || !wanted.admin && (self.allocator.in_use.devices.contains(&id) || by_any) {
            return Ok(None);
        }
        let used_before = self.allocator.in_use.shared.get(&id);
        let mut used: Vec<_> = self.shares.get(&spot).into_iter().flatten().map(Some).collect();
        used.push(used_before);
        if !suffices(wanted.capacity, device, &used) || is_tainted(device, wanted.tolerations) {
            return Ok(None);
        }
        let draws = !(is_shared && (used_before.is_some() || self.shares.get(&spot).is_some_and(|s| !s.is_empty())));
        let mut undo = Undo { counters: false, constraints: 0, marked: !is_shared, share: is_shared };
        if draws && device.consumes_counters.as_ref().is_some_and(|c| !c.is_empty()) {
            if !self.draw(spot.pool, device) {
                return Ok(None);
            }
            undo.counters = true;
        }
        for i in 0..self.constraints[at.claim].len() {
            if !self.constraints[at.claim][i].add(wanted.request, wanted.sub_request, device, pool.driver) {
                self.undo(at, spot, &Undo { marked: false, share: false, ..undo });
                if wanted.all.is_some() {
                    let what = format!("cannot add device {id} because a claim constraint would not be satisfied");
                    return Err(super::fatal(&self.claims[at.claim], &wanted.name(), &what));
                }
                return Ok(None);
            }
            undo.constraints += 1;
        }
        let mut share = None;
        if is_shared {
            let amounts = consumed(wanted.capacity, device);
            self.shares.entry(spot).or_default().push(amounts.iter().map(|(name, a)| (name.clone(), milli(a))).collect());
            share = Some(amounts);
        } else {
            self.taken.entry(spot).or_default().insert(at.claim);
        }
        self.picked[at.claim].push(Picked { request: at.request, alternative: at.alternative, slice, device, share });
        Ok(Some(undo))
    }

    fn give_back(&mut self, at: At, spot: Spot, undo: Undo) {
        self.picked[at.claim].pop();
        self.undo(at, spot, &undo);
    }

    fn undo(&mut self, at: At, spot: Spot, undo: &Undo) {
        let wanted = &self.wanted[at.claim][at.request][at.alternative];
        let slice = self.pools[spot.pool].slices[spot.slice];
        if undo.share {
            self.shares.get_mut(&spot).and_then(Vec::pop);
        }
        if undo.marked {
            if let Some(claims) = self.taken.get_mut(&spot) {
                claims.remove(&at.claim);
            }
        }
        for constraint in self.constraints[at.claim].iter_mut().take(undo.constraints).rev() {
            constraint.remove(wanted.request, wanted.sub_request);
        }
        if undo.counters {
            let available = self.available.entry(spot.pool).or_default();
            for (key, amount) in draws(&devices(slice)[spot.device]) {
                *available.entry(key).or_default() += amount;
            }
        }
    }

    /// Takes what the device draws from the counters that it shares with others; false where that is too much.
    fn draw(&mut self, pool: usize, device: &'a Device) -> bool {
        let allocator = self.allocator;
        let pools = self.pools;
        let available = self.available.entry(pool).or_insert_with(|| left(&pools[pool], allocator));
        let fits = draws(device).all(|(key, amount)| available.get(&key).is_some_and(|left| *left >= amount));
        if fits {
            for (key, amount) in draws(device) {
                *available.entry(key).or_default() -= amount;
            }
        }
        fits
    }
}

/// What has to be undone for a device that was taken.
#[derive(Clone, Copy)]
struct Undo {
    counters: bool,
    constraints: usize,
    marked: bool,
    share: bool,
}

fn draws(device: &Device) -> impl Iterator<Item = ((&str, &str), i128)> {
    let sets = device.consumes_counters.iter().flatten();
    sets.flat_map(|c| c.counters.iter().map(|(name, counter)| ((c.counter_set.as_str(), name.as_str()), milli(&counter.value))))
}

/// What allocated devices leave of a pool's counters.
fn left<'a>(pool: &Pool<'a>, allocator: &Allocator) -> Counters<'a> {
    let sets = pool.counters.values();
    let all = sets.flat_map(|set| set.counters.iter().map(|(name, c)| ((set.name.as_str(), name.as_str()), milli(&c.value))));
    let mut left: Counters = all.collect();
    for slice in pool.slices.iter().chain(&pool.elsewhere) {
        for device in devices(slice) {
            let id = DeviceId { driver: pool.driver.to_owned(), pool: pool.name.to_owned(), device: device.name.clone() };
            if allocator.in_use.devices.contains(&id) || allocator.in_use.shared.contains_key(&id) {
                for (key, amount) in draws(device) {
                    *left.entry(key).or_default() -= amount;
                }
            }
        }
    }
    left
}

fn is_tainted(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let hard = device.taints.iter().flatten().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.into_iter().any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// k8s.io/dynamic-resource-allocation/resourceclaim `ToleratesTaint`.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}
