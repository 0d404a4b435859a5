//! Which PersistentVolume suits a PersistentVolumeClaim: asked by the binder of the controllers and by the scheduler.
//!
//! Models k8s.io/component-helpers/storage/volume/pv_helpers.go FindMatchingVolume and pkg/controller/volume/persistentvolume/index.go, v1.37.
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// The class, from before it was a field.
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

fn claim_spec(claim: &PersistentVolumeClaim) -> &PersistentVolumeClaimSpec {
    static EMPTY: std::sync::LazyLock<PersistentVolumeClaimSpec> = std::sync::LazyLock::new(Default::default);
    claim.spec.as_ref().unwrap_or(&EMPTY)
}

fn volume_spec(volume: &PersistentVolume) -> &PersistentVolumeSpec {
    static EMPTY: std::sync::LazyLock<PersistentVolumeSpec> = std::sync::LazyLock::new(Default::default);
    volume.spec.as_ref().unwrap_or(&EMPTY)
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    annotation(&claim.metadata, CLASS_BETA).or(claim_spec(claim).storage_class_name.as_deref()).unwrap_or_default()
}

pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    annotation(&volume.metadata, CLASS_BETA).or(volume_spec(volume).storage_class_name.as_deref()).unwrap_or_default()
}

/// Whether the claim says anything about its class, be it that it wants none.
pub fn has_class(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, CLASS_BETA).is_some() || claim_spec(claim).storage_class_name.is_some()
}

/// Whether the volume is this claim's, or reserved for one of its name.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume_spec(volume).claim_ref.as_ref().is_some_and(|r| {
        let uid = r.uid.as_deref().unwrap_or_default();
        let same_name = r.name == claim.metadata.name && r.namespace == claim.metadata.namespace;
        same_name && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

pub fn modes_differ(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    mode(&claim_spec(claim).volume_mode) != mode(&volume_spec(volume).volume_mode)
}

fn access_modes_suffice(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let offered = volume_spec(volume).access_modes.as_deref().unwrap_or_default();
    claim_spec(claim).access_modes.iter().flatten().all(|mode| offered.contains(mode))
}

fn attributes_differ(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    text(&claim_spec(claim).volume_attributes_class_name) != text(&volume_spec(volume).volume_attributes_class_name)
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim_spec(claim).resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.and_then(|r| Quantity::parse(&r.get("storage")?.0).ok()).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume_spec(volume).capacity.as_ref();
    capacity.and_then(|c| Quantity::parse(&c.get("storage")?.0).ok()).unwrap_or_default()
}

/// Why a volume that the claim names does not suit it.
pub fn unsuitable(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion {:?}", volume.metadata.name.as_deref().unwrap_or_default()));
    }
    let why = match () {
        () if capacity(volume).value() < requested(claim).value() => "requested PV is too small",
        () if class_of_volume(volume) != class_of_claim(claim) => "storageClassName does not match",
        () if attributes_differ(claim, volume) => "volumeAttributesClassName does not match",
        () if modes_differ(claim, volume) => "incompatible volumeMode",
        () if !access_modes_suffice(claim, volume) => "incompatible accessMode",
        () => return None,
    };
    Some(why.to_owned())
}

/// Who looks for a volume.
pub enum Search<'a> {
    /// The binder; where the claim waits for its first pod, only a volume that is reserved for it is taken.
    Anywhere { delayed: bool },
    /// The scheduler, for one node; `usable` says whether the volume can be reached from it and is nobody else's choice.
    OnNode { usable: &'a dyn Fn(&PersistentVolume) -> bool },
}

/// The volume that is reserved for the claim, else the smallest free one that suits it (for the binder: of those with the fewest
/// access modes).
pub fn best_match(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], search: &Search) -> Option<Arc<PersistentVolume>> {
    let selector = claim_spec(claim).selector.as_ref().map(|s| LabelSelector::from_typed(Some(s)));
    let fits = |volume: &PersistentVolume| {
        let is_others = volume_spec(volume).claim_ref.is_some() && !is_bound_to(volume, claim);
        !is_others
            && access_modes_suffice(claim, volume)
            && capacity(volume) >= requested(claim)
            && !modes_differ(claim, volume)
            && !attributes_differ(claim, volume)
            && volume.metadata.deletion_timestamp.is_none()
    };
    let is_free = |volume: &PersistentVolume| {
        let selected = match &selector {
            None => true,
            Some(selector) => selector.as_ref().is_ok_and(|s| s.matches_map(volume.metadata.labels.as_ref())),
        };
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Available") && selected && class_of_volume(volume) == class_of_claim(claim)
    };
    let modes = |volume: &PersistentVolume| volume_spec(volume).access_modes.as_ref().map_or(0, Vec::len);
    let reserved = volumes.iter().find(|v| fits(v) && is_bound_to(v, claim));
    match search {
        Search::Anywhere { delayed } => reserved.cloned().or_else(|| {
            let free = volumes.iter().filter(|v| !delayed && fits(v) && is_free(v));
            free.min_by_key(|v| (modes(v), capacity(v))).cloned()
        }),
        Search::OnNode { usable } => match reserved {
            Some(volume) => usable(volume).then(|| volume.clone()),
            None => volumes.iter().filter(|v| fits(v) && is_free(v) && usable(v)).min_by_key(|v| capacity(v)).cloned(),
        },
    }
}

/// The volume with its reference to the claim, and the mark that the choice was not the user's; `None` if it has them.
pub fn bound_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    use k8s_openapi::api::core::v1::ObjectReference;
    let mut update = volume.clone();
    let is_reserved = is_bound_to(volume, claim);
    let is_complete = is_reserved && volume_spec(volume).claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
    if !is_complete {
        update.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
            resource_version: claim.metadata.resource_version.clone(),
            field_path: None,
        });
    }
    let is_ours = !is_reserved && annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_none();
    if is_ours {
        update.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    (!is_complete || is_ours).then_some(update)
}

/// The claim's own half of the binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binding was the controller's choice, not the user's; it may be undone.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The scheduler has chosen a node, so that a volume can be made for it.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Tells who made a volume, and so who removes what it holds.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The provisioner of folders on the pod's own node (StorageClass `local-path`).
pub const LOCAL_PROVISIONER: &str = "rk.io/local-path";
/// Of a Node: the folder that its local volumes are in.
pub const LOCAL_STORAGE: &str = "rk.io/local-storage";
