//! Claims, slices and classes as scheduling sees them: allocations that are on their way count already.
//!
//! Models pkg/scheduler/framework/plugins/dynamicresources/{dra_manager,allocateddevices}.go and k8s.io/dynamic-resource-allocation/
//! resourceslice/tracker, v1.37.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use client::{Client, Event, Informer, Named, ObjectKey};
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice};

use super::allocator::InUse;
use super::capacity::milli;
use super::pools::DeviceId;

const POISON: &str = "nothing panics while it holds the allocations";

/// What the plugin may look at.
pub trait DeviceView: Send + Sync {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<ResourceClaim>>;
    fn class(&self, name: &str) -> Option<Arc<DeviceClass>>;
    /// With the taints that rules give to devices.
    fn slices(&self) -> Vec<Arc<ResourceSlice>>;
    /// Whether an allocation of the claim is being written.
    fn is_pending(&self, uid: &str) -> bool;
    fn in_use(&self) -> InUse;
}

#[derive(Clone)]
pub struct Devices {
    pub claims: Informer<ResourceClaim>,
    pub slices: Informer<ResourceSlice>,
    pub classes: Informer<DeviceClass>,
    pub rules: Informer<DeviceTaintRule>,
    /// By uid, claims with the allocation that is being written.
    pending: Arc<Mutex<HashMap<String, Arc<ResourceClaim>>>>,
}

impl Devices {
    pub fn new(client: &Client) -> Self {
        Self {
            claims: Informer::builder(client).start(),
            slices: Informer::builder(client).start(),
            classes: Informer::builder(client).start(),
            rules: Informer::builder(client).start(),
            pending: Arc::default(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.slices.synced(), self.classes.synced(), self.rules.synced());
    }

    /// Counts the allocation until the watch shows it, or [`Self::forget`].
    pub fn assume(&self, claim: ResourceClaim) {
        self.pending.lock().expect(POISON).insert(claim.uid().to_owned(), Arc::new(claim));
    }

    /// The allocation was not written.
    pub fn forget(&self, uid: &str) {
        self.pending.lock().expect(POISON).remove(uid);
    }

    /// What the watch shows need not be assumed any longer.
    pub fn seen(&self, event: &Event<ResourceClaim>) {
        let claim = event.object();
        if matches!(event, Event::Deleted(_)) || is_allocated(claim) {
            self.forget(claim.uid());
        }
    }
}

pub fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|s| s.allocation.is_some())
}

fn count(claim: &ResourceClaim, into: &mut InUse) {
    let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref()?.devices.as_ref());
    for result in allocation.and_then(|d| d.results.as_ref()).into_iter().flatten().filter(|r| r.admin_access != Some(true)) {
        let id = DeviceId { driver: result.driver.clone(), pool: result.pool.clone(), device: result.device.clone() };
        if result.share_id.is_none() {
            into.devices.insert(id);
            continue;
        }
        let used = into.shared.entry(id).or_default();
        for (name, amount) in result.consumed_capacity.iter().flatten() {
            *used.entry(name.clone()).or_default() += milli(amount);
        }
    }
}

/// The slice with the taints of the rules that mean its devices.
fn tainted(slice: &Arc<ResourceSlice>, rules: &[Arc<DeviceTaintRule>]) -> Arc<ResourceSlice> {
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|w| w == value);
    let spec = &slice.spec;
    let meant: Vec<_> = rules
        .iter()
        .filter_map(|rule| Some((rule.spec.device_selector.as_ref()?, &rule.spec.taint)))
        .filter(|(s, _)| is(&s.driver, &spec.driver) && is(&s.pool, &spec.pool.name))
        .collect();
    if meant.is_empty() {
        return slice.clone();
    }
    let mut slice = (**slice).clone();
    for device in slice.spec.devices.iter_mut().flatten() {
        let taints = meant.iter().filter(|(s, _)| is(&s.device, &device.name)).map(|(_, taint)| (*taint).clone());
        device.taints.get_or_insert_default().extend(taints);
    }
    Arc::new(slice)
}

impl DeviceView for Devices {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<ResourceClaim>> {
        self.claims.get(key)
    }
    fn class(&self, name: &str) -> Option<Arc<DeviceClass>> {
        self.classes.get(&ObjectKey::cluster(name))
    }
    fn slices(&self) -> Vec<Arc<ResourceSlice>> {
        let (slices, rules) = (self.slices.list(), self.rules.list());
        if rules.is_empty() {
            return slices;
        }
        slices.iter().map(|slice| tainted(slice, &rules)).collect()
    }
    fn is_pending(&self, uid: &str) -> bool {
        self.pending.lock().expect(POISON).contains_key(uid)
    }
    fn in_use(&self) -> InUse {
        let mut all = InUse::default();
        let pending = self.pending.lock().expect(POISON);
        for claim in self.claims.list().iter().filter(|c| !pending.contains_key(c.uid())) {
            count(claim, &mut all);
        }
        pending.values().for_each(|claim| count(claim, &mut all));
        all
    }
}

/// A cluster without devices.
#[cfg(test)]
pub struct NoDevices;

#[cfg(test)]
impl DeviceView for NoDevices {
    fn claim(&self, _: &ObjectKey) -> Option<Arc<ResourceClaim>> {
        None
    }
    fn class(&self, _: &str) -> Option<Arc<DeviceClass>> {
        None
    }
    fn slices(&self) -> Vec<Arc<ResourceSlice>> {
        Vec::new()
    }
    fn is_pending(&self, _: &str) -> bool {
        false
    }
    fn in_use(&self) -> InUse {
        InUse::default()
    }
}
