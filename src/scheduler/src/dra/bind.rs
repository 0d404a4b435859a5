//! Writes the allocations of a pod's claims, and reserves them for it, before the pod is bound.
//!
//! Models dynamicresources.go `Reserve`, `bindClaim`, `PreBind`, `Unreserve`, v1.37.
use std::sync::Arc;
use std::time::Duration;

use client::{ApiError, Client, Clock, Named, ObjectKey, Patch};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use tokio::sync::Notify;

use super::binding_conditions::{Readiness, readiness};
use super::devices::{Devices, is_allocated};
use super::plugin::is_reserved_for;
use crate::pod::PodInfo;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// As client-go's retry.DefaultRetry.
const TRIES: u32 = 5;
/// As bindingTimeout of DynamicResourcesArgs.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

pub type Choice = (Arc<ResourceClaim>, Option<AllocationResult>);

#[derive(Debug, thiserror::Error)]
pub enum BindClaimsError {
    #[error("add allocation and reservation to claim {claim}")]
    Write {
        claim: ObjectKey,
        #[source]
        source: ApiError,
    },
    #[error("claim {0} got deleted in the meantime")]
    Deleted(ObjectKey),
    #[error("claim {0} got allocated elsewhere in the meantime")]
    Allocated(ObjectKey),
    #[error("claim {0} got deallocated elsewhere in the meantime")]
    Deallocated(ObjectKey),
    #[error("{0}")]
    NotReady(String),
    #[error("device binding timeout")]
    Timeout,
}

impl Devices {
    /// Counts the chosen devices as taken.
    pub fn reserve(&self, choices: &[Choice]) {
        for (claim, allocation) in choices {
            if let Some(allocation) = allocation {
                let mut claim = (**claim).clone();
                claim.status.get_or_insert_default().allocation = Some(allocation.clone());
                self.assume(claim);
            }
        }
    }

    /// Takes back what [`Self::reserve`] and [`Self::bind`] did.
    pub async fn unreserve(&self, client: &Client, pod: &PodInfo, choices: &[Choice]) {
        for (claim, _) in choices {
            let key = claim.key();
            let current = self.claims.get(&key).filter(|c| c.uid() == claim.uid());
            if !current.as_ref().is_some_and(|c| is_allocated(c)) {
                self.forget(claim.uid());
            }
            if current.as_ref().is_some_and(|c| is_reserved_for(c, pod)) {
                let consumer = serde_json::json!({"$patch": "delete", "uid": pod.uid});
                let patch = serde_json::json!({"metadata": {"uid": claim.uid()}, "status": {"reservedFor": [consumer]}});
                if let Err(error) = client.patch_status::<ResourceClaim>(&key, &Patch::Strategic(patch)).await {
                    tracing::debug!(claim = %key, error = &error as &dyn std::error::Error, "reservation not taken back");
                }
            }
        }
    }

    /// Writes the choices, and waits until the devices are ready.
    pub async fn bind(&self, client: &Client, clock: &Clock, pod: &PodInfo, choices: &[Choice]) -> Result<(), BindClaimsError> {
        let mut written = Vec::new();
        for (claim, allocation) in choices {
            if allocation.is_none() && is_reserved_for(claim, pod) {
                written.push((**claim).clone());
                continue;
            }
            written.push(write(client, clock, pod, claim, allocation.as_ref()).await?);
        }
        if written.iter().all(|claim| readiness(claim) == Readiness::Ready) {
            return Ok(());
        }
        let keys: Vec<_> = written.iter().map(Named::key).collect();
        tokio::time::timeout(READY_TIMEOUT, self.ready(&keys)).await.map_err(|_| BindClaimsError::Timeout)?
    }

    async fn ready(&self, keys: &[ObjectKey]) -> Result<(), BindClaimsError> {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let _guard = self.claims.on_event(move |_| notify.notify_one());
        loop {
            let mut waits = false;
            for key in keys {
                let claim = self.claims.get(key).ok_or_else(|| BindClaimsError::Deleted(key.clone()))?;
                match readiness(&claim) {
                    Readiness::Ready => {}
                    Readiness::Waiting => waits = true,
                    Readiness::Failed(why) => return Err(BindClaimsError::NotReady(why)),
                }
            }
            if !waits {
                return Ok(());
            }
            changed.notified().await;
        }
    }
}

async fn write(
    client: &Client,
    clock: &Clock,
    pod: &PodInfo,
    claim: &ResourceClaim,
    allocation: Option<&AllocationResult>,
) -> Result<ResourceClaim, BindClaimsError> {
    let key = claim.key();
    let failed = |source| BindClaimsError::Write { claim: key.clone(), source };
    let mut claim = claim.clone();
    for attempt in 1.. {
        match try_write(client, clock, pod, claim, allocation).await {
            Ok(written) => return Ok(written),
            Err(BindClaimsError::Write { source, .. }) if source.is_conflict() && attempt < TRIES => {
                claim = client.get(&key).await.map_err(failed)?;
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last try returns")
}

async fn try_write(
    client: &Client,
    clock: &Clock,
    pod: &PodInfo,
    mut claim: ResourceClaim,
    allocation: Option<&AllocationResult>,
) -> Result<ResourceClaim, BindClaimsError> {
    let key = claim.key();
    let failed = |source| BindClaimsError::Write { claim: key.clone(), source };
    if claim.is_deleting() {
        return Err(BindClaimsError::Deleted(key));
    }
    if let Some(allocation) = allocation {
        if is_allocated(&claim) {
            return Err(BindClaimsError::Allocated(key));
        }
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            claim = client.update(&claim).await.map_err(failed)?;
        }
        claim.status.get_or_insert_default().allocation = Some(allocation.clone());
    }
    let status = claim.status.get_or_insert_default();
    let consumers = status.reserved_for.get_or_insert_default();
    consumers.push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.uid.clone(),
    });
    match &mut status.allocation {
        None => return Err(BindClaimsError::Deallocated(key)),
        Some(allocation) => drop(allocation.allocation_timestamp.get_or_insert_with(|| clock.time())),
    }
    client.update_status(&claim).await.map_err(failed)
}
