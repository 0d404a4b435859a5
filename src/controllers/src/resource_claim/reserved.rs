//! What of a claim's reservations still stands; a claim that nobody uses any longer gives its devices back.
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use client::{DeleteOptions, Named, ObjectKey, controller_of};

use super::{Context, is_done};
use crate::failure::{During, Failure};

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<(), Failure> {
    let Some(claim) = cx.claims.get(key) else { return Ok(()) };
    let status = claim.status.clone().unwrap_or_default();
    let consumers = status.reserved_for.unwrap_or_default();
    let mut remaining = Vec::new();
    for consumer in &consumers {
        if stands(cx, key, consumer).await? {
            remaining.push(consumer.clone());
        }
    }
    let is_protected = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let is_unused = remaining.is_empty();
    let freed = remaining.len() < consumers.len();
    let is_going = is_protected && claim.is_deleting() && is_unused;
    if freed || is_going {
        let mut update = (*claim).clone();
        let status = update.status.get_or_insert_default();
        status.reserved_for = Some(remaining).filter(|r| !r.is_empty());
        if is_unused && is_protected {
            status.allocation = None;
        }
        if freed || claim.status.as_ref().is_some_and(|s| s.allocation.is_some()) {
            update = cx.client.update_status(&update).await.during(|| format!("take back reservations of ResourceClaim {key}"))?;
        }
        let is_allocated = update.status.as_ref().is_some_and(|s| s.allocation.is_some());
        if is_protected && !is_allocated {
            update.metadata.finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
            cx.client.update(&update).await.map(drop).during(|| format!("release ResourceClaim {key}"))?;
        }
    }
    if is_unused && is_orphan(cx, &claim) {
        let deleted = cx.client.delete::<ResourceClaim>(key, &DeleteOptions::uid(claim.uid())).await;
        match deleted {
            Err(error) if !error.is_not_found() => return Err(error).during(|| format!("delete ResourceClaim {key}")),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the consumer still needs the claim. One of a kind that is not known is left alone.
async fn stands(cx: &Context, claim: &ObjectKey, consumer: &ResourceClaimConsumerReference) -> Result<bool, Failure> {
    if consumer.api_group.as_deref().is_some_and(|g| !g.is_empty()) || consumer.resource != "pods" {
        return Ok(true);
    }
    let key = ObjectKey::new(claim.namespace.clone(), consumer.name.clone());
    if let Some(pod) = cx.pods.get(&key) {
        return Ok(pod.uid() == consumer.uid && !is_done(&pod));
    }
    // The watch may not have shown it yet.
    match cx.client.get::<Pod>(&key).await {
        Ok(pod) => Ok(pod.uid() == consumer.uid),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error).during(|| format!("read pod {key}")),
    }
}

/// Made for a pod that is not going to run.
fn is_orphan(cx: &Context, claim: &ResourceClaim) -> bool {
    let Some(owner) = controller_of(&claim.metadata).filter(|o| o.kind == "Pod" && o.api_version == "v1") else { return false };
    let pod = cx.pods.get(&ObjectKey::new(claim.namespace(), owner.name.clone()));
    !claim.is_deleting() && pod.is_some_and(|pod| pod.uid() != owner.uid || is_done(&pod))
}
