//! Defaults of priority and fairness.
//!
//! Models pkg/apis/flowcontrol/v1/defaults.go.
use super::{absent, child, child_or_new, zero};
use crate::tree::Object;

pub(super) fn apply(kind: &str, object: &mut Object) {
    let spec = child_or_new(object, "spec");
    match kind {
        "FlowSchema" => zero(spec, "matchingPrecedence", 1000),
        "PriorityLevelConfiguration" => {
            if let Some(exempt) = child(spec, "exempt") {
                absent(exempt, "nominalConcurrencyShares", 0);
                absent(exempt, "lendablePercent", 0);
            }
            if let Some(limited) = child(spec, "limited") {
                absent(limited, "nominalConcurrencyShares", 30);
                absent(limited, "lendablePercent", 0);
                if let Some(queuing) = child(limited, "limitResponse").and_then(|r| child(r, "queuing")) {
                    zero(queuing, "handSize", 8);
                    zero(queuing, "queues", 64);
                    zero(queuing, "queueLengthLimit", 50);
                }
            }
        }
        _ => {}
    }
}
