//! What the devices of a claim must have in common, or must not.
//!
//! Models structured/internal/incubating: `matchAttributeConstraint` and constraint.go, v1.37.
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

pub struct Constraint<'a> {
    /// Requests (or `request/subrequest`) that it is about; all where there is none.
    requests: &'a [String],
    attribute: &'a str,
    distinct: bool,
    /// The values of the devices chosen so far.
    seen: Vec<&'a DeviceAttribute>,
}

impl<'a> Constraint<'a> {
    /// `None` for a kind of constraint that is not known.
    pub fn new(constraint: &'a DeviceConstraint) -> Option<Self> {
        let (attribute, distinct) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(attribute), _) => (attribute, false),
            (None, Some(attribute)) => (attribute, true),
            (None, None) => return None,
        };
        Some(Self { requests: constraint.requests.as_deref().unwrap_or_default(), attribute, distinct, seen: Vec::new() })
    }

    fn concerns(&self, request: &str, sub_request: Option<&str>) -> bool {
        let full = sub_request.map(|sub| format!("{request}/{sub}"));
        self.requests.is_empty() || self.requests.iter().any(|r| r == request || Some(r) == full.as_ref())
    }

    /// Adds a device; false where it does not go with the others.
    pub fn add(&mut self, request: &str, sub_request: Option<&str>, device: &'a Device, driver: &str) -> bool {
        if !self.concerns(request, sub_request) {
            return true;
        }
        let Some(value) = lookup(device, driver, self.attribute) else { return false };
        let fits = match self.distinct {
            true => !self.seen.iter().any(|seen| is_equal(seen, value)),
            false => self.seen.first().is_none_or(|seen| is_equal(seen, value)),
        };
        if fits {
            self.seen.push(value);
        }
        fits
    }

    pub fn remove(&mut self, request: &str, sub_request: Option<&str>) {
        if self.concerns(request, sub_request) {
            self.seen.pop();
        }
    }
}

fn is_equal(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    let some = a.string.is_some() || a.int.is_some() || a.bool.is_some() || a.version.is_some();
    some && a.string == b.string && a.int == b.int && a.bool == b.bool && a.version == b.version
}

/// By its full name, or without the driver's domain.
fn lookup<'a>(device: &'a Device, driver: &str, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, short) = name.split_once('/')?;
        attributes.get(short).filter(|_| domain == driver)
    })
}
