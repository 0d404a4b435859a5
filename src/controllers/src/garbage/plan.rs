//! What becomes of an object, given what became of its owners.
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{PartialObject, Propagation};

use super::{FOREGROUND, ORPHAN};

#[derive(Debug, Default)]
pub(super) struct Owners {
    /// They exist and stay.
    pub solid: Vec<OwnerReference>,
    pub gone: Vec<OwnerReference>,
    /// They are being deleted in the foreground and wait for their dependents.
    pub waiting: Vec<OwnerReference>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Drop the references to these uids; somebody else still owns the object.
    Detach(Vec<String>),
    Delete {
        propagation: Propagation,
        /// First stop blocking the owners: among the dependents is one that waits as well, perhaps for us.
        unblock: bool,
    },
}

pub(super) fn has_finalizer(object: &PartialObject, finalizer: &str) -> bool {
    object.metadata.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// attemptToDeleteItem's decision.
pub(super) fn plan(latest: &PartialObject, owners: &Owners, has_dependents: bool, circle: bool) -> Action {
    let leaving = owners.gone.iter().chain(&owners.waiting);
    if !owners.solid.is_empty() {
        let uids: Vec<_> = leaving.map(|o| o.uid.clone()).collect();
        return if uids.is_empty() { Action::Nothing } else { Action::Detach(uids) };
    }
    if latest.metadata.owner_references.iter().flatten().next().is_none() {
        return Action::Nothing;
    }
    if !owners.waiting.is_empty() && has_dependents {
        return Action::Delete { propagation: Propagation::Foreground, unblock: circle };
    }
    let propagation = match () {
        () if has_finalizer(latest, ORPHAN) => Propagation::Orphan,
        () if has_finalizer(latest, FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    };
    Action::Delete { propagation, unblock: false }
}
