//! Remembers what was written, until the watch has shown it: packing on top of an older state would make slices twice.
//!
//! Models staging/src/k8s.io/endpointslice's EndpointSliceTracker, but by resource version (comparable since KEP-5504).
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::{Named, ObjectKey};

#[derive(Default)]
pub(super) struct Tracker(Mutex<HashMap<ObjectKey, HashMap<String, Expected>>>);

enum Expected {
    AtLeast(u64),
    Gone,
}

const POISON: &str = "nothing panics while it holds the tracker";

fn version(slice: &EndpointSlice) -> u64 {
    slice.resource_version().parse().unwrap_or(0)
}

impl Tracker {
    pub fn written(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.expect(service, slice, Expected::AtLeast(version(slice)));
    }

    pub fn deleted(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.expect(service, slice, Expected::Gone);
    }

    fn expect(&self, service: &ObjectKey, slice: &EndpointSlice, expected: Expected) {
        let mut all = self.0.lock().expect(POISON);
        all.entry(service.clone()).or_default().insert(slice.uid().to_owned(), expected);
    }

    /// Takes note of what the watch shows; true where it is not what we wrote.
    pub fn observe(&self, service: &ObjectKey, slice: &EndpointSlice, deleted: bool) -> bool {
        let mut all = self.0.lock().expect(POISON);
        let Some(expected) = all.get_mut(service) else { return true };
        match (expected.get(slice.uid()), deleted) {
            (Some(Expected::Gone), true) => {
                expected.remove(slice.uid());
                false
            }
            (Some(Expected::AtLeast(_)), true) => {
                expected.remove(slice.uid());
                true
            }
            (Some(Expected::AtLeast(at)), false) => version(slice) > *at,
            (Some(Expected::Gone), false) => false,
            (None, _) => true,
        }
    }

    /// Whether the cache is behind what was written for this Service.
    pub fn is_stale(&self, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> bool {
        let all = self.0.lock().expect(POISON);
        let Some(expected) = all.get(service) else { return false };
        expected.iter().any(|(uid, expected)| {
            let found = cached.iter().find(|s| s.uid() == uid);
            match expected {
                Expected::AtLeast(at) => found.is_none_or(|s| version(s) < *at),
                Expected::Gone => found.is_some(),
            }
        })
    }

    pub fn forget(&self, service: &ObjectKey) {
        self.0.lock().expect(POISON).remove(service);
    }
}
