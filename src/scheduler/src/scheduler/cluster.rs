//! What happens in the cluster, taken into the cache and told to the queue.
//!
//! Models pkg/scheduler/eventhandlers.go, v1.37.
use std::sync::Arc;

use client::{Event, Kind, Named, Subscription};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use tokio::time::Instant;

use super::{EVENTS_IN_A_ROW, Scheduler};
use crate::events::{Change, ClusterEvent, bits};
use crate::plugins::volume_binding::volume_limit;
use crate::pod::PodInfo;

pub struct Subscriptions {
    pods: Subscription<Pod>,
    nodes: Subscription<Node>,
    claims: Subscription<PersistentVolumeClaim>,
    volumes: Subscription<PersistentVolume>,
    classes: Subscription<StorageClass>,
    csi_nodes: Subscription<CSINode>,
    csi_drivers: Subscription<CSIDriver>,
    capacities: Subscription<CSIStorageCapacity>,
    attachments: Subscription<VolumeAttachment>,
    device_claims: Subscription<ResourceClaim>,
    slices: Subscription<ResourceSlice>,
    device_classes: Subscription<DeviceClass>,
    rules: Subscription<DeviceTaintRule>,
}

/// Takes in what is there; whether there was anything.
fn drain<K: Kind>(from: &mut Subscription<K>, scheduler: &mut Scheduler, take: impl Fn(&mut Scheduler, &Event<K>)) -> bool {
    let mut count = 0;
    while let Some(event) = from.try_recv() {
        take(scheduler, &event);
        count += 1;
        if count == EVENTS_IN_A_ROW {
            break;
        }
    }
    count > 0
}

impl Subscriptions {
    pub fn new(scheduler: &Scheduler) -> Self {
        let (volumes, devices) = (&scheduler.volumes, &scheduler.devices);
        Self {
            pods: scheduler.pods.subscribe(),
            nodes: scheduler.nodes.subscribe(),
            claims: volumes.claims.subscribe(),
            volumes: volumes.volumes.subscribe(),
            classes: volumes.classes.subscribe(),
            csi_nodes: volumes.csi_nodes.subscribe(),
            csi_drivers: volumes.csi_drivers.subscribe(),
            capacities: volumes.capacities.subscribe(),
            attachments: volumes.attachments.subscribe(),
            device_claims: devices.claims.subscribe(),
            slices: devices.slices.subscribe(),
            device_classes: devices.classes.subscribe(),
            rules: devices.rules.subscribe(),
        }
    }

    /// Takes in all that has happened; whether there was anything.
    pub fn drain(&mut self, scheduler: &mut Scheduler) -> bool {
        let mut any = drain(&mut self.nodes, scheduler, Scheduler::node_event);
        any |= drain(&mut self.pods, scheduler, Scheduler::pod_event);
        any |= drain(&mut self.claims, scheduler, |s, e| s.tell(&claim_event(e)));
        any |= drain(&mut self.volumes, scheduler, |s, e| s.tell(&volume_event(e)));
        any |= drain(&mut self.classes, scheduler, |s, e| s.tell(&class_event(e)));
        any |= drain(&mut self.csi_nodes, scheduler, |s, e| s.tell(&csi_node_event(e)));
        any |= drain(&mut self.csi_drivers, scheduler, |s, e| s.tell(&csi_driver_event(e)));
        any |= drain(&mut self.capacities, scheduler, |s, e| s.tell(&capacity_event(e)));
        any |= drain(&mut self.attachments, scheduler, |s, e| s.tell(&attachment_event(e)));
        any |= drain(&mut self.device_claims, scheduler, Scheduler::device_claim_event);
        any |= drain(&mut self.slices, scheduler, |s, e| s.tell(&slice_event(e)));
        any |= drain(&mut self.device_classes, scheduler, |s, e| s.tell(&device_class_event(e)));
        any | drain(&mut self.rules, scheduler, |s, _| s.tell(&RULE))
    }

    /// Waits for something to happen, and takes it in.
    pub async fn next(&mut self, scheduler: &mut Scheduler) {
        tokio::select! {
            e = self.nodes.recv() => scheduler.node_event(&e),
            e = self.pods.recv() => scheduler.pod_event(&e),
            e = self.claims.recv() => scheduler.tell(&claim_event(&e)),
            e = self.volumes.recv() => scheduler.tell(&volume_event(&e)),
            e = self.classes.recv() => scheduler.tell(&class_event(&e)),
            e = self.csi_nodes.recv() => scheduler.tell(&csi_node_event(&e)),
            e = self.csi_drivers.recv() => scheduler.tell(&csi_driver_event(&e)),
            e = self.capacities.recv() => scheduler.tell(&capacity_event(&e)),
            e = self.attachments.recv() => scheduler.tell(&attachment_event(&e)),
            e = self.device_claims.recv() => scheduler.device_claim_event(&e),
            e = self.slices.recv() => scheduler.tell(&slice_event(&e)),
            e = self.device_classes.recv() => scheduler.tell(&device_class_event(&e)),
            _ = self.rules.recv() => scheduler.tell(&RULE),
        }
    }
}

const NOTHING: ClusterEvent<'static> = ClusterEvent { bits: 0, change: Change::Other };

fn claim_event(event: &Event<PersistentVolumeClaim>) -> ClusterEvent<'_> {
    match event {
        Event::Added(new) => ClusterEvent::new(bits::CLAIM_ADD, Change::Claim { old: None, new }),
        Event::Updated { old, new } => ClusterEvent::new(bits::CLAIM_UPDATE, Change::Claim { old: Some(old), new }),
        Event::Deleted(_) => NOTHING,
    }
}

fn volume_event(event: &Event<PersistentVolume>) -> ClusterEvent<'_> {
    match event {
        Event::Added(new) => ClusterEvent::new(bits::VOLUME_ADD, Change::Volume { old: None, new }),
        Event::Updated { old, new } => ClusterEvent::new(bits::VOLUME_UPDATE, Change::Volume { old: Some(old), new }),
        Event::Deleted(_) => NOTHING,
    }
}

fn class_event(event: &Event<StorageClass>) -> ClusterEvent<'_> {
    match event {
        Event::Added(new) => ClusterEvent::new(bits::CLASS_ADD, Change::Class { old: None, new }),
        Event::Updated { old, new } => ClusterEvent::new(bits::CLASS_UPDATE, Change::Class { old: Some(old), new }),
        Event::Deleted(_) => NOTHING,
    }
}

fn csi_node_event(event: &Event<CSINode>) -> ClusterEvent<'_> {
    match event {
        Event::Added(new) => ClusterEvent::new(bits::CSI_NODE_ADD, Change::CsiNode { old: None, new }),
        Event::Updated { old, new } => ClusterEvent::new(bits::CSI_NODE_UPDATE, Change::CsiNode { old: Some(old), new }),
        Event::Deleted(_) => NOTHING,
    }
}

fn csi_driver_event(event: &Event<CSIDriver>) -> ClusterEvent<'_> {
    match event {
        Event::Updated { old, new } => ClusterEvent::new(bits::CSI_DRIVER, Change::CsiDriver { old: Some(old), new }),
        _ => NOTHING,
    }
}

fn capacity_event(event: &Event<CSIStorageCapacity>) -> ClusterEvent<'_> {
    let more = match event {
        Event::Added(_) => true,
        Event::Updated { old, new } => volume_limit(new) > volume_limit(old),
        Event::Deleted(_) => false,
    };
    if more { ClusterEvent::new(bits::CSI_CAPACITY, Change::Other) } else { NOTHING }
}

fn attachment_event(event: &Event<VolumeAttachment>) -> ClusterEvent<'_> {
    match event {
        Event::Deleted(deleted) => ClusterEvent::new(bits::ATTACHMENT_DELETE, Change::Attachment { deleted }),
        _ => NOTHING,
    }
}

const RULE: ClusterEvent<'static> = ClusterEvent { bits: bits::DEVICE_TAINT_RULE, change: Change::Other };

fn slice_event(event: &Event<ResourceSlice>) -> ClusterEvent<'_> {
    match event {
        Event::Deleted(_) => NOTHING,
        _ => ClusterEvent::new(bits::DEVICE_SLICE, Change::Other),
    }
}

fn device_class_event(event: &Event<DeviceClass>) -> ClusterEvent<'_> {
    let (old, new) = match event {
        Event::Added(new) => (None, Some(&**new)),
        Event::Updated { old, new } => (Some(&**old), Some(&**new)),
        Event::Deleted(_) => return NOTHING,
    };
    ClusterEvent::new(bits::DEVICE_CLASS, Change::DeviceClass { old, new })
}

impl Scheduler {
    fn device_claim_event(&mut self, event: &Event<ResourceClaim>) {
        self.devices.seen(event);
        let (old, new) = match event {
            Event::Added(new) => (None, Some(&**new)),
            Event::Updated { old, new } => (Some(&**old), Some(&**new)),
            Event::Deleted(old) => (Some(&**old), None),
        };
        self.tell(&ClusterEvent::new(bits::DEVICE_CLAIM, Change::DeviceClaim { old, new }));
    }

    pub(super) fn tell(&mut self, event: &ClusterEvent) {
        if event.bits != 0 {
            self.queue.happened(event, None, Instant::now());
        }
    }

    fn node_event(&mut self, event: &Event<Node>) {
        if let Event::Deleted(node) = event {
            if let Some(facts) = self.cache.remove_node(node.name()) {
                self.tell(&ClusterEvent::node_deleted(&facts));
            }
            return;
        }
        let before = self.cache.set_node(event.object());
        if before.is_none() {
            self.nominator.tell_of(event.object().name(), &mut self.cache);
        }
        let Some(now) = self.cache.node(event.object().name()).map(|n| n.facts.clone()) else { return };
        match before {
            None => self.tell(&ClusterEvent::node_added(&now)),
            Some(before) => {
                if let Some(event) = ClusterEvent::node_updated(&before, &now) {
                    self.tell(&event);
                }
            }
        }
    }

    fn pod_event(&mut self, event: &Event<Pod>) {
        let pod = Arc::new(PodInfo::new(event.object()));
        match () {
            () if matches!(event, Event::Deleted(_)) || pod.finished => self.pod_gone(&pod),
            () if pod.is_assigned() => self.pod_placed(pod),
            () => {
                if let Some(profile) = self.profile_of(&pod.scheduler_name) {
                    self.pod_waiting(pod, profile);
                }
            }
        }
    }

    fn pod_gone(&mut self, pod: &PodInfo) {
        let now = Instant::now();
        self.queue.remove(&pod.key);
        let nominated = self.nominator.remove(&pod.key);
        match (self.cache.remove_pod(&pod.key), nominated) {
            (Some(old), _) => self.queue.happened(&ClusterEvent::pod_deleted(&old), None, now),
            // Others treated it as if it were there already.
            (None, Some(old)) => self.queue.happened_to_lesser(&ClusterEvent::pod_deleted(&old), old.priority, now),
            (None, None) => {}
        }
    }

    fn pod_placed(&mut self, pod: Arc<PodInfo>) {
        self.queue.remove(&pod.key);
        self.nominator.remove(&pod.key);
        let was_assumed = self.cache.is_assumed(&pod.key);
        let old = self.cache.pod(&pod.key).filter(|_| !was_assumed).cloned();
        let node = pod.node_name.clone();
        self.cache.set_pod(pod.clone(), &node);
        match old {
            None => self.tell(&ClusterEvent::pod_added(&pod)),
            Some(old) => {
                if let Some(event) = ClusterEvent::pod_updated(&old, &pod) {
                    self.tell(&event);
                }
            }
        }
    }

    fn pod_waiting(&mut self, pod: Arc<PodInfo>, profile: usize) {
        let now = Instant::now();
        if self.cache.is_assumed(&pod.key) {
            if pod.deleting {
                // Its binding will fail; its place is free at once.
                self.pod_gone(&pod);
            }
            return;
        }
        if pod.deleting {
            return self.pod_gone(&pod);
        }
        match self.queue.get(&pod.key).cloned() {
            Some(old) => {
                if !old.nominated_node.is_empty() && old.nominated_node != pod.nominated_node {
                    self.queue.happened_to_lesser(&ClusterEvent::pod_deleted(&old), old.priority, now);
                }
                self.nominator.update(&old, pod.clone());
            }
            None => self.nominator.set(pod.clone(), None),
        }
        self.queue.put(pod, profile, now);
    }
}
