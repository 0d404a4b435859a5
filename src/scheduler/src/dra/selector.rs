//! Which devices a class or a request means: expressions over a device's driver, attributes and capacity.
//!
//! Models k8s.io/dynamic-resource-allocation/cel/compile.go, v1.37.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use api::admission::Age;
use api::devices::{Refused, compile_selector};
use cel::{CostLimit, Program, Value};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceSelector};

/// Why it cannot be told whether a device is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("CEL compile error: {0}")]
    Compile(String),
    #[error("CEL runtime error: {0}")]
    Evaluate(String),
}

/// Expressions in use are few; beyond so many, all are compiled anew.
const KEPT_MAX: usize = 256;

type Compiled = Result<Arc<Program>, SelectorError>;

/// What was compiled: the same text is the same program for all.
static COMPILED: LazyLock<Mutex<HashMap<String, Compiled>>> = LazyLock::new(Mutex::default);

fn compile(expression: &str) -> Compiled {
    let mut known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(expression) {
        return found.clone();
    }
    let compiled = compile_selector(expression, Age::Stored).map(Arc::new).map_err(|refused| match refused {
        Refused::Invalid(why) | Refused::Internal(why) => SelectorError::Compile(why),
    });
    if known.len() >= KEPT_MAX {
        known.clear();
    }
    known.insert(expression.to_owned(), compiled.clone());
    compiled
}

/// By domain and name; a domain that is not there is an empty one.
fn by_domain<'a>(driver: &'a str, values: impl Iterator<Item = (&'a String, Value<'a>)>) -> Value<'a> {
    let mut domains: BTreeMap<&str, Vec<(Value<'a>, Value<'a>)>> = BTreeMap::new();
    for (name, value) in values {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        domains.entry(domain).or_default().push((Value::str(name), value));
    }
    let domains = domains.into_iter().map(|(domain, values)| (Value::str(domain), Value::map(values, None)));
    Value::map(domains, Some(Value::map([], None)))
}

fn attribute(attribute: &DeviceAttribute) -> Result<Value<'_>, SelectorError> {
    if let Some(number) = attribute.int {
        return Ok(Value::Int(number));
    }
    if let Some(truth) = attribute.bool {
        return Ok(Value::Bool(truth));
    }
    if let Some(text) = &attribute.string {
        return Ok(Value::str(text));
    }
    match &attribute.version {
        Some(version) => Value::semver(version).map_err(|why| SelectorError::Evaluate(format!("parse semantic version: {why}"))),
        None => Err(SelectorError::Evaluate("unsupported attribute value".to_owned())),
    }
}

/// What expressions know as `device`.
fn value<'a>(driver: &'a str, device: &'a Device) -> Result<Value<'a>, SelectorError> {
    let attributes: Result<Vec<_>, _> =
        device.attributes.iter().flatten().map(|(name, given)| Ok((name, attribute(given).map_err(|e| named(name, e))?))).collect();
    let mut capacity = Vec::new();
    for (name, given) in device.capacity.iter().flatten() {
        let parsed = cel::quantity::Quantity::parse(&given.value.0);
        let parsed = parsed.map_err(|e| SelectorError::Evaluate(format!("capacity {name}: {e}")))?;
        capacity.push((name, Value::quantity(parsed)));
    }
    let fields = [
        ("driver", Value::str(driver)),
        ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations == Some(true))),
        ("attributes", by_domain(driver, attributes?.into_iter())),
        ("capacity", by_domain(driver, capacity.into_iter())),
    ];
    Ok(Value::map(fields.map(|(name, value)| (Value::str(name), value)), None))
}

fn named(name: &str, error: SelectorError) -> SelectorError {
    match error {
        SelectorError::Evaluate(why) => SelectorError::Evaluate(format!("attribute {name}: {why}")),
        other => other,
    }
}

fn matches(expression: &str, driver: &str, device: &Device) -> Result<bool, SelectorError> {
    let program = compile(expression)?;
    let variables = [("device", value(driver, device)?)];
    let evaluation = program.evaluate(&variables.as_slice(), CostLimit::PER_CALL);
    match evaluation.value {
        Ok(value) => value.as_bool().ok_or_else(|| SelectorError::Evaluate("the expression did not give a bool".to_owned())),
        Err(error) => Err(SelectorError::Evaluate(error.message)),
    }
}

/// Whether all selectors hold; of the first that cannot be told, its number and why.
pub fn all_match(selectors: Option<&Vec<DeviceSelector>>, driver: &str, device: &Device) -> Result<bool, (usize, SelectorError)> {
    for (i, selector) in selectors.into_iter().flatten().enumerate() {
        let Some(cel) = &selector.cel else { return Err((i, SelectorError::Compile("unsupported selector type".to_owned()))) };
        if !matches(&cel.expression, driver, device).map_err(|e| (i, e))? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        let object = serde_json::json!({"name": "d", "attributes": {
                "model": {"string": "a100"}, "other.example.com/numa": {"int": 1}, "ready": {"bool": true}, "driverVersion": {"version": "1.2.3"}},
            "capacity": {"memory": {"value": "40Gi"}}});
        serde_json::from_value(object).unwrap()
    }

    fn ask(expression: &str) -> Result<bool, SelectorError> {
        matches(expression, "gpu.example.com", &device())
    }

    #[test]
    fn expressions_read_a_devices_driver_attributes_and_capacity() {
        for (expression, holds) in [
            ("device.driver == 'gpu.example.com'", true),
            ("device.attributes['gpu.example.com'].model == 'a100'", true),
            ("device.attributes['other.example.com'].numa == 2", false),
            ("device.attributes['gpu.example.com'].ready && !device.allowMultipleAllocations", true),
            ("device.attributes['gpu.example.com'].driverVersion.isGreaterThan(semver('1.2.0'))", true),
            ("device.capacity['gpu.example.com'].memory.compareTo(quantity('80Gi')) >= 0", false),
            ("'gpu.example.com' in device.attributes", true),
            // A domain that is not there is empty, and yet not there.
            ("has(device.attributes['none.example.com'].x)", false),
            ("'none.example.com' in device.attributes", false),
        ] {
            assert_eq!(ask(expression), Ok(holds), "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let missing = ask("device.attributes['gpu.example.com'].x == 1");
        assert_eq!(missing, Err(SelectorError::Evaluate("no such key: x".to_owned())));
        assert!(matches!(ask("device.none"), Err(SelectorError::Compile(_))));
        assert!(matches!(ask("device.driver"), Err(SelectorError::Compile(_))));
    }
}
