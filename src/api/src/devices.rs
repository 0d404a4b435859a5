//! Expressions that select devices: what they may speak of, what they must evaluate to, and what they may cost.
//!
//! Models k8s.io/dynamic-resource-allocation/cel/compile.go, v1.37, with the feature gates that are on by default. Validation refuses what
//! does not compile; the scheduler evaluates what was stored.
use std::sync::OnceLock;

use cel::{Declared, Environment, Estimator, ObjectType, Program, SizeEstimate, Type};

use crate::admission::Age;

const DOMAIN_BYTES_MAX: u64 = 63;
const ID_BYTES_MAX: u64 = 32;
const VALUE_BYTES_MAX: u64 = 64;
const PER_DEVICE_MAX: u64 = 32;
/// What one expression may cost, by estimate and when it runs.
pub const COST_MAX: u64 = 1_000_000;

/// Why an expression is no selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not compile, or evaluates to something else than a truth.
    Invalid(String),
    /// It compiles, and yet no program can be made of it.
    Internal(String),
}

/// The variable `device`.
fn environment(age: Age) -> &'static Environment {
    static NEW: OnceLock<Environment> = OnceLock::new();
    static STORED: OnceLock<Environment> = OnceLock::new();
    let (cell, attribute) = match age {
        Age::New => (&NEW, Declared::other(Type::Any)),
        // A list of values too, whatever gate is on.
        Age::Stored => (&STORED, Declared::any()),
    };
    cell.get_or_init(|| {
        let by_domain = |of: Declared| Declared::map(Declared::map(of));
        let fields = [
            ("driver", Declared::string()),
            ("allowMultipleAllocations", Declared::bool()),
            ("attributes", by_domain(attribute)),
            ("capacity", by_domain(Declared::other(Type::Opaque("kubernetes.Quantity")))),
        ];
        let device = ObjectType::new("kubernetes.DRADevice", fields.map(|(name, of)| (name.into(), of, true)));
        Environment::base(age.version()).with_variable("device", Declared::object(device))
    })
}

/// Compiles a selector. Why it does not compile is worded as upstream words the detail of its field error.
pub fn compile_selector(expression: &str, age: Age) -> Result<Program, Refused> {
    let program = environment(age).compile(expression).map_err(|issues| Refused::Invalid(format!("compilation failed: {issues}")))?;
    match (program.output_type(), program.defect()) {
        (Type::Bool | Type::Dyn | Type::Any, None) => Ok(program),
        (Type::Bool | Type::Dyn | Type::Any, Some(defect)) => {
            Err(Refused::Internal(format!("program instantiation failed: {}", defect.message)))
        }
        (other, _) => Err(Refused::Invalid(format!("must evaluate to bool or the unknown type, not {other}"))),
    }
}

/// The most that a selector may cost.
pub fn cost(program: &Program) -> u64 {
    program.estimate(&DeviceSizes).max
}

/// How large a device may be.
struct DeviceSizes;

impl Estimator for DeviceSizes {
    fn size(&self, path: &[&str]) -> Option<SizeEstimate> {
        let max = match path {
            ["device"] => 0,
            ["device", "driver"] => DOMAIN_BYTES_MAX,
            ["device", "allowMultipleAllocations"] => 1,
            ["device", "attributes" | "capacity"] => PER_DEVICE_MAX,
            ["device", "attributes" | "capacity", "@keys"] => DOMAIN_BYTES_MAX,
            ["device", "attributes" | "capacity", "@items" | "@values"] => PER_DEVICE_MAX,
            ["device", "attributes" | "capacity", "@items" | "@values", "@keys"] => ID_BYTES_MAX,
            ["device", "capacity", "@items" | "@values", "@items" | "@values"] => 0,
            // Any name: all attributes are bounded alike.
            ["device", "attributes", "@items" | "@values", _] => VALUE_BYTES_MAX,
            _ => return None,
        };
        Some(SizeEstimate { min: 0, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(expression: &str) -> Refused {
        compile_selector(expression, Age::New).expect_err(expression)
    }

    #[test]
    fn a_selector_is_a_truth_about_a_device() {
        for expression in ["device.driver == 'a'", "device.attributes['a'].b", "device.attributes['a'].b.startsWith('x')", "true"] {
            let program = compile_selector(expression, Age::New).unwrap();
            assert!(cost(&program) <= COST_MAX, "{expression}");
        }
        assert_eq!(refused("device.driver"), Refused::Invalid("must evaluate to bool or the unknown type, not string".to_owned()));
        assert!(matches!(refused("other"), Refused::Invalid(why) if why.starts_with("compilation failed: ERROR: <input>:1:1: undeclared reference")));
    }

    #[test]
    fn what_may_take_too_long_costs_too_much() {
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == b))))";
        assert!(cost(&compile_selector(nested, Age::New).unwrap()) > COST_MAX);
    }
}
