//! patch: JSON patch, merge patch, strategic merge patch.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/patch.go. Left out: apply (415 says so).
use std::sync::Mutex;

use api::patch::{self as patches, PatchError};
use api::registry::Registry;
use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response, StatusCode};

use super::model::{Expected, Untyped};
use super::options::{FieldValidation, WriteOptions};
use super::storage::Part;
use super::{Call, body, model, read};
use crate::negotiate;
use crate::status::Status;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: [&str; 2] = ["application/apply-patch+yaml", "application/apply-patch+cbor"];

/// A patch, read once and applied as often as races demand.
pub enum Patch {
    Json(Tree),
    Merge(Tree),
    Strategic(Tree),
}

impl Patch {
    pub fn parse(media: &str, bytes: &[u8]) -> Result<Self, Status> {
        if APPLY.contains(&media) {
            let text = format!("server-side apply ({media}) is not supported by this server; supported patch types: {JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC}");
            return Err(Status::unsupported_media_type_because(text));
        }
        if ![JSON_PATCH, MERGE_PATCH, STRATEGIC].contains(&media) {
            return Err(Status::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, STRATEGIC]));
        }
        let tree = api::codec::parse_json(bytes).map_err(|error| Status::bad_request(error.to_string()))?.tree;
        Ok(match media {
            JSON_PATCH => Patch::Json(tree),
            MERGE_PATCH => Patch::Merge(tree),
            _ => Patch::Strategic(tree),
        })
    }

    pub fn apply(&self, expected: Expected<'_>, target: &mut Tree) -> Result<(), Status> {
        let failed = |error: PatchError| match error {
            PatchError::BadRequest(text) => Status::bad_request(text),
            PatchError::Unprocessable(text) => unprocessable(text),
            PatchError::TooLarge(text) => Status::too_large(text),
            PatchError::Internal(text) => Status::internal(text),
        };
        match self {
            Patch::Json(patch) => patches::json_patch(target, patch).map_err(failed),
            Patch::Merge(patch) if patch.as_object().is_none() => {
                Err(Status::bad_request(format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", patch.type_name())))
            }
            Patch::Merge(patch) => {
                patches::merge_patch(target, patch.clone());
                Ok(())
            }
            Patch::Strategic(patch) => {
                let schema = Registry::get().kind_schema(expected.group, expected.version, expected.kind).filter(|_| expected.custom.is_none());
                let schema = schema.ok_or_else(|| Status::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH]))?;
                patches::strategic_merge(target, patch.clone(), schema).map_err(failed)
            }
        }
    }
}

/// Names no object, as upstream: kubectl then shows the text.
fn unprocessable(text: String) -> Status {
    let mut status = Status::invalid("", "", "", &[]);
    status.message = text;
    status
}

/// The patched tree as a typed object, checked as a body would be.
pub fn retype(
    expected: Expected<'_>,
    name: &str,
    tree: Tree,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Tree, Status> {
    model::typed(expected, tree, Vec::new(), validation, warnings).map_err(|error| match error {
        Untyped::Wrong(text) => {
            let error = api::field_error::FieldError::invalid("patch", "", text);
            Status::invalid(expected.group, expected.kind, name, &[error])
        }
        Untyped::Strict(text) => {
            Status::bad_request(format!("{} in version \"{}\" cannot be handled as a {}: {text}", expected.kind, expected.version, expected.kind))
        }
    })
}

pub async fn patch(call: &mut Call, request: Request<Body>, part: Part) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let patch = Patch::parse(&media, &bytes)?;
    let resource = call.resource.clone();
    let expected = Expected::of(&resource);
    let target = call.target();
    let complaints = Mutex::new(Vec::new());
    let change = |old: &Tree| {
        // A patch creates nothing.
        if old.is_null() {
            return Ok(Tree::Null);
        }
        let mut tree = old.clone();
        patch.apply(expected, &mut tree)?;
        let mut complaints = complaints.lock().expect("no panic under the lock");
        complaints.clear();
        retype(expected, &target.name, tree, options.field_validation, &mut complaints)
    };
    let outcome = target.update(part, true, options.dry_run, &mut call.warnings, &change).await?;
    call.warnings.append(&mut complaints.into_inner().expect("no panic under the lock"));
    read::answer(call, StatusCode::OK, outcome.bytes)
}
