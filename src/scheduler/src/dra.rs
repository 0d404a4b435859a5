//! Devices that pods claim (dynamic resource allocation, `resource.k8s.io/v1`).
//!
//! [`plugin`] is the filter and the score, over what [`devices`] sees; [`allocator`] finds devices in [`pools`] for claims, under
//! [`constraint`]s, [`selector`]s and shares of [`capacity`]; [`bind`] writes what was found.
//! Models pkg/scheduler/framework/plugins/dynamicresources and k8s.io/dynamic-resource-allocation, v1.37.
mod allocator;
mod bind;
mod binding_conditions;
mod capacity;
mod constraint;
mod devices;
mod plugin;
mod pools;
mod selector;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use client::Named;
use k8s_openapi::api::resource::v1::DeviceClass;

pub use self::bind::{BindClaimsError, Choice};
#[cfg(test)]
pub use self::devices::NoDevices;
pub use self::devices::{DeviceView, Devices};
pub use self::plugin::{DynamicResources, choices, claims_of, idle};

/// Which device class offers an extended resource. Nobody fills it yet: what a node itself does not have it cannot give.
#[derive(Debug, Default)]
pub struct ExtendedResources(RwLock<HashMap<String, Arc<DeviceClass>>>);

const POISON: &str = "nothing panics while it holds the map";

/// The extended resources that a class offers.
pub fn extended_names(class: &DeviceClass) -> Vec<String> {
    let own = format!("deviceclass.resource.kubernetes.io/{}", class.name());
    class.spec.as_ref().and_then(|s| s.extended_resource_name.clone()).into_iter().chain([own]).collect()
}

impl ExtendedResources {
    pub fn class_of(&self, resource: &str) -> Option<Arc<DeviceClass>> {
        self.0.read().expect(POISON).get(resource).cloned()
    }
}
