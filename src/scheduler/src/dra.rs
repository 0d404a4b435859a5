//! Devices that pods claim (dynamic resource allocation).
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use client::Named;
use k8s_openapi::api::resource::v1::DeviceClass;

use crate::events::bits;
use crate::plugins::{Filter, Prepared, Refusal, World};
use crate::pod::PodInfo;

/// Which device class offers an extended resource.
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

pub struct DynamicResources;

impl Filter for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
    fn events(&self) -> u32 {
        bits::DEVICE_CLAIM | bits::TARGET_CLAIMS
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &World<'a>) -> Prepared<'a> {
        match pod.device_claims.is_empty() {
            true => Prepared::Skip,
            false => Prepared::Refused(Refusal::unresolvable("resource claims are not allocated by this version")),
        }
    }
}
