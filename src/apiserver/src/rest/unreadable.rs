//! Deletes what cannot be read, and so cannot be deleted otherwise.
//!
//! Models k8s.io/apiserver/pkg/registry/generic/registry/corrupt_obj_deleter.go and pkg/endpoints/handlers/delete.go authorizeUnsafeDelete:
//! without preconditions, finalizers and admission, for who may do `unsafe-delete-ignore-read-errors`.
use api::tree::{Object, Tree};
use axum::body::Body;
use http::{Response, StatusCode};
use store::{Expect, Operation, Revision, WriteError};

use super::Call;
use super::storage::{Target, store_failed};
use crate::audit::notes;
use crate::negotiate;
use crate::status::{self, Status};

const VERB: &str = "unsafe-delete-ignore-read-errors";

pub async fn delete(call: &Call, target: &Target, dry_run: bool) -> Result<Response<Body>, Status> {
    notes::annotate("apiserver.k8s.io/unsafe-delete-ignore-read-error", "");
    let resource = &target.resource;
    let attributes = target.attributes(VERB);
    let decision = call.server.0.parts.authorizer.decide(&attributes).await;
    if !decision.allowed() {
        let why = format!("not permitted to do \"{VERB}\", reason: {}", decision.reason);
        return Err(Status::forbidden(&resource.group, &resource.plural, &target.name, &why));
    }
    let Some(unreadable) = target.unreadable() else {
        if target.current().is_none() {
            return Err(target.not_found());
        }
        let key = target.key(&target.name);
        let why = "unsafe deletion is not allowed because the object is decodable from storage";
        let why = format!("StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}");
        return Err(Status::conflict(&resource.group, &resource.plural, &target.name, &why));
    };
    if !dry_run {
        tracing::warn!(key = %unreadable.key, user = target.user.name, "an unreadable object is deleted");
        match target.write(unreadable.key.clone(), Operation::Delete, Expect::Revision(Revision(unreadable.revision))).await {
            Ok(_) => {}
            Err(WriteError::Conflict { current: None }) => return Err(target.not_found()),
            Err(WriteError::Conflict { .. }) => return Err(target.modified()),
            Err(error) => return Err(store_failed(error)),
        }
    }
    let mut details = Object::new();
    details.insert("name", target.name.as_str());
    details.insert("kind", &*resource.kind);
    let mut answer = status::success(Some(details));
    answer.set(&["code"], Tree::Integer(200));
    Ok(negotiate::answer_tree(&call.accept, StatusCode::OK, &answer))
}
