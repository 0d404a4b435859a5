//! get: bytes out of the cache.
use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};

use api::tree::{Object, Tree};

use super::{Call, options};
use crate::negotiate::{self, Transform};
use crate::status::Status;
use crate::{convert, table};

pub async fn get(call: &Call) -> Result<Response<Body>, Status> {
    if let Some(text) = call.query.nonempty("resourceVersion") {
        let asked = options::parse_version(text)?;
        let current = call.server.0.parts.cache.revision();
        if asked > current {
            return Err(Status::version_too_large(asked, current));
        }
    }
    let cached = convert::view(&call.server.0.parts.cache, &call.resource, call.current()?).await?;
    answer(call, StatusCode::OK, convert::bytes(&call.resource, &cached.bytes))
}

/// One object was asked for as a list of metadata, or a list as that of one. Models endpoints/handlers/response.go, which prints Go's types.
pub fn not_as_metadata(call: &Call, is_list: bool) -> Status {
    let resource = &call.resource;
    let (package, kind) = match (&resource.custom, &*resource.group) {
        (Some(_), _) => ("unstructured", "Unstructured"),
        (None, "" | "events.k8s.io") => ("core", &*resource.kind),
        (None, group) => (group.split('.').next().unwrap_or_default(), &*resource.kind),
    };
    Status::not_as_asked(match is_list {
        true => format!("you requested PartialObjectMetadata, but the requested object is a list (*{package}.{kind}List)"),
        false => format!("you requested PartialObjectMetadataList, but the requested object is not a list (*{package}.{kind})"),
    })
}

/// Answers one object in the form the client asked for.
pub fn answer(call: &Call, code: StatusCode, bytes: Bytes) -> Result<Response<Body>, Status> {
    let bytes = match call.accept.transform {
        Transform::None => bytes,
        Transform::Metadata { of_list: true, .. } => return Err(not_as_metadata(call, false)),
        Transform::Metadata { version, .. } => {
            let mut out = Vec::with_capacity(bytes.len());
            table::partial(&mut out, version, &bytes).map_err(Status::internal)?;
            out.into()
        }
        Transform::Table { version } => {
            let include = table::Include::parse(&call.query)?;
            table::Rows::new(&call.resource, version, include).only(true, &bytes).map_err(Status::internal)?.into()
        }
    };
    Ok(negotiate::answer(&call.accept, code, bytes))
}

/// The old kind ComponentStatus: rk's components share one process, and it answers.
pub fn component_statuses(call: &Call) -> Result<Response<Body>, Status> {
    let item = |name: &str| {
        let mut condition = Object::new();
        condition.insert("type", "Healthy");
        condition.insert("status", "True");
        condition.insert("message", "ok");
        let mut tree = Tree::object();
        tree.set(&["apiVersion"], "v1");
        tree.set(&["kind"], "ComponentStatus");
        tree.set(&["metadata", "name"], name);
        tree.set(&["conditions"], Tree::Array(vec![condition.into()]));
        tree
    };
    let names = ["controller-manager", "etcd-0", "scheduler"];
    if !call.info.name.is_empty() && call.info.verb == "get" {
        let name = names.iter().find(|n| **n == call.info.name).ok_or_else(|| call.not_found())?;
        return answer(call, StatusCode::OK, item(name).to_json().into());
    }
    let items: Vec<Bytes> = names.iter().map(|name| item(name).to_json().into()).collect();
    super::list::answer_items(call, items, &super::list::Meta::default())
}
