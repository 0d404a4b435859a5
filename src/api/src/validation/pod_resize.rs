//! What may change in a pod through `pods/resize`: amounts of cpu and memory, of containers and of the pod itself.
//!
//! Models pkg/apis/core/validation/validation.go `ValidatePodResize`, v1.37, with the gates that are on there by default. So the
//! size of a volume in memory is fixed (InPlacePodVerticalScalingMemoryBackedVolumes is alpha).
use super::check::*;
use super::{meta, pod};
use crate::field_error::{FieldError, Path};
use crate::quantity::Quantity;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const MIRROR: &str = "kubernetes.io/config.mirror";
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

pub(super) fn resize(errors: &mut Errors, new: &Tree, old: &Tree) {
    if old.at(&["metadata", "annotations", MIRROR]).is_some() {
        errors.push(FieldError::forbidden(Path::new(""), "static pods cannot be resized"));
        return;
    }
    if old.str_at(&["spec", "os", "name"]) == "windows" {
        errors.push(FieldError::forbidden(Path::new(""), "windows pods cannot be resized"));
        return;
    }
    meta::update(errors, new, old);
    pod::metadata_and_spec(errors, new);
    let (spec, old_spec) = (at(new, "spec"), at(old, "spec"));
    let old_class = Some(old.str_at(&["status", "qosClass"])).filter(|c| !c.is_empty()).unwrap_or_else(|| qos_class(old_spec));
    if qos_class(spec) != old_class {
        let class = text(at(new, "status"), "qosClass");
        errors.push(FieldError::invalid(SPEC, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        errors.push(FieldError::forbidden(SPEC, "Pod running on node without support for resize"));
    }
    // With the old amounts in it: what still differs may not.
    let mut munged = spec.clone();
    if has_pod_level(spec) || has_pod_level(old_spec) {
        pod_level(errors, &mut munged, spec, old_spec);
    }
    let before = errors.len();
    containers_in_order(errors, spec, old_spec);
    if errors.len() > before {
        return;
    }
    for key in ["initContainers", "containers"] {
        let path = SPEC.child(key);
        let news = munged.get_mut(key).and_then(Tree::as_array_mut).into_iter().flatten();
        for (i, (new, old)) in news.zip(list(old_spec, key)).enumerate() {
            let item = path.index(i);
            removed(errors, at(new, "resources"), at(old, "resources"), &item.child("resources"), "resource");
            let changed = !same(new, old);
            take_old_amounts(new, old, &["resources"]);
            let differs = !same(new, old);
            match key {
                "containers" if differs => errors.push(FieldError::forbidden(SPEC, "only cpu and memory resources are mutable")),
                "initContainers" if differs => {
                    errors.push(FieldError::forbidden(item, "only cpu and memory resources for init or sidecar containers are mutable"));
                }
                "initContainers" if changed && text(old, "restartPolicy") != "Always" => {
                    let restarts = list(new, "resizePolicy").iter().filter(|p| text(p, "restartPolicy") == "RestartContainer");
                    for _ in restarts {
                        let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                        errors.push(FieldError::forbidden(path.index(i), why));
                    }
                }
                _ => {}
            }
        }
    }
    let volumes = |spec: &Tree| spec.get("volumes").cloned().unwrap_or(Tree::Array(Vec::new()));
    if !same(&volumes(spec), &volumes(old_spec)) {
        let why = "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled";
        errors.push(FieldError::forbidden(SPEC.child("volumes"), why));
    }
    if errors.is_empty() && !same(&munged, old_spec) {
        errors.push(FieldError::forbidden(SPEC, "only cpu and memory resources are mutable"));
    }
}

/// A node that reports no resources of a container that runs knows nothing of resizing.
fn is_supported(pod: &Tree) -> bool {
    let running = pod.array_at(&["status", "containerStatuses"]).iter().find(|s| s.at(&["state", "running"]).is_some());
    running.is_none_or(|status| status.get("resources").is_some())
}

fn has_pod_level(spec: &Tree) -> bool {
    ["requests", "limits"].iter().any(|key| entries(at(spec, "resources"), key).next().is_some())
}

fn pod_level(errors: &mut Errors, munged: &mut Tree, spec: &Tree, old_spec: &Tree) {
    let path = SPEC.child("resources");
    if old_spec.get("resources").is_some() && spec.get("resources").is_none() {
        errors.push(FieldError::forbidden(path, "pod-level resources cannot be removed"));
        return;
    }
    removed(errors, at(spec, "resources"), at(old_spec, "resources"), &path, "pod-level resource");
    take_old_amounts(munged, old_spec, &["resources"]);
    if old_spec.get("resources").is_none() && !has_pod_level(munged) && at(munged, "resources").get("claims").is_none() {
        munged.remove(&["resources"]);
    }
    let of = |spec: &Tree| spec.get("resources").cloned().unwrap_or_else(Tree::object);
    if !same(&of(munged), &of(old_spec)) {
        errors.push(FieldError::forbidden(SPEC, "only cpu and memory resources are mutable at pod-level"));
    }
}

fn containers_in_order(errors: &mut Errors, spec: &Tree, old_spec: &Tree) {
    for key in ["containers", "initContainers"] {
        let path = SPEC.child(key);
        let (news, olds) = (list(spec, key), list(old_spec, key));
        if news.len() != olds.len() {
            errors.push(FieldError::forbidden(path, format!("{key} may not be added or removed on resize")));
            continue;
        }
        for (i, (new, old)) in news.iter().zip(olds).enumerate() {
            if text(new, "name") != text(old, "name") {
                errors.push(FieldError::forbidden(path.index(i).child("name"), format!("{key} may not be renamed or reordered on resize")));
            }
        }
    }
}

fn removed(errors: &mut Errors, new: &Tree, old: &Tree, path: &Path, what: &str) {
    for key in ["requests", "limits"] {
        if entries(old, key).any(|(name, _)| at(new, key).get(name).is_none()) {
            errors.push(FieldError::forbidden(path.child(key), format!("{what} {key} cannot be removed")));
        }
    }
}

fn take_old_amounts(new: &mut Tree, old: &Tree, place: &[&str]) {
    for list_name in ["requests", "limits"] {
        for resource in RESIZABLE {
            let path: Vec<&str> = place.iter().copied().chain([list_name, resource]).collect();
            match old.at(&path) {
                Some(amount) => new.set(&path, amount.clone()),
                None => {
                    new.remove(&path);
                }
            }
        }
    }
}

/// Models pkg/apis/core/helper/qos `ComputePodQOS`.
fn qos_class(spec: &Tree) -> &'static str {
    let holders: Vec<&Tree> = if has_pod_level(spec) {
        vec![spec]
    } else {
        ["containers", "initContainers"].iter().flat_map(|l| list(spec, l)).collect()
    };
    let amounts = |key: &str, resource: &str| -> (Quantity, bool) {
        let all: Vec<Quantity> = holders.iter().filter_map(|c| c.at(&["resources", key, resource]).map(quantity)).filter(|q| !q.is_zero()).collect();
        (all.iter().copied().sum(), all.len() == holders.len())
    };
    let mut guaranteed = true;
    let mut any = false;
    for resource in RESIZABLE {
        let ((requests, _), (limits, all_limited)) = (amounts("requests", resource), amounts("limits", resource));
        any |= !requests.is_zero() || !limits.is_zero();
        guaranteed &= all_limited && requests == limits;
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
