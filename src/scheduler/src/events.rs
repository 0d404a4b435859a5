//! What happens in the cluster, as far as it may help a pod that found no node.
//!
//! Models pkg/scheduler/framework/events.go, v1.37. A change of an object is one event with the bits of what changed; a plugin says which
//! bits it listens to, and then whether this very event could help this very pod (queueing hint).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment};

use crate::cache::NodeFacts;
use crate::pod::PodInfo;

/// Bits of what happened.
pub mod bits {
    pub const NODE_ADD: u32 = 1;
    pub const NODE_DELETE: u32 = 1 << 1;
    pub const NODE_LABEL: u32 = 1 << 2;
    pub const NODE_TAINT: u32 = 1 << 3;
    pub const NODE_ALLOCATABLE: u32 = 1 << 4;
    /// A pod was bound, or an unbound one was nominated.
    pub const POD_ADD: u32 = 1 << 5;
    pub const POD_DELETE: u32 = 1 << 6;
    pub const POD_LABEL: u32 = 1 << 7;
    pub const POD_SCALE_DOWN: u32 = 1 << 8;
    /// The waiting pod itself has changed.
    pub const TARGET_LABEL: u32 = 1 << 9;
    pub const TARGET_TOLERATION: u32 = 1 << 10;
    pub const TARGET_SCALE_DOWN: u32 = 1 << 11;
    pub const TARGET_GATES: u32 = 1 << 12;
    pub const TARGET_CLAIMS: u32 = 1 << 13;
    pub const TARGET_OTHER: u32 = 1 << 14;
    pub const CLAIM_ADD: u32 = 1 << 15;
    pub const CLAIM_UPDATE: u32 = 1 << 16;
    pub const VOLUME_ADD: u32 = 1 << 17;
    pub const VOLUME_UPDATE: u32 = 1 << 18;
    pub const CLASS_ADD: u32 = 1 << 19;
    pub const CLASS_UPDATE: u32 = 1 << 20;
    pub const CSI_NODE_ADD: u32 = 1 << 21;
    pub const CSI_NODE_UPDATE: u32 = 1 << 22;
    pub const CSI_DRIVER: u32 = 1 << 23;
    pub const CSI_CAPACITY: u32 = 1 << 24;
    pub const ATTACHMENT_DELETE: u32 = 1 << 25;
    pub const DEVICE_CLAIM: u32 = 1 << 26;
    pub const DEVICE_SLICE: u32 = 1 << 27;
    pub const DEVICE_CLASS: u32 = 1 << 28;
    pub const DEVICE_TAINT_RULE: u32 = 1 << 29;
    /// Nothing in particular: whoever has waited long is tried again.
    pub const TIMEOUT: u32 = 1 << 31;
}

/// Old and new state of what an event is about.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    Node {
        old: Option<&'a NodeFacts>,
        new: Option<&'a NodeFacts>,
    },
    /// An assigned or nominated pod.
    Pod {
        old: Option<&'a PodInfo>,
        new: Option<&'a PodInfo>,
    },
    Target {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    Claim {
        old: Option<&'a PersistentVolumeClaim>,
        new: &'a PersistentVolumeClaim,
    },
    Volume {
        old: Option<&'a PersistentVolume>,
        new: &'a PersistentVolume,
    },
    Class {
        old: Option<&'a StorageClass>,
        new: &'a StorageClass,
    },
    CsiNode {
        old: Option<&'a CSINode>,
        new: &'a CSINode,
    },
    CsiDriver {
        old: Option<&'a CSIDriver>,
        new: &'a CSIDriver,
    },
    Attachment {
        deleted: &'a VolumeAttachment,
    },
    DeviceClaim {
        old: Option<&'a ResourceClaim>,
        new: Option<&'a ResourceClaim>,
    },
    DeviceClass {
        old: Option<&'a DeviceClass>,
        new: Option<&'a DeviceClass>,
    },
    /// What an object holds does not matter.
    Other,
}

#[derive(Clone, Copy, Debug)]
pub struct ClusterEvent<'a> {
    pub bits: u32,
    pub change: Change<'a>,
}

impl<'a> ClusterEvent<'a> {
    pub fn new(bits: u32, change: Change<'a>) -> Self {
        Self { bits, change }
    }

    pub fn node_added(new: &'a NodeFacts) -> Self {
        Self::new(bits::NODE_ADD, Change::Node { old: None, new: Some(new) })
    }

    pub fn node_deleted(old: &'a NodeFacts) -> Self {
        Self::new(bits::NODE_DELETE, Change::Node { old: Some(old), new: None })
    }

    /// `None` where nothing changed that scheduling looks at.
    pub fn node_updated(old: &'a NodeFacts, new: &'a NodeFacts) -> Option<Self> {
        let mut bits = 0;
        if old.unschedulable && !new.unschedulable || old.taints != new.taints {
            bits |= bits::NODE_TAINT;
        }
        if old.labels != new.labels {
            bits |= bits::NODE_LABEL;
        }
        if old.allocatable != new.allocatable || old.allowed_pods != new.allowed_pods {
            bits |= bits::NODE_ALLOCATABLE;
        }
        (bits != 0).then_some(Self::new(bits, Change::Node { old: Some(old), new: Some(new) }))
    }

    pub fn pod_added(new: &'a PodInfo) -> Self {
        Self::new(bits::POD_ADD, Change::Pod { old: None, new: Some(new) })
    }

    pub fn pod_deleted(old: &'a PodInfo) -> Self {
        Self::new(bits::POD_DELETE, Change::Pod { old: Some(old), new: None })
    }

    pub fn pod_updated(old: &'a PodInfo, new: &'a PodInfo) -> Option<Self> {
        let mut bits = 0;
        if old.labels != new.labels {
            bits |= bits::POD_LABEL;
        }
        if old.requests != new.requests && has_less(old, new) {
            bits |= bits::POD_SCALE_DOWN;
        }
        (bits != 0).then_some(Self::new(bits, Change::Pod { old: Some(old), new: Some(new) }))
    }

    pub fn target_updated(old: &'a PodInfo, new: &'a PodInfo) -> Self {
        let mut bits = 0;
        if old.labels != new.labels {
            bits |= bits::TARGET_LABEL;
        }
        if old.tolerations.len() != new.tolerations.len() {
            bits |= bits::TARGET_TOLERATION;
        }
        if has_less(old, new) {
            bits |= bits::TARGET_SCALE_DOWN;
        }
        if !old.gates.is_empty() && new.gates.is_empty() {
            bits |= bits::TARGET_GATES;
        }
        if old.device_claims != new.device_claims {
            bits |= bits::TARGET_CLAIMS;
        }
        Self::new(if bits == 0 { bits::TARGET_OTHER } else { bits }, Change::Target { old, new })
    }

    pub fn timeout() -> Self {
        Self::new(bits::TIMEOUT, Change::Other)
    }
}

/// Whether some resource is asked for less than before.
fn has_less(old: &PodInfo, new: &PodInfo) -> bool {
    old.requests.iter().any(|(name, amount)| new.requests.get(name) < amount)
}
