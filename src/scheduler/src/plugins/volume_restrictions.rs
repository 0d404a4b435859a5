//! VolumeRestrictions: network disks that cannot be attached twice, and claims that one pod alone may use.
//!
//! Models pkg/scheduler/framework/plugins/volumerestrictions/volume_restrictions.go, v1.37.
use client::{Named, ObjectKey};

use super::{Filter, NodeCheck, Prepared, Refusal, Verdict, World};
use crate::cache::NodeState;
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::{Disk, PodInfo};

pub struct VolumeRestrictions;

fn disks_conflict(a: &Disk, b: &Disk) -> bool {
    match (a, b) {
        (Disk::Gce { name: a, read_only: ra }, Disk::Gce { name: b, read_only: rb }) => a == b && !(*ra && *rb),
        (Disk::Aws { id: a }, Disk::Aws { id: b }) => a == b,
        (Disk::Iscsi { iqn: a, read_only: ra }, Disk::Iscsi { iqn: b, read_only: rb }) => a == b && !(*ra && *rb),
        (
            Disk::Rbd { monitors, pool, image, read_only },
            Disk::Rbd { monitors: monitors_b, pool: pool_b, image: image_b, read_only: read_only_b },
        ) => {
            let shared = monitors.iter().any(|m| monitors_b.contains(m));
            shared && pool == pool_b && image == image_b && !(*read_only && *read_only_b)
        }
        _ => false,
    }
}

fn conflict(a: &PodInfo, b: &PodInfo) -> bool {
    a.disks.iter().any(|d| b.disks.iter().any(|e| disks_conflict(d, e)))
}

#[derive(Clone)]
struct Check<'a> {
    pod: &'a PodInfo,
    /// Claims of the pod that only one pod may use.
    exclusive: Vec<&'a str>,
    users: i64,
}

impl Check<'_> {
    fn uses(&self, other: &PodInfo) -> i64 {
        // Upstream looks at the names alone; a pod of another namespace has other claims.
        let same = other.key.namespace == self.pod.key.namespace;
        let used = other.claims.iter().filter(|c| same && !c.own && self.exclusive.contains(&c.name.as_str()));
        used.count() as i64
    }
}

impl<'a> NodeCheck<'a> for Check<'a> {
    fn check(&self, node: &NodeState) -> Verdict {
        if !self.pod.disks.is_empty() && node.pods.iter().any(|p| conflict(self.pod, p)) {
            return Err(Refusal::resolvable("node(s) had no available disk"));
        }
        if self.users > 0 {
            return Err(Refusal::resolvable(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            ));
        }
        Ok(())
    }
    fn follows(&self) -> bool {
        true
    }
    fn with(&mut self, pod: &PodInfo, _: &NodeState) {
        self.users += self.uses(pod);
    }
    fn without(&mut self, pod: &PodInfo, _: &NodeState) {
        self.users -= self.uses(pod);
    }
    fn duplicate(&self) -> Box<dyn NodeCheck<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Filter for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }
    fn events(&self) -> u32 {
        bits::POD_DELETE | bits::NODE_ADD | bits::CLAIM_ADD
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let named = |name: &str| pod.claims.iter().any(|c| !c.own && c.name == name);
        match event.change {
            Change::Pod { old: Some(old), .. } => {
                old.key.namespace == pod.key.namespace && (conflict(pod, old) || old.claims.iter().any(|c| !c.own && named(&c.name)))
            }
            Change::Claim { new, .. } => new.namespace() == pod.key.namespace && named(new.name()),
            _ => true,
        }
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        let (mut exclusive, mut users) = (Vec::new(), 0);
        for used in pod.claims.iter().filter(|c| !c.own) {
            let key = ObjectKey::new(pod.key.namespace.clone(), used.name.clone());
            let Some(claim) = world.volumes.claim(&key) else {
                return Prepared::Refused(Refusal::unresolvable(format!("persistentvolumeclaim {:?} not found", used.name)));
            };
            let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
            if modes.iter().any(|m| m == "ReadWriteOncePod") {
                users += i64::from(world.cache.is_claim_used(&key));
                exclusive.push(used.name.as_str());
            }
        }
        if pod.disks.is_empty() && users == 0 {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check { pod, exclusive, users }))
    }
}
