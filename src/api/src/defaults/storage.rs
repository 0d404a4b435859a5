//! Defaults of StorageClasses, CSI drivers and PriorityClasses.
//!
//! Models pkg/apis/storage/v1/defaults.go and pkg/apis/scheduling/v1/defaults.go.
use super::{absent, child_or_new, is_zero, strings};
use crate::tree::Object;

pub(super) fn apply(kind: &str, object: &mut Object) {
    match kind {
        "PriorityClass" => absent(object, "preemptionPolicy", "PreemptLowerPriority"),
        "StorageClass" => {
            absent(object, "reclaimPolicy", "Delete");
            absent(object, "volumeBindingMode", "Immediate");
        }
        "CSIDriver" => {
            let spec = child_or_new(object, "spec");
            absent(spec, "attachRequired", true);
            absent(spec, "podInfoOnMount", false);
            absent(spec, "storageCapacity", false);
            absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if spec.get("volumeLifecycleModes").is_none_or(is_zero) {
                spec.insert("volumeLifecycleModes", strings(&["Persistent"]));
            }
            absent(spec, "requiresRepublish", false);
            absent(spec, "seLinuxMount", false);
            absent(spec, "preventPodSchedulingIfMissing", false);
        }
        _ => {}
    }
}
