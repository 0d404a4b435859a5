//! Remembers what was written, until the watch has shown it: packing on top of an older state would make slices twice.
//!
//! Models staging/src/k8s.io/endpointslice's EndpointSliceTracker, but by resource version (comparable since KEP-5504). Different: a slice
//! that is made and does not show is asked for, since it may have been deleted while nobody watched, and would be waited for forever.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::{Client, Named, Next, ObjectKey, Room};

use crate::failure::{During, Failure, unless_gone};

/// By Service, and by the slice's uid.
#[derive(Default)]
pub(crate) struct Tracker(Mutex<HashMap<ObjectKey, HashMap<String, Expected>>>);

enum Expected {
    /// The slice of this name, in this version.
    AtLeast(u64, String),
    Gone,
}

/// So long after a write a slice that does not show is asked for, if nothing else happens to the Service.
const LOOK_AFTER: Duration = Duration::from_secs(5);

const POISON: &str = "nothing panics while it holds the tracker";

fn version(slice: &EndpointSlice) -> u64 {
    slice.resource_version().parse().unwrap_or(0)
}

impl Tracker {
    pub fn written(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.expect(service, slice, Expected::AtLeast(version(slice), slice.name().to_owned()));
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
            (Some(Expected::AtLeast(..)), true) => {
                expected.remove(slice.uid());
                true
            }
            (Some(Expected::AtLeast(at, _)), false) => version(slice) > *at,
            (Some(Expected::Gone), false) => false,
            (None, _) => true,
        }
    }

    /// Fails where the cache is behind what was written for this Service.
    pub async fn current(&self, client: &Client, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> Result<(), Failure> {
        if !self.is_stale(service, cached) {
            return Ok(());
        }
        for (uid, name) in self.unseen(service, cached) {
            let key = ObjectKey::new(service.namespace.clone(), name);
            let found = unless_gone(client.get::<EndpointSlice>(&key).await).during(|| format!("look for EndpointSlice {key}"))?;
            if found.is_none_or(|slice| slice.uid() != uid) {
                self.lost(service, &uid);
            }
        }
        Err(Failure::Stale(format!("the slices of Service {service} in the cache are older than what was written")))
    }

    /// When to look again at a Service for which all is done: whether what was written shows.
    pub fn next(&self, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> Next {
        if self.is_stale(service, cached) { Next::After(LOOK_AFTER) } else { Next::Wait }
    }

    /// Those that were written and that the cache has not at all.
    fn unseen(&self, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> Vec<(String, String)> {
        let all = self.0.lock().expect(POISON);
        let written = all.get(service).into_iter().flatten().filter_map(|(uid, expected)| match expected {
            Expected::AtLeast(_, name) => Some((uid.clone(), name.clone())),
            Expected::Gone => None,
        });
        written.filter(|(uid, _)| cached.iter().all(|slice| slice.uid() != uid)).collect()
    }

    fn lost(&self, service: &ObjectKey, uid: &str) {
        if let Some(expected) = self.0.lock().expect(POISON).get_mut(service) {
            expected.remove(uid);
        }
    }

    fn is_stale(&self, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> bool {
        let all = self.0.lock().expect(POISON);
        let Some(expected) = all.get(service) else { return false };
        expected.iter().any(|(uid, expected)| {
            let found = cached.iter().find(|s| s.uid() == uid);
            match expected {
                Expected::AtLeast(at, _) => found.is_none_or(|s| version(s) < *at),
                Expected::Gone => found.is_some(),
            }
        })
    }

    pub fn forget(&self, service: &ObjectKey) {
        let mut all = self.0.lock().expect(POISON);
        all.remove(service);
        all.give_back();
    }
}
