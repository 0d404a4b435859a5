//! Resource pools as one node sees them: the slices of the newest generation, checked as a whole.
//!
//! Models k8s.io/dynamic-resource-allocation/structured/internal/incubating/pools_incubating.go, v1.37.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Named;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{CounterSet, Device, ResourceSlice};

use crate::cache::NodeFacts;
use crate::plugins::selector_matches;

/// One device among all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    pub driver: String,
    pub pool: String,
    pub device: String,
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

pub struct Pool<'a> {
    pub driver: &'a str,
    pub name: &'a str,
    /// Not all slices have been published yet.
    pub is_incomplete: bool,
    /// Why its devices cannot be told apart or counted.
    pub invalid: Option<String>,
    /// Slices with devices that the node can use.
    pub slices: Vec<&'a ResourceSlice>,
    /// The other slices of the pool: their devices draw on the same counters.
    pub elsewhere: Vec<&'a ResourceSlice>,
    pub counters: BTreeMap<&'a str, &'a CounterSet>,
}

pub fn devices(slice: &ResourceSlice) -> &[Device] {
    slice.spec.devices.as_deref().unwrap_or_default()
}

pub fn node_matches(node: &NodeFacts, name: Option<&str>, all: Option<bool>, selector: Option<&NodeSelector>) -> bool {
    match name.filter(|n| !n.is_empty()) {
        Some(name) => name == node.name,
        None => all == Some(true) || selector.is_some_and(|s| selector_matches(s, node)),
    }
}

fn is_relevant(slice: &ResourceSlice, node: &NodeFacts) -> bool {
    let spec = &slice.spec;
    let named = spec.node_name.as_deref().is_some_and(|n| !n.is_empty());
    if named || spec.all_nodes == Some(true) || spec.node_selector.is_some() {
        return node_matches(node, spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref());
    }
    spec.per_device_node_selection == Some(true)
        && devices(slice).iter().any(|d| node_matches(node, d.node_name.as_deref(), d.all_nodes, d.node_selector.as_ref()))
}

/// Slices that use what is off by default are as if they were not there, so that their pool stays incomplete.
fn is_understood(slice: &ResourceSlice) -> bool {
    let groups = |d: &Device| d.consumes_counters.iter().flatten().any(|c| c.compatibility_groups.is_some());
    !devices(slice).iter().any(groups)
}

/// The pools that have something for the node: by name, those whose devices must be made ready first at the end.
pub fn gather<'a>(all: &'a [Arc<ResourceSlice>], node: &NodeFacts) -> Vec<Pool<'a>> {
    let mut relevant: BTreeMap<(&str, &str), Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in all.iter().filter(|s| is_understood(s) && is_relevant(s, node)) {
        let pool = &slice.spec.pool;
        let list = relevant.entry((slice.spec.driver.as_str(), pool.name.as_str())).or_default();
        match list.first().map(|s| s.spec.pool.generation) {
            Some(newest) if pool.generation < newest => {}
            Some(newest) if pool.generation > newest => *list = vec![slice],
            _ => list.push(slice),
        }
    }
    let mut pools = Vec::new();
    let mut with_conditions = Vec::new();
    for ((driver, name), slices) in relevant {
        let generation = slices[0].spec.pool.generation;
        let mut every = all.iter().filter(|s| s.spec.driver == driver && s.spec.pool.name == name);
        if every.clone().any(|s| s.spec.pool.generation > generation) {
            continue; // what the node sees is out of date
        }
        let same: Vec<&ResourceSlice> = every.by_ref().filter(|s| is_understood(s)).map(|s| &**s).collect();
        let whole: Vec<_> = same.into_iter().filter(|s| s.spec.pool.generation == generation).collect();
        if whole.len() as i64 != slices[0].spec.pool.resource_slice_count {
            let empty = (Vec::new(), Vec::new(), BTreeMap::new());
            pools.push(Pool { driver, name, is_incomplete: true, invalid: None, slices: empty.0, elsewhere: empty.1, counters: empty.2 });
            continue;
        }
        let pool = build(driver, name, slices, &whole);
        let waits = pool.slices.iter().flat_map(|s| devices(s)).any(|d| d.binding_conditions.is_some());
        if waits { with_conditions.push(pool) } else { pools.push(pool) }
    }
    pools.append(&mut with_conditions);
    pools
}

fn build<'a>(driver: &'a str, name: &'a str, slices: Vec<&'a ResourceSlice>, whole: &[&'a ResourceSlice]) -> Pool<'a> {
    let counts = |s: &ResourceSlice| s.spec.shared_counters.as_ref().is_some_and(|c| !c.is_empty());
    let is_here = |s: &ResourceSlice| slices.iter().any(|here| here.name() == s.name());
    let elsewhere: Vec<_> = whole.iter().copied().filter(|s| !is_here(s) && !counts(s)).collect();
    let mut own: Vec<_> = slices.iter().copied().filter(|s| !counts(s)).collect();
    own.sort_by(|a, b| a.name().cmp(b.name()));
    let mut pool = Pool { driver, name, is_incomplete: false, invalid: None, slices: own, elsewhere, counters: BTreeMap::new() };
    pool.invalid = check(&mut pool, whole).err();
    pool
}

fn check<'a>(pool: &mut Pool<'a>, whole: &[&'a ResourceSlice]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for device in pool.slices.iter().flat_map(|s| devices(s)) {
        if !names.insert(device.name.as_str()) {
            return Err(format!("duplicate device name {}", device.name));
        }
    }
    for set in whole.iter().flat_map(|s| s.spec.shared_counters.iter().flatten()) {
        if pool.counters.insert(&set.name, set).is_some() {
            return Err(format!("duplicate counter set name {}", set.name));
        }
    }
    let consumers = pool.slices.iter().chain(&pool.elsewhere).flat_map(|s| devices(s));
    for used in consumers.flat_map(|d| d.consumes_counters.iter().flatten()) {
        let set = pool.counters.get(used.counter_set.as_str()).ok_or_else(|| format!("counter set {} not found", used.counter_set))?;
        if let Some(missing) = used.counters.keys().find(|c| !set.counters.contains_key(*c)) {
            return Err(format!("counter {missing} not found in counter set {}", set.name));
        }
    }
    Ok(())
}
