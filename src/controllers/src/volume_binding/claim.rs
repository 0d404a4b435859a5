//! A claim: finds its volume, binds it, or says why it waits.
//!
//! Models syncUnboundClaim, syncBoundClaim and provisionClaim of pv_controller.go, v1.37.
use std::cmp::Reverse;
use std::sync::Arc;

use api::volume::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, Search, best_match, class_of_claim, has_class, is_bound_to, unsuitable,
};
use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use client::k8s_openapi::api::storage::v1::StorageClass;
use client::{EventType, Named, Next, ObjectKey, WorkQueue};

use super::{Context, PODS_BY_CLAIM, claim_ref, volume_name, writes};
use crate::failure::{During, Failure};
use crate::pods;

const DEFAULT_CLASS: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

#[derive(Debug)]
pub(super) enum Step {
    Bind(Arc<PersistentVolume>),
    /// Gets the default class, that has come after it.
    AssignClass(String),
    /// For a provisioner outside of the cluster.
    Provision(String),
    /// Waits, and tells why where there is something to tell.
    Wait(Option<(EventType, &'static str, String)>),
    Lost(&'static str, &'static str),
    /// Two claims had the same choice; ours was not the user's, so it is tried again.
    Retry(String),
}

/// What the step is decided from.
pub(super) struct View<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub volumes: &'a [Arc<PersistentVolume>],
    pub classes: &'a [Arc<StorageClass>],
    /// Pods without a node that use the claim.
    pub unscheduled: &'a [String],
}

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey, volumes: &WorkQueue<ObjectKey>) -> Result<Next, Failure> {
    let Some(claim) = cx.claims.get(key) else { return Ok(Next::Wait) };
    let users = cx.pods.by_index(PODS_BY_CLAIM, &key.to_string());
    let is_waiting = |p: &Pod| !pods::is_terminated(p) && pods::node_name(p).is_empty();
    let unscheduled: Vec<_> = users.iter().filter(|p| is_waiting(p)).map(|p| p.name().to_owned()).collect();
    let (all, classes) = (cx.volumes.list(), cx.classes.list());
    let view = View { claim: &claim, volumes: &all, classes: &classes, unscheduled: &unscheduled };
    match plan(&view) {
        Step::Bind(volume) => {
            writes::bind(cx, &volume, &claim).await?;
            volumes.add(volume.key());
        }
        Step::AssignClass(class) => {
            let mut update = (*claim).clone();
            update.spec.get_or_insert_default().storage_class_name = Some(class);
            cx.client.update(&update).await.during(|| format!("give PersistentVolumeClaim {key} the default class"))?;
        }
        Step::Provision(provisioner) => {
            writes::ask_provisioner(cx, &claim, &provisioner).await?;
            let text = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
                 administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            cx.recorder.record(&*claim, EventType::Normal, "ExternalProvisioning", text);
        }
        Step::Wait(note) => {
            if let Some((kind, reason, text)) = note {
                cx.recorder.record(&*claim, kind, reason, text);
            }
            writes::claim_phase(cx, &claim, "Pending", None).await?;
        }
        Step::Lost(reason, text) => {
            if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
                writes::claim_phase(cx, &claim, "Lost", None).await?;
                cx.recorder.record(&*claim, EventType::Warning, reason, text);
            }
        }
        Step::Retry(text) => {
            cx.recorder.record(&*claim, EventType::Warning, "FailedBinding", text.clone());
            return Err(Failure::Stale(format!("PersistentVolumeClaim {key}: {text}")));
        }
    }
    Ok(Next::Wait)
}

/// Decides what to do; does nothing.
pub(super) fn plan(view: &View) -> Step {
    let claim = view.claim;
    match (claim.annotation(BIND_COMPLETED).is_some(), volume_name(claim)) {
        (true, "") => Step::Lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"),
        (true, name) => bound(view, name),
        (false, "") => choose(view),
        (false, name) => named(view, name),
    }
}

fn find(view: &View, name: &str) -> Option<Arc<PersistentVolume>> {
    view.volumes.iter().find(|v| v.name() == name).cloned()
}

fn bound(view: &View, name: &str) -> Step {
    let Some(volume) = find(view, name) else {
        return Step::Lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match claim_ref(&volume) {
        Some(reference) if reference.uid.as_deref() != Some(view.claim.uid()) => {
            Step::Lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => Step::Bind(volume),
    }
}

/// The claim names a volume.
fn named(view: &View, name: &str) -> Step {
    let Some(volume) = find(view, name) else { return Step::Wait(None) };
    if claim_ref(&volume).is_none() {
        return match unsuitable(&volume, view.claim) {
            None => Step::Bind(volume),
            Some(why) => {
                let text = format!("Cannot bind to requested volume {name:?}: {why}");
                Step::Wait(Some((EventType::Warning, "VolumeMismatch", text)))
            }
        };
    }
    if is_bound_to(&volume, view.claim) {
        return Step::Bind(volume);
    }
    let text = format!("volume {name:?} already bound to a different claim.");
    match view.claim.annotation(BOUND_BY_CONTROLLER) {
        Some(_) => Step::Retry(text),
        None => Step::Wait(Some((EventType::Warning, "FailedBinding", text))),
    }
}

fn choose(view: &View) -> Step {
    let claim = view.claim;
    let class = view.classes.iter().find(|c| !class_of_claim(claim).is_empty() && c.name() == class_of_claim(claim));
    let delayed = class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = best_match(claim, view.volumes, &Search::Anywhere { delayed }) {
        return Step::Bind(volume);
    }
    if !has_class(claim)
        && let Some(class) = default_class(view.classes)
    {
        return Step::AssignClass(class.name().to_owned());
    }
    if delayed && claim.annotation(SELECTED_NODE).is_none() {
        let (reason, text) = match view.unscheduled {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        };
        return Step::Wait(Some((EventType::Normal, reason, text)));
    }
    match (class_of_claim(claim), class) {
        ("", _) => {
            let text = "no persistent volumes available for this claim and no storage class is set".to_owned();
            Step::Wait(Some((EventType::Normal, "FailedBinding", text)))
        }
        (name, None) => {
            let text = format!("storageclass.storage.k8s.io {name:?} not found");
            Step::Wait(Some((EventType::Warning, "ProvisioningFailed", text)))
        }
        (_, Some(class)) if class.provisioner.starts_with("kubernetes.io/") => {
            let text = format!("no provisionable volume plugin matched {:?}", class.provisioner);
            Step::Wait(Some((EventType::Warning, "ProvisioningFailed", text)))
        }
        (_, Some(class)) => Step::Provision(class.provisioner.clone()),
    }
}

/// The newest class that is marked as the default; of equal age the first by name.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&StorageClass> {
    let is_default = |c: &StorageClass| DEFAULT_CLASS.iter().any(|a| c.annotation(a) == Some("true"));
    let marked = classes.iter().filter(|c| is_default(c)).map(|c| &**c);
    marked.min_by_key(|c| (Reverse(c.metadata.creation_timestamp.as_ref().map(|t| t.0)), c.name().to_owned()))
}
