//! Devices that have to be made ready before a pod may be bound to their node.
//!
//! Models dynamicresources.go `isClaimReadyForBinding`, v1.37 (DRADeviceBindingConditions).
use k8s_openapi::api::resource::v1::ResourceClaim;

#[derive(Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Waiting,
    /// With the driver's reason.
    Failed(String),
}

pub fn readiness(claim: &ResourceClaim) -> Readiness {
    let Some(status) = &claim.status else { return Readiness::Waiting };
    let Some(allocation) = &status.allocation else { return Readiness::Waiting };
    let results = allocation.devices.as_ref().and_then(|d| d.results.as_ref());
    let mut all = Readiness::Ready;
    for result in results.into_iter().flatten() {
        let wanted = result.binding_conditions.as_deref().unwrap_or_default();
        if wanted.is_empty() {
            continue;
        }
        let is = |d: &&k8s_openapi::api::resource::v1::AllocatedDeviceStatus| {
            d.device == result.device && d.driver == result.driver && d.pool == result.pool
        };
        let told = status.devices.iter().flatten().find(is).and_then(|d| d.conditions.as_deref()).unwrap_or_default();
        let find = |name: &String| told.iter().find(|c| c.type_ == *name && c.status == "True");
        if let Some(failed) = result.binding_failure_conditions.iter().flatten().find_map(find) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return Readiness::Failed(format!(
                "device binding failed: claim={name}, reason={}, message={:?}",
                failed.reason, failed.message
            ));
        }
        if !wanted.iter().all(|name| find(name).is_some()) {
            all = Readiness::Waiting;
        }
    }
    all
}
