//! What this process has written for an owner, until its informers have come as far.
//!
//! Models pkg/controller/util/consistency/consistency.go, v1.37. Expectations count what a watch has yet to show; this compares versions, so that an
//! object that was made and has gone unseen holds nobody up: a list of a later state tells as much as the event would have told.
use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::informer::Informer;
use crate::object::{Kind, Named, ObjectKey};
use crate::room::Room;

const POISON: &str = "nothing panics while it holds the writes";

/// Tells how far an informer has come.
type Seen = Box<dyn Fn() -> u64 + Send + Sync>;

#[derive(Default)]
pub struct OwnWrites {
    informers: HashMap<TypeId, Seen>,
    written: Mutex<HashMap<ObjectKey, Written>>,
}

struct Written {
    owner_uid: String,
    /// The newest version of each kind.
    versions: BTreeMap<TypeId, (&'static str, u64)>,
}

/// What an informer shows is older than what was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view of {kind} is at version {seen}, and version {written} was written")]
pub struct Behind {
    kind: &'static str,
    seen: u64,
    written: u64,
}

impl OwnWrites {
    /// Writes of this kind are looked for there.
    pub fn seen_by<K: Kind>(self, informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        self.seen_at::<K>(move || informer.version())
    }

    fn seen_at<K: Kind>(mut self, version: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.informers.insert(TypeId::of::<K>(), Box::new(version));
        self
    }

    /// `object` is what the server answered.
    pub fn wrote<K: Kind>(&self, owner: &impl Named, object: &K) {
        // Where versions are no numbers, they cannot be compared.
        let Ok(version) = object.resource_version().parse::<u64>() else { return };
        let new = || Written { owner_uid: owner.uid().to_owned(), versions: BTreeMap::new() };
        let mut all = self.written.lock().expect(POISON);
        let written = all.entry(owner.key()).or_insert_with(new);
        if written.owner_uid != owner.uid() {
            *written = new();
        }
        let (_, newest) = written.versions.entry(TypeId::of::<K>()).or_insert((K::KIND, version));
        *newest = version.max(*newest);
    }

    /// Whether the informers show all that was written for `owner`. Ask before they are read.
    pub fn check(&self, owner: &ObjectKey) -> Result<(), Behind> {
        let mut all = self.written.lock().expect(POISON);
        let Some(written) = all.get(owner) else { return Ok(()) };
        for (id, (kind, written)) in &written.versions {
            let seen = self.informers.get(id).map_or(*written, |seen| seen());
            if seen < *written {
                return Err(Behind { kind, seen, written: *written });
            }
        }
        all.remove(owner);
        all.give_back();
        Ok(())
    }

    pub fn forget(&self, owner: &ObjectKey) {
        let mut all = self.written.lock().expect(POISON);
        all.remove(owner);
        all.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use k8s_openapi::api::core::v1::{ConfigMap, Secret};

    use super::*;

    fn map(name: &str, uid: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.uid = Some(uid.to_owned());
        map.metadata.resource_version = Some(version.to_owned());
        map
    }

    #[test]
    fn an_owner_waits_until_every_informer_has_passed_what_was_written_for_it() {
        let (maps, secrets) = (Arc::new(AtomicU64::new(5)), Arc::new(AtomicU64::new(50)));
        let at = |version: &Arc<AtomicU64>| {
            let version = version.clone();
            move || version.load(Ordering::SeqCst)
        };
        let writes = OwnWrites::default().seen_at::<ConfigMap>(at(&maps)).seen_at::<Secret>(at(&secrets));
        let owner = map("owner", "1", "1");
        assert_eq!(writes.check(&owner.key()), Ok(()));
        writes.wrote(&owner, &map("a", "2", "10"));
        writes.wrote(&owner, &map("b", "3", "8"));
        let mut secret = Secret::default();
        secret.metadata.resource_version = Some("100".to_owned());
        writes.wrote(&owner, &secret);
        assert!(writes.check(&owner.key()).is_err());
        secrets.store(100, Ordering::SeqCst);
        assert_eq!(writes.check(&owner.key()), Err(Behind { kind: "ConfigMap", seen: 5, written: 10 }));
        assert_eq!(writes.check(&ObjectKey::cluster("other")), Ok(()));
        maps.store(10, Ordering::SeqCst);
        assert_eq!(writes.check(&owner.key()), Ok(()));
        assert!(writes.written.lock().unwrap().is_empty());
    }

    #[test]
    fn what_was_written_for_an_owner_of_the_same_name_does_not_count() {
        let writes = OwnWrites::default().seen_at::<ConfigMap>(|| 5);
        writes.wrote(&map("owner", "1", "1"), &map("a", "2", "10"));
        writes.wrote(&map("owner", "4", "1"), &map("a", "3", "4"));
        assert_eq!(writes.check(&ObjectKey::cluster("owner")), Ok(()));
        // Neither does what cannot be compared, nor what nobody looks for.
        writes.wrote(&map("owner", "4", "1"), &map("a", "3", "x"));
        writes.wrote(&map("owner", "4", "1"), &Secret::default());
        assert_eq!(writes.check(&ObjectKey::cluster("owner")), Ok(()));
    }

    #[test]
    fn owners_that_have_gone_leave_no_room_behind() {
        let writes = OwnWrites::default().seen_at::<ConfigMap>(|| 5);
        let owners: Vec<_> = (0..10_000).map(|i| map(&i.to_string(), "1", "1")).collect();
        owners.iter().for_each(|owner| writes.wrote(owner, &map("a", "2", "10")));
        owners.iter().for_each(|owner| writes.forget(&owner.key()));
        assert!(writes.written.lock().unwrap().capacity() < 2000);
    }
}
