//! Which devices a class or a request means: expressions over a device's driver, attributes and capacity.
//!
//! Models k8s.io/dynamic-resource-allocation/cel, v1.37.
use k8s_openapi::api::resource::v1::{Device, DeviceSelector};

/// Why it cannot be told whether a device is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// Whether all selectors hold.
pub fn all_match(selectors: Option<&Vec<DeviceSelector>>, _driver: &str, _device: &Device) -> Result<bool, (usize, SelectorError)> {
    match selectors.and_then(|s| s.first()) {
        None => Ok(true),
        Some(_) => Err((0, SelectorError("CEL expressions are not evaluated by this version".to_owned()))),
    }
}
