//! On request: every image is pulled with the pod's own credentials, so nobody runs one that only another may pull.
//!
//! Models plugin/pkg/admission/alwayspullimages/admission.go.
use std::collections::BTreeSet;

use api::field_error::{FieldError, Path};
use api::tree::Tree;

use super::{Operation, Request};
use crate::status::{self, Status};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn images(pod: &Tree) -> BTreeSet<&str> {
    LISTS.iter().flat_map(|list| pod.array_at(&["spec", list])).map(|container| container.str_at(&["image"])).collect()
}

fn is_concerned(request: &Request) -> bool {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let brings_images = || request.old.as_deref().is_none_or(|old| !images(&request.object).is_subset(&images(old)));
    writes && request.is("", "pods") && brings_images()
}

pub fn admit(request: &mut Request) {
    if !is_concerned(request) {
        return;
    }
    for list in LISTS {
        let containers = request.object.at_mut(&["spec", list]).and_then(Tree::as_array_mut);
        containers.into_iter().flatten().for_each(|container| container.set(&["imagePullPolicy"], "Always"));
    }
    let volumes = request.object.at_mut(&["spec", "volumes"]).and_then(Tree::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").filter(|image| !image.is_null()) {
            image.set(&["pullPolicy"], "Always");
        }
    }
}

pub fn validate(request: &Request) -> Result<(), Status> {
    if !is_concerned(request) {
        return Ok(());
    }
    let mut refused = Vec::new();
    let mut check = |policy: &str, path: Path| {
        if policy != "Always" {
            refused.push(request.forbidden(FieldError::not_supported(path, policy, &["Always"]).to_string()));
        }
    };
    let spec = Path::new("spec");
    for list in LISTS {
        let path = spec.child(list);
        for (i, container) in request.object.array_at(&["spec", list]).iter().enumerate() {
            check(container.str_at(&["imagePullPolicy"]), path.index(i).child("imagePullPolicy"));
        }
    }
    let path = spec.child("volumes");
    for (i, volume) in request.object.array_at(&["spec", "volumes"]).iter().enumerate() {
        if let Some(image) = volume.get("image").filter(|image| !image.is_null()) {
            check(image.str_at(&["pullPolicy"]), path.index(i).child("image").child("pullPolicy"));
        }
    }
    let texts: Vec<String> = refused.iter().map(|status| status.message.clone()).collect();
    match refused.into_iter().next() {
        None => Ok(()),
        Some(first) if texts.len() == 1 => Err(first),
        Some(_) => Err(Status::internal(status::aggregate(&texts))),
    }
}
