//! Owners that the server does not have: the dependents of one owner mostly come together, and it need not be asked for with each of them.
//!
//! Models pkg/controller/garbagecollector/uid_cache.go, v1.37. Nothing is made again with the same uid, so what is absent stays so.
use std::collections::HashSet;

use client::{ApiResource, ObjectKey};

/// So many owners are remembered at least, and twice as many at most.
const REMEMBERED: usize = 500;

/// An owner as a reference means it: the same uid may be there under another name, which no reference reaches.
type Place = (String, String, ObjectKey, String);

/// Forgets the older half when it is full.
#[derive(Default)]
pub(super) struct Absent {
    young: HashSet<Place>,
    old: HashSet<Place>,
}

fn place(resource: &ApiResource, key: &ObjectKey, uid: &str) -> Place {
    (resource.group.clone(), resource.kind.clone(), key.clone(), uid.to_owned())
}

impl Absent {
    pub fn has(&self, resource: &ApiResource, key: &ObjectKey, uid: &str) -> bool {
        let place = place(resource, key, uid);
        self.young.contains(&place) || self.old.contains(&place)
    }

    pub fn add(&mut self, resource: &ApiResource, key: &ObjectKey, uid: &str) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place(resource, key, uid));
    }
}

#[cfg(test)]
mod tests {
    use client::k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn the_latest_owners_are_remembered_and_their_number_is_bounded() {
        let (resource, mut absent) = (ApiResource::of::<ConfigMap>(), Absent::default());
        let key = ObjectKey::new("a", "owner");
        for i in 0..3 * REMEMBERED {
            absent.add(&resource, &key, &i.to_string());
        }
        assert!(absent.has(&resource, &key, "1499") && absent.has(&resource, &key, "1000") && !absent.has(&resource, &key, "0"));
        assert!(!absent.has(&resource, &ObjectKey::new("b", "owner"), "1499"));
        assert!(absent.young.len() + absent.old.len() <= 2 * REMEMBERED);
    }
}
