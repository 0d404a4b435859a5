//! Shares of devices that several claims may use at once.
//!
//! Models structured/internal/incubating/consumable_capacity.go, v1.37, with DRAFractionalCapacityRange off as by default.
use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange, CapacityRequirements, Device, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Amounts by name, in thousandths.
pub type Amounts = BTreeMap<String, i128>;

pub fn milli(text: &Text) -> i128 {
    let Ok(quantity) = Quantity::parse(&text.0) else { return 0 };
    if quantity.is_whole() { i128::from(quantity.value()) * 1000 } else { i128::from(quantity.milli_value()) }
}

/// Rounded up to whole units.
fn whole(text: &Text) -> i128 {
    Quantity::parse(&text.0).map_or(0, |q| i128::from(q.value()))
}

fn requested<'a>(request: Option<&'a CapacityRequirements>, name: &str) -> Option<&'a Text> {
    request?.requests.as_ref()?.get(name)
}

fn rounded_up(request: &Text, range: &CapacityRequestPolicyRange) -> Text {
    if milli(request) < milli(&range.min) {
        return range.min.clone();
    }
    let Some(step) = &range.step else { return request.clone() };
    let (min, step_size) = (whole(&range.min), whole(step).max(1));
    let value = min + (whole(request) - min + step_size - 1) / step_size * step_size;
    let format = Quantity::parse(&step.0).unwrap_or_default().format();
    Text(Quantity::from_whole(i64::try_from(value).unwrap_or(i64::MAX), format).to_string())
}

/// What a claim takes of one capacity of a device.
fn taken(request: Option<&Text>, capacity: &DeviceCapacity) -> Text {
    let policy = capacity.request_policy.as_ref();
    let Some(request) = request else {
        return policy.and_then(|p| p.default.clone()).unwrap_or_else(|| capacity.value.clone());
    };
    match policy {
        Some(CapacityRequestPolicy { valid_range: Some(range), .. }) => rounded_up(request, range),
        Some(CapacityRequestPolicy { valid_values: Some(values), .. }) => {
            values.iter().find(|v| milli(request) <= milli(v)).unwrap_or(request).clone()
        }
        _ => request.clone(),
    }
}

fn violates(amount: &Text, policy: Option<&CapacityRequestPolicy>) -> bool {
    let Some(policy) = policy else { return false };
    if policy.default.as_ref().is_some_and(|d| milli(d) == milli(amount)) {
        return false;
    }
    match (&policy.valid_range, &policy.valid_values) {
        (Some(range), _) => {
            let over = range.max.as_ref().is_some_and(|max| milli(amount) > milli(max));
            let off = range.step.as_ref().is_some_and(|step| (whole(amount) - whole(&range.min)) % whole(step).max(1) != 0);
            over || off
        }
        (None, Some(values)) if !values.is_empty() => !values.iter().any(|v| milli(v) == milli(amount)),
        _ => false,
    }
}

/// Whether the device has what the request asks for, beside what is `used` of it.
pub fn suffices(request: Option<&CapacityRequirements>, device: &Device, used: &[Option<&Amounts>]) -> bool {
    let none = BTreeMap::new();
    let capacities = device.capacity.as_ref().unwrap_or(&none);
    let names = request.and_then(|r| r.requests.as_ref()).into_iter().flatten();
    if names.into_iter().any(|(name, _)| !capacities.contains_key(name)) {
        return false;
    }
    capacities.iter().all(|(name, capacity)| {
        let amount = taken(requested(request, name), capacity);
        let before: i128 = used.iter().flatten().filter_map(|u| u.get(name)).sum();
        milli(&amount) >= 0 && !violates(&amount, capacity.request_policy.as_ref()) && before + milli(&amount) <= milli(&capacity.value)
    })
}

/// What the request takes of a device that it shares.
pub fn consumed(request: Option<&CapacityRequirements>, device: &Device) -> BTreeMap<String, Text> {
    let capacities = device.capacity.iter().flatten();
    capacities.map(|(name, capacity)| (name.clone(), taken(requested(request, name), capacity))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn amount(request: Option<&str>, capacity: serde_json::Value) -> String {
        taken(request.map(|r| Text(r.into())).as_ref(), &serde_json::from_value(capacity).unwrap()).0
    }

    #[test]
    fn a_share_follows_the_policy_of_the_device() {
        let range = json!({"value": "40Gi", "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"}}});
        assert_eq!(amount(None, range.clone()), "1Gi");
        assert_eq!(amount(Some("1"), range.clone()), "1Gi");
        assert_eq!(amount(Some("2500Mi"), range), "3Gi");
        let values = json!({"value": "10", "requestPolicy": {"default": "1", "validValues": ["1", "5", "10"]}});
        assert_eq!(amount(Some("3"), values), "5");
        assert_eq!(amount(None, json!({"value": "10"})), "10");
    }

    #[test]
    fn a_device_is_shared_until_it_is_used_up() {
        let device: Device = serde_json::from_value(json!({"name": "d", "capacity": {"memory": {"value": "10"}}})).unwrap();
        let request: CapacityRequirements = serde_json::from_value(json!({"requests": {"memory": "4"}})).unwrap();
        let used = |n: i128| Amounts::from([("memory".to_owned(), n * 1000)]);
        assert!(suffices(Some(&request), &device, &[Some(&used(6))]));
        assert!(!suffices(Some(&request), &device, &[Some(&used(6)), Some(&used(1))]));
        let other: CapacityRequirements = serde_json::from_value(json!({"requests": {"cores": "4"}})).unwrap();
        assert!(!suffices(Some(&other), &device, &[]));
    }
}
