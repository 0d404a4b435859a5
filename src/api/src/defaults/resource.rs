//! Defaults of device claims.
//!
//! Models pkg/apis/resource/v1/defaults.go.
use super::{child, each, text, zero};
use crate::tree::Object;

pub(super) fn apply(kind: &str, object: &mut Object) {
    let spec = match kind {
        "ResourceClaim" => child(object, "spec"),
        "ResourceClaimTemplate" => child(object, "spec").and_then(|s| child(s, "spec")),
        _ => None,
    };
    let Some(devices) = spec.and_then(|s| child(s, "devices")) else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = child(request, "exactly") {
            device_request(exactly);
        }
        each(request, "firstAvailable").for_each(device_request);
    }
}

fn device_request(request: &mut Object) {
    zero(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        zero(request, "count", 1);
    }
    for toleration in each(request, "tolerations") {
        zero(toleration, "operator", "Equal");
    }
}
