//! scale: replicas of a workload as autoscaling/v1 Scale. Models pkg/registry/apps/deployment/storage ScaleREST and its likes.
use std::sync::Mutex;

use api::field_error::FieldError;
use api::meta;
use api::registry::Resource;
use api::selector::LabelSelector;
use api::tree::{Object, Tree};
use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::negotiate;
use crate::rest::model::Expected;
use crate::rest::options::WriteOptions;
use crate::rest::patch::{self, Patch};
use crate::rest::storage::Part;
use crate::rest::{Call, body, model, read};
use crate::status::Status;

const SCALE: Expected<'static> = Expected::built_in("autoscaling", "v1", "Scale");

pub(crate) fn scale_of(resource: &Resource, workload: &Tree) -> Tree {
    let mut scale = Tree::object();
    meta::set_type(&mut scale, "autoscaling/v1", "Scale");
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = workload.at(&["metadata", field]) {
            scale.set(&["metadata", field], value.clone());
        }
    }
    scale.set(&["spec"], Tree::object());
    if let Some(paths) = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        if let Some(replicas) = paths.wanted(workload).filter(|replicas| *replicas != 0) {
            scale.set(&["spec", "replicas"], replicas);
        }
        scale.set(&["status", "replicas"], paths.current(workload));
        if !paths.selector(workload).is_empty() {
            scale.set(&["status", "selector"], paths.selector(workload));
        }
        return scale;
    }
    let replicas = workload.at(&["spec", "replicas"]).and_then(Tree::as_i64).unwrap_or(0);
    if replicas != 0 {
        scale.set(&["spec", "replicas"], replicas);
    }
    scale.set(&["status", "replicas"], workload.at(&["status", "replicas"]).and_then(Tree::as_i64).unwrap_or(0));
    let selector = workload.at(&["spec", "selector"]);
    let text = if resource.group.is_empty() {
        let pairs = selector.and_then(Tree::as_object).into_iter().flat_map(Object::iter);
        LabelSelector::from_labels(pairs.map(|(k, v)| (k, v.as_str().unwrap_or("")))).to_string()
    } else {
        LabelSelector::from_tree(selector).map(|s| s.to_string()).unwrap_or_default()
    };
    if !text.is_empty() {
        scale.set(&["status", "selector"], text);
    }
    scale
}

/// The workload with the scale's replicas; its uid and version are conditions.
pub(crate) fn scaled(resource: &Resource, workload: &Tree, scale: &Tree, name: &str) -> Result<Tree, Status> {
    let replicas = scale.at(&["spec", "replicas"]).and_then(Tree::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", name, &[error]));
    }
    let mut new = workload.clone();
    match resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(paths) => paths.set_wanted(&mut new, replicas),
        None => new.set(&["spec", "replicas"], replicas),
    }
    meta::set_resource_version(&mut new, meta::resource_version(scale));
    if !meta::uid(scale).is_empty() {
        meta::set_uid(&mut new, meta::uid(scale));
    }
    Ok(new)
}

pub async fn handle(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let resource = call.resource.clone();
    let target = call.target();
    let outcome = match call.info.verb {
        "get" => {
            let workload = target.tree(&call.current()?).await?;
            return read::answer(call, StatusCode::OK, scale_of(&resource, &workload).to_json().into());
        }
        "update" => {
            let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
            let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
            let media = negotiate::content_type(&call.headers).to_owned();
            let scale = model::decode(SCALE, &media, &bytes, options.field_validation, &mut call.warnings)?;
            let change = |old: &Tree| if old.is_null() { Ok(Tree::Null) } else { scaled(&resource, old, &scale, &target.name) };
            target.update(Part::Scale, false, options.dry_run, &mut call.warnings, &change).await?
        }
        _ => {
            let options = WriteOptions::parse(&call.query, "PatchOptions")?;
            let media = negotiate::content_type(&call.headers).to_owned();
            let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
            let patch = Patch::parse(&media, &bytes)?;
            let complaints = Mutex::new(Vec::new());
            let change = |old: &Tree| {
                if old.is_null() {
                    return Ok(Tree::Null);
                }
                let mut scale = scale_of(&resource, old);
                patch.apply(SCALE, &mut scale)?;
                let mut complaints = complaints.lock().expect("no panic under the lock");
                complaints.clear();
                let scale = patch::retype(SCALE, &target.name, scale, options.field_validation, &mut complaints)?;
                scaled(&resource, old, &scale, &target.name)
            };
            let outcome = target.update(Part::Scale, true, options.dry_run, &mut call.warnings, &change).await?;
            call.warnings.append(&mut complaints.into_inner().expect("no panic under the lock"));
            outcome
        }
    };
    let workload = Tree::from_json(&outcome.bytes).map_err(Status::internal)?;
    read::answer(call, StatusCode::OK, scale_of(&resource, &workload).to_json().into())
}
