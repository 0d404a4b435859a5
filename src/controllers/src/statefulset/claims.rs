//! Whom a pod's claims belong to, which decides what happens to them when the set shrinks or goes. Models
//! stateful_set_utils.go (KEP-1847).
use client::k8s_openapi::api::apps::v1::StatefulSet;
use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{Kind, Named};

use super::identity::{claim_name, is_in_range, ordinal, templates};
use crate::ownership::controller_reference;

/// Who owns a claim under the set's policy.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owners {
    set: bool,
    pod: bool,
}

fn deletes(policy: Option<&String>) -> bool {
    policy.is_some_and(|p| p == "Delete")
}

/// (when the set is deleted, when it shrinks).
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    (deletes(policy.and_then(|p| p.when_deleted.as_ref())), deletes(policy.and_then(|p| p.when_scaled.as_ref())))
}

fn wanted_owners(set: &StatefulSet, pod: &Pod) -> Owners {
    let scaled_down = !is_in_range(set, pod);
    match policy(set) {
        (false, false) => Owners { set: false, pod: false },
        (true, false) => Owners { set: true, pod: false },
        (false, true) => Owners { set: false, pod: scaled_down },
        (true, true) => Owners { set: !scaled_down, pod: scaled_down },
    }
}

fn names<O: Kind>(reference: &OwnerReference, owner: &O) -> bool {
    reference.api_version == O::API_VERSION && reference.kind == O::KIND && reference.name == owner.name()
}

fn references(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

fn is_owned_by<O: Named>(claim: &PersistentVolumeClaim, owner: &O) -> bool {
    references(claim).iter().any(|r| r.uid == owner.uid())
}

/// Names an earlier object of the same kind and name.
pub(super) fn is_stale<O: Kind>(claim: &PersistentVolumeClaim, owner: &O) -> bool {
    references(claim).iter().find(|r| names(r, owner)).is_some_and(|r| r.uid != owner.uid())
}

/// Somebody else manages the claim, although the policy wants it for the set or its pod.
pub(super) fn has_unexpected_controller(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    policy(set) != (false, false)
        && references(claim).iter().any(|r| match (names(r, set), names(r, pod)) {
            (true, _) => r.uid != set.uid(),
            (_, true) => r.uid != pod.uid(),
            _ => r.controller == Some(true),
        })
}

pub(super) fn is_up_to_date(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    // An earlier set's or pod's: the garbage collector's business.
    if is_stale(claim, set) || is_stale(claim, pod) {
        return true;
    }
    let owners = Owners { set: is_owned_by(claim, set), pod: is_owned_by(claim, pod) };
    if has_unexpected_controller(claim, set, pod) {
        return owners == Owners { set: false, pod: false };
    }
    let ours = |r: &&OwnerReference| r.uid == set.uid() || r.uid == pod.uid();
    references(claim).iter().filter(ours).all(|r| r.controller == Some(true)) && owners == wanted_owners(set, pod)
}

/// The claim's owners as the policy wants them; who is not the set or the pod stays.
pub(super) fn owners(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> Vec<OwnerReference> {
    let unexpected = has_unexpected_controller(claim, set, pod);
    let others = references(claim).iter().filter(|r| !names(r, set) && !names(r, pod)).cloned();
    let mut all: Vec<_> = others.collect();
    let wanted = wanted_owners(set, pod);
    if wanted.set && !unexpected {
        all.push(controller_reference(set));
    }
    if wanted.pod && !unexpected {
        all.push(controller_reference(pod));
    }
    all
}

/// A claim that still belongs to an earlier pod of this name goes with it: the new pod must not begin on it.
pub(super) fn blocks_creation(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    policy(set).1 && is_stale(claim, pod)
}

/// The claims of a pod, as they are made.
pub(super) fn of_pod(set: &StatefulSet, pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let ordinal = ordinal(pod).unwrap_or(-1);
    let claims = templates(set).iter().map(|template| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = set.metadata.namespace.clone();
        if let Some(labels) = &set.spec.selector.match_labels {
            claim.metadata.labels.get_or_insert_default().extend(labels.clone());
        }
        claim.status = None;
        claim
    });
    claims.collect()
}
