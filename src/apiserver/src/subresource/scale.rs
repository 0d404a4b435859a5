//! scale: replicas of a workload as autoscaling/v1 Scale. Models pkg/registry/apps/deployment/storage ScaleREST and its likes.
use std::sync::Mutex;

use api::apply;
use api::field_error::FieldError;
use api::meta;
use api::registry::{Registry, Resource};
use api::schema::Schema;
use api::selector::LabelSelector;
use api::tree::{Object, Tree};
use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::negotiate;
use crate::rest::model::Expected;
use crate::rest::options::WriteOptions;
use crate::rest::managed::KindVersions;
use crate::rest::patch::{self, Applied, Patch};
use crate::rest::storage::{Part, Target, now};
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

/// The one version of Scale.
struct ScaleVersions;

impl apply::Versions for ScaleVersions {
    fn type_of(&self, api_version: &str) -> Option<apply::Type<'_>> {
        if api_version == "autoscaling/v1" { schema().map(apply::Type::BuiltIn) } else { None }
    }

    fn empty(&self) -> Tree {
        let mut scale = schema().map_or_else(Tree::object, api::schema::zero);
        meta::set_type(&mut scale, "autoscaling/v1", "Scale");
        scale
    }

    fn convert(&self, _: &Tree, _: &str) -> Result<Option<Tree>, String> {
        Ok(None)
    }
}

fn schema() -> Option<&'static Schema> {
    Registry::get().kind_schema(SCALE.group, SCALE.version, SCALE.kind)
}

const MANAGED: [&str; 2] = ["metadata", "managedFields"];

/// Who owns replicas, as the scale says it and as the workload says it.
struct Managed<'m> {
    target: &'m Target,
    /// `None`: the request applies.
    manager: Option<&'m str>,
}

impl Managed<'_> {
    fn paths(&self, api_version: &str) -> Option<Option<Vec<Box<str>>>> {
        let versions = KindVersions::new(&self.target.server.0.parts.cache, &self.target.resource);
        let resource = versions.resource_of(api_version)?;
        let path = match &resource.custom {
            None => Some(vec!["spec".into(), "replicas".into()]),
            Some(custom) => custom.scale.as_ref().map(|scale| scale.wanted_path().into_iter().map(Box::from).collect()),
        };
        Some(path)
    }

    fn scale_of(&self, workload: &Tree) -> Tree {
        let mut scale = scale_of(&self.target.resource, workload);
        if let Some(list) = apply::to_scale(workload.at(&MANAGED), &|version| self.paths(version)) {
            scale.set(&MANAGED, list);
        }
        scale
    }

    /// The workload after its scale became what `change` says.
    fn scaled(&self, workload: &Tree, change: impl FnOnce(&apply::Write<'_>, &Tree) -> Result<Tree, Status>) -> Result<Tree, Status> {
        let resource = &self.target.resource;
        let write = apply::Write {
            versions: &ScaleVersions,
            api_version: "autoscaling/v1",
            kind: "Scale",
            subresource: "scale",
            filter: None,
            now: &now(),
        };
        let old = self.scale_of(workload);
        let mut scale = change(&write, &old)?;
        if let Some(manager) = self.manager {
            write.track(manager, Some(&old), &mut scale);
        }
        let mut new = scaled(resource, workload, &scale, &self.target.name)?;
        let list = apply::to_workload(workload.at(&MANAGED), scale.at(&MANAGED), &resource.api_version(), &|version| self.paths(version));
        match list {
            Some(list) => new.set(&MANAGED, list),
            None => drop(new.remove(&MANAGED)),
        }
        Ok(new)
    }
}

pub async fn handle(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let media = negotiate::content_type(&call.headers).to_owned();
    if call.info.verb == "get" {
        let target = call.target();
        let workload = target.tree(&call.current()?).await?;
        // Models customresource/etcd.go ScaleREST.Get.
        if let Some(paths) = target.resource.custom.as_ref().and_then(|custom| custom.scale.as_ref())
            && paths.wanted(&workload).is_none()
        {
            return Err(Status::internal(format!("the spec replicas field \"{}\" does not exist", paths.spec_replicas)));
        }
        return read::answer(call, StatusCode::OK, scale_of(&target.resource, &workload).to_json().into());
    }
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let complaints = Mutex::new(Vec::new());
    let (is_update, is_apply) = (call.info.verb == "update", patch::is_apply(&media));
    let options = match is_update {
        true => WriteOptions::parse(&call.query, "UpdateOptions")?,
        false => WriteOptions::parse_patch(&call.query, is_apply)?,
    };
    let (dry_run, validation) = (options.dry_run, options.field_validation);
    let target = call.write_target(&options);
    let manager = target.manager.clone().filter(|_| !is_apply || is_update);
    let managed = Managed { target: &target, manager: manager.as_deref() };
    let outcome = if is_update {
        let scale = model::decode(SCALE, &media, &bytes, validation, &mut call.warnings)?;
        let change = |old: &Tree| if old.is_null() { Ok(Tree::Null) } else { managed.scaled(old, |_, _| Ok(scale.clone())) };
        target.update(Part::Scale, false, dry_run, &mut call.warnings, &change).await?
    } else if is_apply {
        let applied = Applied::parse(&bytes, options)?;
        let change = |old: &Tree| {
            if old.is_null() {
                return Ok(Tree::Null);
            }
            let mut complaints = complaints.lock().expect("no panic under the lock");
            complaints.clear();
            managed.scaled(old, |write, scale| applied.to(write, SCALE, Some(scale), &mut complaints))
        };
        target.update(Part::Scale, true, dry_run, &mut call.warnings, &change).await?
    } else {
        let patch = Patch::parse(&SCALE, &media, &bytes)?;
        let change = |old: &Tree| {
            if old.is_null() {
                return Ok(Tree::Null);
            }
            managed.scaled(old, |_, scale| {
                let mut scale = scale.clone();
                let found = patch.apply(SCALE, &mut scale, validation)?;
                let mut complaints = complaints.lock().expect("no panic under the lock");
                complaints.clear();
                patch.retype(SCALE, scale, found, validation, &mut complaints)
            })
        };
        target.update(Part::Scale, true, dry_run, &mut call.warnings, &change).await?
    };
    call.warnings.append(&mut complaints.into_inner().expect("no panic under the lock"));
    let workload = Tree::from_json(&outcome.bytes).map_err(Status::internal)?;
    read::answer(call, StatusCode::OK, scale_of(&target.resource, &workload).to_json().into())
}
